"""The client for stores: against a real redis-server where there is one, and against one that breaks off."""

from __future__ import annotations

import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import NoAnswer, NotJudged, SubjectFault
from fixtures.core.ports import HOST, free_port
from fixtures.instruments.store import PASSWORD, USER, StoreClient, credentials_in
from fixtures.provide.process.store_program import with_certificate
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with redis_server(tmp_path, "--requirepass", "pass-word") as found:
        yield found


def test_commands_and_their_replies(port: int) -> None:
    with StoreClient(HOST, port, ("pass-word",)) as store:
        blob = bytes(range(256)) * 9000
        assert store.ask("SET", "key", blob) == b"OK"
        assert store.ask("GET", "key") == blob
        assert store.ask("GET", "nothing") is None
        assert store.ask("DBSIZE") == 1
        assert store.ask("KEYS", "*") == [b"key"]
        assert int(store.figures("memory")["used_memory"]) > len(blob)
        with pytest.raises(SubjectFault, match="unknown command"):
            store.ask("NO-SUCH")
        assert store.ask("DEL", "key") == 1
        trip_s, bytes_per_s = store.read_s()
        assert 0 < trip_s < 1
        assert bytes_per_s > 1e6
        assert store.ask("DBSIZE") == 0, "nothing is left of the measurement"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
def test_a_store_is_asked_with_tls_by_the_options_of_its_url(tmp_path: Path) -> None:
    words = with_certificate(tmp_path)
    authority = words[words.index("--tls-ca-cert-file") + 1]
    with redis_server(tmp_path, "--requirepass", "pass-word", tls=words) as port:
        for options in ({"ssl_ca_certs": authority}, {"ssl_cert_reqs": "none"}):
            with StoreClient(HOST, port, ("pass-word",), tls=options) as store:
                assert store.ask("PING") == b"PONG"
        with pytest.raises(NoAnswer, match=r"does not answer PING: .*certificate verify failed"):
            StoreClient(HOST, port, ("pass-word",), tls={}).ask("PING")
        with pytest.raises(NoAnswer, match=r"certificate is not valid for 'localhost'|[Hh]ostname mismatch"):
            StoreClient("localhost", port, ("pass-word",), tls={"ssl_ca_certs": authority}).ask("PING")
        named = {"ssl_ca_certs": authority, "ssl_check_hostname": "false"}
        assert StoreClient("localhost", port, ("pass-word",), tls=named).ask("PING") == b"PONG"
        with pytest.raises(NoAnswer):
            StoreClient(HOST, port, ("pass-word",)).ask("PING")
        with pytest.raises(NoAnswer, match="No such file"):
            StoreClient(HOST, port, tls={"ssl_ca_certs": str(tmp_path / "none")}).ask("PING")


def test_several_commands_are_sent_at_once(port: int) -> None:
    with StoreClient(HOST, port, ("pass-word",)) as store:
        assert store.ask_each([("SET", "a", b"long"), ("STRLEN", "a"), ("GET", "b")]) == [b"OK", 4, None]
        assert store.ask_each([]) == []
        with pytest.raises(SubjectFault, match="not an integer"):
            store.ask_each([("INCR", "a"), ("GET", "a")])
        assert store.ask("STRLEN", "a") == 4, "the reply to what was asked, not the one before"


def test_a_store_with_a_password_serves_who_has_none_nothing(port: int) -> None:
    with StoreClient(HOST, port) as store:
        assert store.serves()
        with pytest.raises(NotJudged, match="refuses a command of the suite: 'NOAUTH"):
            store.ask("DBSIZE")
    with pytest.raises(NotJudged, match="WRONGPASS") as error:
        StoreClient(HOST, port, ("no-such-word",)).ask("PING")
    assert "no-such-word" not in str(error.value)


def test_a_user_of_an_access_control_list(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--user", "reader", "on", ">pass-word", "~*", "+get", "+ping") as port:
        client = StoreClient(HOST, port, credentials_in({USER: "reader", PASSWORD: "pass-word"}))
        assert client.ask("GET", "nothing") is None
        with pytest.raises(NotJudged, match=r"NOPERM .*give LMCache's user ~\* \+@all"):
            client.ask("SET", "key", "value")


@pytest.mark.parametrize("answer", [b"", b"$10\r\nabc", b"?what\r\n"])
def test_a_reply_that_is_none_is_no_answer(answer: bytes) -> None:
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NoAnswer):
            StoreClient(HOST, server.getsockname()[1]).ask("PING")
        thread.join()


def test_a_store_that_says_nothing_is_overdue() -> None:
    with socket.create_server((HOST, 0)) as server:
        store = StoreClient(HOST, server.getsockname()[1], deadline_s=0.05)
        with pytest.raises(NoAnswer) as error:
            store.ask("PING")
        assert error.value.overdue
        assert not store.serves()
    assert not StoreClient(HOST, free_port()).serves()
