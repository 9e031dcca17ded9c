"""What cache and log say of an exchange: what is waited for, and which of them is asked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged
from fixtures.evidence.metrics import CacheCounters
from fixtures.instruments.prompts import Prompt
from fixtures.instruments.response import Response
from fixtures.subject.accounting import Accounting
from fixtures.subject.exchange import Exchange
from fixtures.subject.log_file import LogFile, LogWindow

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = Path(__file__).parent / "data" / "evidence"
COLD, WARM = "cmpl-8dd1a70a955e350e", "cmpl-b0c6617d1b8af7f4"


def exchange(request_id: str = "a", tokens: int = 1080, **fields: Any) -> Exchange:
    prompt = Prompt(tuple(range(1000, 1000 + tokens)), 256, "prompt-1")
    response = Response(200, {}, json.dumps({"id": request_id, "choices": []}), total_s=0.25)
    return Exchange(prompt, {}, response, "engine-0", **fields)


def accounting(
    since: Callable[..., CacheCounters] | None = None, log: LogFile | None = None, *, quicker: bool = False
) -> Accounting:
    """Of one engine, whose LMCache says that it works within it where ``quicker``."""
    engine = SimpleNamespace(name="engine-0", cache_server=None, log=log)
    subject = SimpleNamespace(engines=[engine], context=SimpleNamespace(deadlines=Deadlines(logged_s=0.2)))
    files = {} if log is None else {"engine-0": log}
    logs = SimpleNamespace(behind=lambda _: files, require_info_level=lambda: None, offload_announced=lambda _: quicker)
    return Accounting(subject, SimpleNamespace(since=since), logs)  # type: ignore[arg-type]


def test_a_log_window_waits_for_its_line_and_gives_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = "[2026-11-25 04:31:45,869] \x1b[32;20mLMCache INFO:\x1b[0m Stored 1024 tokens in 0.017 seconds\n"
    log, looks = LogFile(tmp_path / "x.log"), []
    read = log.facts

    def facts(since: int = 0) -> Any:
        looks.append(1)
        if len(looks) == 4:
            log.path.write_text(stored)
        return read(since)

    monkeypatch.setattr(log, "facts", facts)
    window = LogWindow(((log, 0),), logged_s=0.2)
    assert window.facts(until=lambda facts: bool(facts.stored)).stored_tokens() == 1024
    assert len(looks) == 4
    assert window.facts(until=lambda facts: bool(facts.retrieved)).retrieved_tokens() == 0
    assert "Stored" in window.text()
    assert "\x1b" not in window.text()


def test_without_logs_or_counters_nothing_is_judged() -> None:
    with pytest.raises(NotJudged, match="no access to its logs"):
        accounting().log_of(exchange())
    with pytest.raises(NotJudged, match="counters cannot be read"):
        accounting().cache_delta(exchange())


@pytest.mark.parametrize(
    ("tokens", "stored", "waited_for"),
    [(1080, 1024, 1024), (1024, 1024, 1024), (100, None, 0)],
    ids=["whole-chunks", "exactly-chunks", "below-a-chunk"],
)
def test_stored_tokens_wait_for_what_may_be_stored(tokens: int, stored: int | None, waited_for: int) -> None:
    seen: list[bool] = []

    def since(engine: Any, before: Any, length: int, until: Callable[[CacheCounters], bool]) -> CacheCounters:
        assert length == tokens
        seen.extend(until(CacheCounters(stored_tokens=count)) for count in (waited_for - 1, waited_for))
        return CacheCounters(stored_tokens=stored)

    asked = exchange(tokens=tokens, cache_before=CacheCounters())
    assert accounting(since).stored_tokens(asked) == (stored or 0)
    assert seen == [False, True]


def test_where_the_log_is_quicker_the_log_is_asked(tmp_path: Path) -> None:
    """In-process LMCache counts every 10 s; its lines name their request."""
    lines = (DATA / "inprocess-lmcache0.5.3.engine.log").read_bytes().decode().splitlines()
    log = LogFile(tmp_path / "x.log")
    log.path.write_text("\n".join(line for line in lines if COLD in line or WARM in line) + "\n")
    read = accounting(log=log, quicker=True)
    assert read.stored_tokens(exchange(COLD, log_marks={"engine-0": 0})) == 1024
    assert read.hit_tokens(exchange(WARM, log_marks={"engine-0": 0})) == 1024


def test_a_time_without_stores_is_no_missing_store(tmp_path: Path) -> None:
    lines = (DATA / "inprocess-lmcache0.5.3.engine.log").read_bytes().decode().splitlines()
    log = LogFile(tmp_path / "x.log")
    log.path.write_text("\n".join(line for line in lines if COLD in line) + "\n")
    read = accounting(log=log, quicker=True)
    half = exchange(COLD, tokens=2100, log_marks={"engine-0": 0})
    assert read.stored_tokens(half) == 1024
    with log.path.open("a") as file:
        file.write(
            "[2026-11-30 11:32:23,675] LMCache INFO: StorageManager freeze mode set to True (storage_manager.py:872:x)\n"
        )
    with pytest.raises(NotJudged, match="LMCache stored nothing for a time"):
        read.stored_tokens(half)
    after = log.path.stat().st_size
    later = exchange(WARM, tokens=2100, log_marks={"engine-0": after})
    with pytest.raises(NotJudged, match="LMCache stored nothing for a time"):
        read.logged(later, later.stored_in)


def test_hit_tokens_wait_for_the_whole_chunks() -> None:
    seen: list[bool] = []

    def since(engine: Any, before: Any, length: int, until: Callable[[CacheCounters], bool]) -> CacheCounters:
        seen.extend(until(CacheCounters(hit_tokens=count)) for count in (None, 1023, 1024))
        return CacheCounters(hit_tokens=1024)

    assert accounting(since).hit_tokens(exchange(cache_before=CacheCounters())) == 1024
    assert seen == [False, False, True]


@pytest.mark.parametrize(("loaded", "hit"), [(1024, 1024), (0, 1024)], ids=["copied", "only counted"])
def test_what_a_native_connector_copied_is_what_it_found(loaded: int, hit: int) -> None:
    def since(*_: Any) -> CacheCounters:
        return CacheCounters(flavour="native", loaded_tokens=loaded, hit_tokens=hit, stored_tokens=1024)

    found = accounting(since, LogFile(Path("no.log")), quicker=True)
    cold = exchange(cache_before=CacheCounters(flavour="native"))
    assert (found.hit_tokens(cold), found.stored_tokens(cold)) == (loaded, 1024)


def test_a_native_connector_that_counts_no_stores_is_not_judged() -> None:
    found = accounting(lambda *_: CacheCounters(flavour="native", loaded_tokens=1024))
    with pytest.raises(NotJudged, match="SimpleCPUOffloadConnector counts no stores"):
        found.stored_tokens(exchange(cache_before=CacheCounters(flavour="native")))


@pytest.mark.parametrize(
    ("left_out", "contradicted"),
    [("", False), ("Retrieved", True), ("LMCache", False)],
    ids=["found-and-retrieved", "found-only", "nothing-logged"],
)
def test_a_load_that_the_log_contradicts_is_not_timed(tmp_path: Path, left_out: str, contradicted: bool) -> None:
    """H200, vLLM 0.32 with full CUDA graphs: vLLM counts 1 024 loaded tokens, LMCache finds and never retrieves them."""
    log = LogFile(tmp_path / "engine-0.log")
    lines = (DATA / "inprocess-lmcache0.5.3.engine.log").read_bytes().decode().splitlines()
    log.path.write_text(
        "\n".join(line for line in lines if WARM in line and (not left_out or left_out not in line)) + "\n"
    )
    asked = exchange(WARM, log_marks={"engine-0": 0})
    if contradicted:
        with pytest.raises(NotJudged, match=r"prompt-1 .* 1024 were found, and that none of them was retrieved"):
            accounting(log=log).expect_retrieved(asked)
    else:
        accounting(log=log).expect_retrieved(asked)


def test_without_a_log_there_is_nothing_to_contradict() -> None:
    accounting().expect_retrieved(exchange())


@pytest.mark.parametrize("on", [True, False])
def test_what_lmcache_did_not_store_for_a_time_cannot_be_loaded(tmp_path: Path, on: bool) -> None:
    log = LogFile(tmp_path / "x.log")
    line = f"StorageManager freeze mode set to {on} (storage_manager.py:872:x)"
    log.path.write_text(f"[2026-11-30 11:32:23,675] LMCache INFO: {line}\n")
    found, end = accounting(log=log), log.path.stat().st_size
    with pytest.raises(NotJudged, match="LMCache stored nothing for a time"):
        found.expect_stores(exchange(log_marks={"engine-0": 0}))
    with pytest.raises(NotJudged, match="LMCache stored nothing for a time") if on else contextlib.nullcontext():
        found.expect_stores(exchange(log_marks={"engine-0": end}))
    found.expect_stores(exchange())  # without its position in a log nothing says so
