"""A network that can be made bad, between a client and a server that echoes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fixtures.core.waiting import poll
from fixtures.instruments import detour
from fixtures.instruments.detour import CUT_AFTER_BYTES, Detour

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def echo() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                connection.sendall(piece)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield listener.getsockname()[1]
    # Else the thread still waits, and takes a connection of whoever gets the descriptor.
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join()


@pytest.fixture
def network(echo: int) -> Iterator[Detour]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Detour(port, echo) as made:
        yield made


def connect(network: Detour) -> socket.socket:
    return socket.create_connection(network._listener.getsockname(), timeout=5.0)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    got = b""
    while len(got) < len(data) and (piece := connection.recv(65536)):
        got += piece
    return got


def test_it_passes_bytes_unchanged(network: Detour) -> None:
    data = bytes(range(256)) * 5000
    with connect(network) as connection:
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        got = b""
        while len(got) < len(data):
            got += connection.recv(65536)
    assert got == data
    assert network.acted == 0


def test_it_is_silent_on_connections_that_are_open_too(network: Detour) -> None:
    with connect(network) as connection:
        assert exchange(connection, b"one") == b"one"
        network.choose("silent")
        connection.sendall(b"two")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        with connect(network) as later:
            later.sendall(b"three")
            assert poll(lambda: network.acted, lambda acted: acted >= 2, 5.0) >= 2
        network.choose("pass")
        connection.settimeout(5.0)
        with contextlib.suppress(OSError):
            assert connection.recv(10) == b"", "a connection that has lost bytes carries nothing more"
        with connect(network) as later:
            assert exchange(later, b"four") == b"four"


def test_it_delays_every_piece_by_the_same_time(network: Detour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detour, "DELAY_S", 0.1)
    network.choose("slow")
    with connect(network) as connection:
        begin = time.monotonic()
        assert exchange(connection, b"one") == b"one"
        assert 0.2 <= time.monotonic() - begin < 2.0, "there and back"
    assert network.acted == 2


def test_it_cuts_a_connection_after_some_bytes(network: Detour) -> None:
    network.choose("cut")
    with connect(network) as connection:
        assert exchange(connection, b"x" * 10) == b"x" * 10
        with contextlib.suppress(OSError):
            connection.sendall(b"x" * CUT_AFTER_BYTES)
            while connection.recv(65536):
                pass
    assert network.acted >= 1


def test_a_server_that_is_not_there_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
    with Detour(*ports) as network, connect(network) as connection:
        assert connection.recv(10) == b""


def test_nothing_listens_afterwards(network: Detour) -> None:
    address = network._listener.getsockname()
    with connect(network) as connection:
        assert exchange(connection, b"x") == b"x"
        network.__exit__(None, None, None)
        assert connection.recv(10) == b""
    with pytest.raises(OSError):
        socket.create_connection(address, timeout=1.0)
