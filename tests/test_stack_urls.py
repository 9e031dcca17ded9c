"""A deployment by its URLs: what each URL may answer, and what is said of those that cannot be used."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fixtures.errors import ConfigurationError, NotJudged
from fixtures.stack import urls
from fixtures.stack.stack import Stack
from fixtures.stack.urls import Endpoints

if TYPE_CHECKING:
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
    with pytest.raises(ConfigurationError, match="the key alone"):
        adopt(tmp_path, engines=("http://127.0.0.1:1",), api_key_file=file)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, "<!doctype html><html><body>Welcome</body></html>", "a web page instead of a list of models"),
        (502, "<html>502 Bad Gateway</html>", "a web page"),
        (404, '{"detail":"Not Found"}', "HTTP 404"),
        (200, '{"data": 3}', "instead of a list"),
        (200, "[" * 100_000, "instead of a list"),
        (200, '{"data": []}', "lists no model"),
    ],
)
def test_what_is_no_api(httpserver: HTTPServer, tmp_path: Path, status: int, body: str, says: str) -> None:
    httpserver.expect_request("/v1/models").respond_with_data(body, status=status)
    with pytest.raises(ConfigurationError, match=says):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


def test_redirects_without_an_end(httpserver: HTTPServer, tmp_path: Path) -> None:
    url = httpserver.url_for("/v1/models")
    httpserver.expect_request("/v1/models").respond_with_response(Response(status=302, headers={"Location": url}))
    with pytest.raises(ConfigurationError, match="redirects without an end"):
        adopt(tmp_path, engines=(httpserver.url_for("/"),))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("engine:8000", "is no URL"),
        ("ftp://engine", "is no URL"),
        ("http://", "is no URL"),
        ("http://user:secret@engine", "holds a password"),
        ("http://engine?token=1", "has a query"),
        ("http://127.0.0.1:1", "cannot be reached"),
        ("http://[::1", "is no URL"),
        ("http://engine:port", "is no URL"),
        ("http://engine:99999", "is no URL"),
    ],
)
def test_what_is_no_address(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        adopt(tmp_path, engines=(url,))
    assert "secret" not in str(caught.value)


def test_a_certificate_of_an_unknown_authority(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    with HTTPServer(host="localhost", ssl_context=context) as server:
        url = serve(server)
        with pytest.raises(ConfigurationError, match="name the file of its CA in REQUESTS_CA_BUNDLE"):
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
    with pytest.raises(ConfigurationError, match="does not serve the model mistral, it lists qwen"):
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
