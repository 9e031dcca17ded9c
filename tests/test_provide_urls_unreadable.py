"""URLs that are none, TLS that fails, and answers that cannot be read."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from pytest_httpserver import HTTPServer

from fixtures.core.errors import ConfigurationError
from fixtures.provide import url_probe
from fixtures.subject.stack import Stack
from tests.url_servers import adopt, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    """A certificate that is signed by itself alone, and its key."""
    import subprocess

    folder = tmp_path_factory.mktemp("tls")
    own, key = folder / "own.pem", folder / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*words.split(), "-keyout", str(key), "-out", str(own)], check=True, capture_output=True)
    return own, key


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
