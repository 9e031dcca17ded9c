"""The fault proxy: passes everything through untouched, and each fault does to an answer what its name says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.instruments.client import Client, bearer
from tests.fakes import proxied_engine
from tests.fakes.proxied_engine import METRICS, ask

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

engine = proxied_engine.engine
through = proxied_engine.through


def test_without_a_fault_everything_passes(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("none")
    direct = Client(f"http://127.0.0.1:{engine.server_address[1]}")
    for options in ({}, {"stream": True}, {"bad": True}):
        ours, theirs = ask(client, **options), ask(direct, **options)
        assert (ours.status, ours.text, ours.content_type) == (theirs.status, theirs.text, theirs.content_type)
    assert client.get("/metrics").text == METRICS
    assert proxy.fired == 0


def test_a_key_is_lent_to_everybody(through: Any) -> None:
    client, proxy = through("lend-key")
    statuses = [
        client.post("/v1/completions", {"prompt": "p", "key": "k"}, headers=headers).status
        for headers in ({}, bearer("k"), {}, bearer("wrong"))
    ]
    assert statuses == [401, 200, 200, 200]
    assert proxy.fired == 2


def test_a_stream_is_not_buffered(through: Any) -> None:
    client, _ = through("none")
    response = ask(client, stream=True, pieces=5, pause=0.1)
    assert response.ttft_s is not None
    assert response.ttft_s < 0.3 < 0.4 < response.total_s


def test_a_client_that_hangs_up_is_hung_up_on_at_the_engine(engine: ThreadingHTTPServer, through: Any) -> None:
    client, _ = through("none")
    assert client.abort_after("/v1/completions", {"prompt": "x", "stream": True, "pieces": 100, "pause": 0.05}, 0.1)
    assert engine.RequestHandlerClass.gone.wait(5.0)  # type: ignore[attr-defined]


def test_many_at_once_all_pass(through: Any) -> None:
    client, _ = through("none")
    with ThreadPoolExecutor(16) as pool:
        texts = pool.map(lambda n: ask(client, f"p{n}", wait=0.05).json["choices"][0]["text"], range(32))
        assert list(texts) == [f"p{n}" for n in range(32)]


def test_cut_stream(through: Any) -> None:
    client, proxy = through("cut-stream", after=2)
    response = ask(client, stream=True)
    assert response.cut is not None
    assert len(response.events) == 2
    assert proxy.fired == 1


@pytest.mark.parametrize(("times", "seen"), [(0, 0), (2, 2)])
def test_lose_done(through: Any, times: int, seen: int) -> None:
    client, proxy = through("lose-done", times=times)
    response = ask(client, stream=True)
    assert response.cut is None
    assert sum(event.data == "[DONE]" for event in response.events) == seen
    assert proxy.fired == 1


def test_drop_event(through: Any) -> None:
    client, _ = through("drop-event", number=2)
    response = ask(client, "w", stream=True)
    assert response.stream is not None
    assert response.stream.text == "w0w2w3"
