"""Faults of the proxy that change one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import proxied_engine
from tests.fakes.proxied_engine import ask

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

engine = proxied_engine.engine
through = proxied_engine.through


def test_buffered(through: Any) -> None:
    client, proxy = through("buffered")
    response = ask(client, stream=True, pieces=4, pause=0.1)
    assert response.ttft_s is not None
    assert response.ttft_s > 0.35
    assert response.stream is not None
    assert not response.stream.violations
    assert proxy.fired == 1


@pytest.mark.parametrize("stream", [True, False])
def test_content_type(through: Any, stream: bool) -> None:
    client, proxy = through("content-type", stream=stream, to="text/x")
    assert ask(client, stream=stream).content_type == "text/x"
    assert ask(client, stream=not stream).content_type != "text/x"
    assert proxy.fired == 1


def test_usage(through: Any) -> None:
    client, proxy = through("usage", name="prompt_tokens")
    assert ask(client).json["usage"]["prompt_tokens"] == 4
    response = ask(client, stream=True)
    assert response.stream is not None
    assert (response.stream.usage or {})["prompt_tokens"] == 4
    assert proxy.fired == 2


def test_cached_tokens(through: Any) -> None:
    client, proxy = through("cached-tokens")

    def cached(**options: Any) -> Any:
        return ask(client, **options).usage["prompt_tokens_details"]["cached_tokens"]

    found = [cached(cached=5), cached(cached=7, stream=True), cached(cached=9)]
    assert found == [5, 5, 7]
    assert proxy.fired == 2
    assert "prompt_tokens_details" not in ask(client).usage


def test_finish_reason(through: Any) -> None:
    client, _ = through("finish-reason", to="stop")
    assert ask(client).json["choices"][0]["finish_reason"] == "stop"
    response = ask(client, stream=True)
    assert response.stream is not None
    assert list(response.stream.finish_reasons) == ["stop"]


def test_without(through: Any) -> None:
    client, proxy = through("without", name="created")
    assert "created" not in ask(client).json
    assert "created" in ask(client, stream=True).text
    assert proxy.fired == 1


def test_drop_last_token(engine: ThreadingHTTPServer, through: Any) -> None:
    client, proxy = through("drop-last-token")
    seen = engine.RequestHandlerClass.seen  # type: ignore[attr-defined]
    for _ in range(2):
        ask(client, [1, 2, 3], stream=False)
    assert [one["prompt"] for one in seen] == [[1, 2, 3], [1, 2]]
    assert proxy.fired == 1


def test_models(through: Any) -> None:
    client, _ = through("models", change={"max_model_len": "8192"})
    assert client.get("/v1/models").json["data"][0]["max_model_len"] == "8192"


def test_metrics(through: Any) -> None:
    client, _ = through("metrics", rename=("vllm:kv_cache_usage_perc", "vllm:other"))
    assert "vllm:other 0.5" in client.get("/metrics").text
    client, proxy = through("metrics", double='source="external_kv_transfer"')
    assert '"external_kv_transfer"} 24.0' in client.get("/metrics").text
    assert proxy.fired == 1
