"""A deployment by its URLs: what each URL may answer, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fixtures.core.errors import ConfigurationError, NotJudged
from fixtures.provide import url_probe, urls
from fixtures.provide.urls import Endpoints
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODELS = {"object": "list", "data": [{"id": "mistral", "object": "model", "max_model_len": 8192}]}
KEY = "a-key-of-this-test"


def serve(server: HTTPServer, prefix: str = "", models: Any = MODELS) -> str:
    server.expect_request(f"{prefix}/v1/models").respond_with_json(models)
    server.expect_request(f"{prefix}/version").respond_with_json({"version": "0.32.0"})
    server.expect_request(f"{prefix}/metrics").respond_with_data("vllm:num_requests_running 0\n")
    return server.url_for(prefix or "/").rstrip("/")


def adopt(tmp_path: Path, **given: Any) -> Any:
    return urls.adopt(Endpoints(**given), folder=tmp_path)


def test_an_engine_by_its_url(httpserver: HTTPServer, tmp_path: Path) -> None:
    record = adopt(tmp_path, engines=(serve(httpserver),))
    assert [engine.url for engine in record.engines] == [httpserver.url_for("/").rstrip("/")]
    assert record.model == "mistral"
    assert record.versions == {"vllm": "0.32.0"}
    assert not record.routers
    assert Stack(record).max_model_len == 8192


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/"])
def test_a_path_prefix_and_what_people_append(httpserver: HTTPServer, tmp_path: Path, ending: str) -> None:
    base = serve(httpserver, "/team/llm")
    assert adopt(tmp_path, engines=(base + ending,)).engines[0].url == base


def test_a_redirect_is_followed_once_and_kept(httpserver: HTTPServer, tmp_path: Path) -> None:
    base = serve(httpserver, "/new")
    httpserver.expect_request("/old/v1/models").respond_with_response(
        Response(status=308, headers={"Location": f"{base}/v1/models"})
    )
    assert adopt(tmp_path, engines=(httpserver.url_for("/old"),)).engines[0].url == base


def test_a_router_as_the_only_way(httpserver: HTTPServer, tmp_path: Path) -> None:
    record = adopt(tmp_path, routers=(serve(httpserver),))
    stack = Stack(record)
    assert stack.router.base_url == record.engines[0].url
    with pytest.raises(NotJudged, match="add --url for each engine"):
        stack.engine.samples()
    assert any("--url" in sentence for sentence in urls.missing(record))


def test_a_key_is_sent_and_is_in_no_record(httpserver: HTTPServer, tmp_path: Path) -> None:
    def asked(request: Request) -> Response:
        right = request.headers.get("Authorization") == f"Bearer {KEY}"
        return Response(json.dumps(MODELS) if right else "{}", status=200 if right else 401)

    httpserver.expect_request("/v1/models").respond_with_handler(asked)
    httpserver.expect_request("/version").respond_with_json({})
    url = httpserver.url_for("/")
    with pytest.raises(ConfigurationError, match="give it with --api-key-file FILE"):
        adopt(tmp_path, engines=(url,))
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    record = adopt(tmp_path, engines=(url,), api_key_file=file)
    assert KEY not in record.model_dump_json()
    assert Stack(record).engine.client.headers["Authorization"] == f"Bearer {KEY}"
    file.write_text("another-key\n")
    with pytest.raises(ConfigurationError, match="is refused"):
        adopt(tmp_path, engines=(url,), api_key_file=file)


@pytest.mark.parametrize("text", ["", "two words", "a\nb\n"])
def test_a_file_that_holds_no_key(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="only the key"):
        adopt(tmp_path, engines=("http://127.0.0.1:1",), api_key_file=file)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "<!doctype html><html><body>Welcome</body></html>", "a web page instead of a list of models"),
        (502, "<html>502 Bad Gateway</html>", "a web page"),
        (404, '{"detail":"Not Found"}', "HTTP 404"),
        (503, "no healthy upstream", "HTTP 503: check that an engine behind it is ready"),
        (429, '{"error": "slow down"}', "HTTP 429: check that an engine behind it is ready"),
        (200, '{"data": 3}', "instead of a list"),
        (200, "[" * 100_000, "instead of a list"),
        (200, '{"data": []}', "lists no model"),
        (200, '{"data": [{"id": null}]}', "instead of a list of models"),
        (200, '{"data": [{"id": "m"}, {"id": ""}]}', "instead of a list of models"),
        (200, '{"data": ["m"]}', "instead of a list of models"),
    ],
)
def test_what_is_no_api(httpserver: HTTPServer, tmp_path: Path, status: int, body: str, says: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data(body, status=status)
    with pytest.raises(ConfigurationError, match=says):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


def test_redirects_without_an_end(httpserver: HTTPServer, tmp_path: Path) -> None:
    url = httpserver.url_for("/v1/models")
    httpserver.expect_request("/v1/models").respond_with_response(Response(status=302, headers={"Location": url}))
    with pytest.raises(ConfigurationError, match="redirects too often"):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("engine:8000", "is not a URL"),
        ("ftp://engine", "is not a URL"),
        ("http://", "is not a URL"),
        ("http://user:secret@engine", "contains a password"),
        ("http://user:1/secret@engine", "contains a password"),
        ("http://engine?token=1", "has a query"),
        ("http://127.0.0.1:1", "cannot be reached"),
        ("http://[::1", "is not a URL"),
        ("http://engine:port", "is not a URL"),
        ("http://engine:99999", "is not a URL"),
        ("http://a..b", "is not a URL"),
        (f"http://{'a' * 64}.example", "is not a URL"),
    ],
)
def test_what_is_no_address(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        adopt(tmp_path, engines=(url,))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("name", "is issued for another name .*: use that name in the URL"),
        ("plain", "the server does not use TLS .*: write http://"),
        ("client", "TLS fails .*without a client certificate"),
        ("bundle", "invalid path: /nowhere.pem: correct REQUESTS_CA_BUNDLE"),
        ("http", r"cannot be reached: .*check the address \(http or https\)"),
    ],
)
def test_tls_that_fails_names_its_own_remedy(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, case: str, says: str
) -> None:
    own, key = certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem" if case == "bundle" else str(own))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    if case == "client":
        context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(host="127.0.0.1", ssl_context=None if case == "plain" else context) as server:
        host = "127.0.0.1" if case == "name" else "localhost"
        scheme = "http" if case == "http" else "https"
        with pytest.raises(ConfigurationError, match=says):
            adopt(tmp_path, engines=(f"{scheme}://{host}:{server.port}",))


def test_a_certificate_of_an_unknown_authority(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    with HTTPServer(host="localhost", ssl_context=context) as server:
        url = serve(server)
        with pytest.raises(ConfigurationError, match="set REQUESTS_CA_BUNDLE to its CA file"):
            adopt(tmp_path, engines=(url,))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(own))
        record = adopt(tmp_path, engines=(url,))
        assert Stack(record).max_model_len == 8192


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody has signed but itself, and its key."""
    import subprocess

    folder = tmp_path_factory.mktemp("tls")
    own, key = folder / "own.pem", folder / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(own)], check=True, capture_output=True)
    return own, key


def test_engines_of_other_models(httpserver: HTTPServer, tmp_path: Path) -> None:
    first = serve(httpserver, "/a")
    second = serve(httpserver, "/b", {"data": [{"id": "qwen"}]})
    with pytest.raises(ConfigurationError, match="does not serve the model mistral; it serves qwen"):
        adopt(tmp_path, engines=(first, second))


def test_logs_go_to_engines_then_to_cache_servers(httpserver: HTTPServer, tmp_path: Path) -> None:
    base = serve(httpserver)
    logs = []
    for name in ("engine.log", "cache.log"):
        logs.append(tmp_path / name)
        logs[-1].write_text("a line\n")
    record = adopt(tmp_path, engines=(base,), cache_servers=(base,), logs=tuple(logs))
    assert [server.log for server in record.servers] == logs
    assert record.engines[0].cache_server == "cache"
    with pytest.raises(ConfigurationError, match="3 logs for 1 engines"):
        adopt(tmp_path, engines=(base,), cache_servers=(base,), logs=(*logs, logs[0]))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        adopt(tmp_path, engines=(base,), logs=(tmp_path / "none.log",))


# --- redirects --------------------------------------------------------------------------------------------------------


def lead(server: HTTPServer, path: str, location: str) -> str:
    server.expect_request(f"{path}/v1/models").respond_with_response(
        Response(status=302, headers={"Location": location})
    )
    return server.url_for(path)


def test_the_key_goes_to_no_host_that_a_redirect_names(httpserver: HTTPServer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    with HTTPServer(host="127.0.0.1") as other:
        there = serve(other, "/ok")
        here = lead(httpserver, "/cross", f"{there}/v1/models?token=t")
        with pytest.raises(ConfigurationError, match=r"redirects to another host, .* give that URL itself") as caught:
            adopt(tmp_path, engines=(here,), api_key_file=file)
        assert here in str(caught.value)
        assert f"{there}:" in str(caught.value)
        assert "token" not in str(caught.value)
        assert not other.log


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("https://h.example/v1/models", "https://h.example/v1/models"),
        ("https://h.example:8000/v1/models", "https://h.example:8000/v1/models"),
        ("//H.example:8000/x", "http://H.example:8000/x"),
        ("/x#part", "http://h.example:8000/x"),
        ("https://h.example:8443/x", None),
        ("http://h.example/x", None),
        ("https://other.example/x", None),
        ("http://user:pw@h.example:8000/x", None),
        ("ftp://h.example:8000/x", None),
        ("http://[::1", None),
    ],
)
def test_where_a_redirect_may_lead(location: str, leads_to: str | None) -> None:
    if leads_to is not None:
        assert url_probe._redirected("http://h.example:8000/v1/models", location) == leads_to
        return
    with pytest.raises(ConfigurationError, match="redirects to") as caught:
        url_probe._redirected("http://h.example:8000/v1/models", location)
    assert "pw" not in str(caught.value)


def test_https_is_not_left_again() -> None:
    with pytest.raises(ConfigurationError, match="another host"):
        url_probe._redirected("https://h.example/v1/models", "http://h.example/v1/models")


@pytest.mark.parametrize("ending", ["/", "?x=1", "/?x=1#here"])
def test_the_base_is_taken_rightly_from_a_redirect(httpserver: HTTPServer, tmp_path: Path, ending: str) -> None:
    base = serve(httpserver, "/new")
    httpserver.expect_request("/new/v1/models/").respond_with_json(MODELS)
    here = lead(httpserver, "/old", f"/new/v1/models{ending}")
    assert adopt(tmp_path, engines=(here,)).engines[0].url == base


def test_a_redirect_to_another_path_has_no_base(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/list").respond_with_json(MODELS)
    with pytest.raises(ConfigurationError, match="/list is the target of a redirect, but does not end in /v1/models"):
        adopt(tmp_path, engines=(lead(httpserver, "/old", "/list"),))


def test_a_version_behind_a_login_is_not_known(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(MODELS)
    httpserver.expect_request("/version").respond_with_response(
        Response(status=302, headers={"Location": "https://login.example/"})
    )
    assert adopt(tmp_path, engines=(httpserver.url_for("/"),)).versions == {}


# --- answers that cannot be read --------------------------------------------------------------------------------------


@pytest.fixture
def raw() -> Iterator[Callable[[bytes, bytes], str]]:
    """A server of one connection: writes the first text, then the second one byte by byte; returns its URL."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def answer(listener: socket.socket, head: bytes, slowly: bytes) -> None:
        connection, _ = listener.accept()
        with listener, connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(head)
            for number in range(len(slowly)):
                if over.wait(0.05):
                    return
                connection.sendall(slowly[number : number + 1])
            if slowly == STALL:
                over.wait(10)

    def start(head: bytes, slowly: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        threads.append(threading.Thread(target=answer, args=(listener, head, slowly), daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    for thread in threads:
        thread.join(5)


STALL = b"{"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("head", "slowly", "says"),
    [
        (OK + b'Content-Length: 100\r\n\r\n{"da', b"", "gives an unreadable answer .*: check the log of the server"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip", b"", "gives an unreadable answer"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", "gives an unreadable answer"),
        (OK + b"Content-Length: 100\r\n\r\n", STALL, "does not answer completely within 1 s: check whether"),
        (OK + b"\r\n", b" " * 1000, "does not answer completely within 1 s"),
        (OK, b"X: 1\r\n" * 200, "does not answer completely within 1 s"),
        (b"no HTTP\r\n\r\n", b"", "cannot be reached"),
    ],
    ids=["cut", "gzip", "chunks", "stall", "body drips", "headers drip", "no HTTP"],
)
def test_what_cannot_be_read_is_one_sentence_in_time(
    tmp_path: Path,
    raw: Callable[[bytes, bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    slowly: bytes,
    says: str,
) -> None:
    monkeypatch.setattr(url_probe, "ANSWERS_WITHIN_S", 1.0)
    begin = time.monotonic()
    with pytest.raises(ConfigurationError, match=says) as caught:
        adopt(tmp_path, engines=(raw(head, slowly),))
    assert time.monotonic() - begin < 5.0
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["api_key_file", "logs"])
def test_a_pipe_is_refused_and_not_waited_for(httpserver: HTTPServer, tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    given: dict[str, Any] = {option: pipe if option == "api_key_file" else (pipe,)}
    with pytest.raises(ConfigurationError, match="is not a regular file, but it is read more than once"):
        adopt(tmp_path, engines=(serve(httpserver),), **given)


@pytest.mark.parametrize("key", [b"\xef\xbb\xbfkept123", "na\u00efve\u2013key".encode(), b"\xffkept", b"k\x01ept"])
def test_a_key_that_no_header_takes(tmp_path: Path, key: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(key)
    with pytest.raises(ConfigurationError, match="--api-key-file") as caught:
        adopt(tmp_path, engines=("http://127.0.0.1:1",), api_key_file=file)
    assert key.decode("utf-8", "replace").strip("\ufeff\ufffd") not in str(caught.value).replace(str(file), "")


# --- doubles and names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["engines", "routers", "cache_servers"])
@pytest.mark.parametrize("ending", ["", "/", "/v1"])
def test_a_url_that_is_given_twice_is_refused(httpserver: HTTPServer, tmp_path: Path, option: str, ending: str) -> None:
    base = serve(httpserver)
    httpserver.expect_request("/v1/metrics").respond_with_data("a 1\n")
    given = {"engines": (base,), option: (base, base.replace("http://", "HTTP://") + ending)}
    with pytest.raises(ConfigurationError, match=f"refers to {base} twice: give the URL of each server once"):
        adopt(tmp_path, **given)


def test_engines_of_different_paths_have_different_names(httpserver: HTTPServer, tmp_path: Path) -> None:
    bases = tuple(serve(httpserver, path) for path in ("/a/b", "/a-b", "/a-b-2", "/a/b-2"))
    record = adopt(tmp_path, engines=bases, routers=bases)
    for servers in (record.engines, record.routers):
        assert len({server.name for server in servers}) == 4
        assert servers[0].name.endswith("-a-b")


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ("<!doctype html><html>login</html>", False),
        ('{"detail": "x"}', False),
        ("Please log in\n", False),
        ("", True),
        ("\n# HELP a b\n", True),
        ('lmcache:hits{a="b c"} 1\n', True),
    ],
)
def test_a_cache_server_answers_metrics(httpserver: HTTPServer, tmp_path: Path, body: str, fits: bool) -> None:
    httpserver.expect_request("/cache/metrics").respond_with_data(body)
    given = {"engines": (serve(httpserver),), "cache_servers": (httpserver.url_for("/cache"),)}
    if fits:
        assert adopt(tmp_path, **given).cache_servers[0].url == given["cache_servers"][0]
        return
    with pytest.raises(
        ConfigurationError, match="something else than metrics: give the HTTP address of LMCache's server"
    ):
        adopt(tmp_path, **given)
