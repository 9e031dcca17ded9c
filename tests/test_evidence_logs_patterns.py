"""Logs: one recorded line of every format."""

from __future__ import annotations

import pytest

from fixtures.evidence.shape import KvShape
from tests.log_examples import NEW
from tests.log_lines import read_log

TRANSFER = "size: 0.1250 {}, cost 50.0000 ms, throughput: 2.5 GB/s; offload_time: 4.6 ms, put_time: 0.06 ms"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"Stored 1024 out of total 2048 tokens. {TRANSFER.format('gb')}", (1024, None)),  # 0.3.3 to 0.3.9
        (f"Stored 1024 out of total 2048 tokens. {TRANSFER.format('GB')}", (1024, None)),  # 0.3.13
        (f"[req_id=a-1] Stored 1024 out of total 2048 tokens. {TRANSFER.format('GB')}", (1024, "a-1")),
        ("Stored 1024 out of total 2048 tokens", (1024, None)),  # layerwise, up to 0.3.9.post2
        ("Stored 1024 tokens in 0.050 seconds", (1024, None)),  # multi-process server
        ("Store skips 0 tokens and then stores 1024 tokens", (1024, None)),  # 0.1 and 0.2
    ],
)
def test_stored(message: str, expected: tuple[int, str | None]) -> None:
    (event,) = read_log(NEW.format(message)).stored
    assert (event.tokens, event.request_id) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Retrieved 512 out of 768 out of total 1024 tokens", (512, None)),  # 0.3.3
        (
            "Retrieved 512 out of 768 required tokens (from 1024 total tokens). size: 0.1 gb, cost 4.0 ms, "
            "throughput: 30.8832 GB/s;",
            (512, None),
        ),  # 0.3.7 to 0.3.13
        (
            "[req_id=a-1] Retrieved 512 out of 768 required tokens (from 1024 total tokens). size: 0.1 gb, "
            "cost 4.0 ms, throughput: 30.8832 GB/s;",
            (512, "a-1"),
        ),  # 0.3.15 to 0.5.6
        ("[req_id=a-1] Retrieved 512 out of 768 out of total 1024 tokens", (512, "a-1")),  # layerwise
        ("Retrieved 512 tokens", (512, None)),  # layerwise
        ("Retrieved 512 tokens in 0.004 seconds", (512, None)),  # multi-process server
        ("Injected token number: 512", (512, None)),  # 0.1 and 0.2
    ],
)
def test_retrieved(message: str, expected: tuple[int, str | None]) -> None:
    (event,) = read_log(NEW.format(message)).retrieved
    assert (event.tokens, event.request_id) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # id, hit, chunks hit, chunks asked
        (
            "Reqid: a-1, Total tokens 1080, LMCache hit tokens: 1024, need to load: -48",
            ("a-1", 1024, None, None),
        ),  # 0.3.3 to 0.3.13
        (
            "Reqid: a-1, Total tokens 1080, Inference Engine computed tokens: 16, LMCache hit tokens: 1024, "
            "need to load: 1008",
            ("a-1", 1024, None, None),
        ),  # 0.3.15 to 0.5.6
        (
            "Reqid: a-1, Total tokens 1080, Inference Engine computed tokens: 16, LMCache hit tokens: 1024, "
            "but need to load: 1008 < min_retrieve 2048, skip retrieve but record for save skip",
            ("a-1", 1024, None, None),
        ),
        (
            "Prefetch request completed (L1+L2): 3/4 prefix hits (2 L1, 1 L2) in 1.8 ms (request_id=7)",
            (None, None, 3, 4),
        ),  # 0.4.1: the number is the server's own
        (
            "Prefetch request completed (L1+L2): 3/4 prefix hits (2 L1, 1 L2) in 1.8 ms "
            "(external_request_id=a-1, prefetch_request_id=7)",
            ("a-1", None, 3, 4),
        ),  # 0.4.5
        (
            "Prefetch request completed (L1+L2): 3/4 retained keys (2 L1, 1 L2) in 1.8 ms "
            "(external_request_id=a-1, prefetch_request_id=-1)",
            ("a-1", None, 3, 4),
        ),  # 0.5.0 to 0.5.6
        ("<resume-load> req=a-1 apc=16 lmcache=1024 load=1008", ("a-1", 1024, None, None)),  # 0.5.6
        ("vLLM hit is: 16, Need to load is 1008", (None, None, None, None)),  # 0.4.5 to 0.5.6, DEBUG
    ],
)
def test_hit(message: str, expected: tuple[object, ...]) -> None:
    (hit,) = read_log(NEW.format(message)).hits
    assert (hit.request_id, hit.hit_tokens, hit.hit_chunks, hit.asked_chunks) == expected


def test_tokens_from_below_the_cpu_tier_are_told_by_the_lookup() -> None:
    """Recorded with LMCache 0.5.6 and a tier of files; so do 0.5.3 and 0.5.5."""
    said = "Prefetch request completed (L1+L2): 16/16 retained keys ({} L1, {} L2) in 51.4 ms (external_request_id={}-0-93, "
    text = "\n".join(
        NEW.format(said.format(*counts) + "prefetch_request_id=11)")
        for counts in ((0, 16, "cmpl-b8"), (0, 16, "cmpl-b8"), (16, 0, "cmpl-a7"))
    )
    facts = read_log(text)
    assert facts.below_tokens("cmpl-b8", 256) == 4096, "a repeated lookup counts once"
    assert facts.below_tokens("cmpl-a7", 256) == 0
    assert facts.below_tokens("cmpl-b8", 256, KvShape(2, 2)) == 2048
    assert facts.below_tokens("cmpl-c9", 256) is None
    assert (
        read_log(NEW.format("Reqid: a-1, Total tokens 9, LMCache hit tokens: 8, need to load: 8")).below_tokens(
            "a-1", 256
        )
        is None
    )


def test_a_pending_lookup_is_no_hit() -> None:
    assert read_log(NEW.format("Reqid: a-1, Total tokens 1080, LMCache hit tokens: None.")).hits == ()


@pytest.mark.parametrize(
    ("message", "cpu", "chunk"),
    [
        ("LMCache Configuration: {'chunk_size': 256, 'max_local_cpu_size': '20.0 GB', 'kind': <K.A: 1>}", 20.0, 256),
        ("Creating LMCacheEngine with config: {'chunk_size': 16, 'max_local_cpu_size': 2.5}", 2.5, 16),
        ("Creating LMCacheEngine with config: LMCacheEngineConfig(chunk_size=64, max_local_cpu_size=5)", 5.0, 64),
        ("LMCache Configuration: {'local_disk': None}", None, None),
    ],
)
def test_configuration(message: str, cpu: float | None, chunk: int | None) -> None:
    (configuration,) = read_log(NEW.format(message)).configurations
    assert (configuration.max_local_cpu_gib, configuration.chunk_size) == (cpu, chunk)


@pytest.mark.parametrize(
    "message",
    [
        "LMCache ZMQ cache server is running on tcp://localhost:5555",  # 0.3.13 to 0.5.4
        "LMCache zmq cache server is running on localhost:5555",  # 0.5.6
        "LMCache gRPC cache server is running on localhost:5556",  # 0.5.6
        "LMCache cache server is running...",
    ],
)
def test_server_up(message: str) -> None:
    assert len(read_log(NEW.format(message)).servers_up) == 1


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "(EngineCore pid=1) INFO 11-25 04:31:13 [core.py:1] Initializing a V1 LLM engine (v0.32.0) with: x",
            "0.32.0",
        ),
        (
            "INFO 01-16 03:30:21 llm_engine.py:234] Initializing an LLM engine (v0.6.6.post1) with config: x",
            "0.6.6.post1",
        ),
        ("INFO 04-01 03:30:21 [api_server.py:1043] vLLM API server version 0.8.5", "0.8.5"),
        (
            "(APIServer pid=1) INFO 11-25 04:31:03 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0\r",
            "0.32.0",
        ),
    ],
)
def test_engine_version(line: str, version: str) -> None:
    assert [fact.version for fact in read_log(line).versions] == [version]
