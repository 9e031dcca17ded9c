"""An exchange: what belongs to this request, and where two answers differ first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.core.errors import NotJudged, SubjectFault
from fixtures.evidence.metrics import EngineCounters
from fixtures.evidence.prometheus import Samples
from fixtures.evidence.sse import Event, check_stream
from fixtures.instruments.prompts import Prompt
from fixtures.instruments.response import Response
from fixtures.subject.exchange import Exchange, TokenSources, first_difference, summary
from tests.log_lines import read_log

if TYPE_CHECKING:
    from fixtures.evidence.logs.facts import LogFacts

DATA = Path(__file__).parent / "data" / "evidence"


def prompt(tokens: int = 1080, chunk: int = 256) -> Prompt:
    return Prompt(tuple(range(1000, 1000 + tokens)), chunk, "prompt-1")


def exchange(body: Any, *, stream: list[Any] | None = None, **fields: Any) -> Exchange:
    events = [Event(json.dumps(one)) for one in stream or []] + [Event("[DONE]")]
    response = Response(
        200, {}, json.dumps(body), total_s=0.25, stream=check_stream(events) if stream is not None else None
    )
    known: dict[str, Any] = {"prompt": prompt(), "payload": {}, "engine": "engine-0"}
    return Exchange(**(known | fields), response=response)


def answered(request_id: str, **fields: Any) -> Exchange:
    return exchange({"id": request_id, "choices": []}, **fields)


# --- token sources ----------------------------------------------------------------------------------------------------


def test_sources_add_up_and_are_readable() -> None:
    sources = TokenSources(57, 128, 1024)
    assert sources.total == 1209
    assert str(sources) == "57 computed + 128 GPU hit + 1024 loaded"
    told = TokenSources(57, 128, 1024, from_below=512)
    assert str(told) == "57 computed + 128 GPU hit + 1024 loaded (512 of them from below the CPU tier)"
    assert told.total == 1209


def test_sources_of_a_real_exposition() -> None:
    """One H100, prefix cache off: its log retrieved the same 138 240 tokens."""
    counters = EngineCounters.read(Samples.parse((DATA / "inprocess-vllm0.25.1.metrics.txt").read_text()))
    assert TokenSources.of(counters) == TokenSources(107_518, 0, 138_240)


@pytest.mark.parametrize("absent", ["computed", "gpu_hit", "loaded"])
def test_an_engine_that_does_not_count_by_source_is_not_judged(absent: str) -> None:
    known: dict[str, Any] = {"computed": 1, "gpu_hit": 2, "loaded": 3, absent: None}
    with pytest.raises(NotJudged, match="vllm:prompt_tokens_by_source_total"):
        TokenSources.of(EngineCounters(**known))


@pytest.mark.parametrize(("tokens", "remedy"), [(9, "use vLLM 0.16 or later"), (None, "leave out --disable-log-stats")])
def test_the_remedy_follows_from_what_the_engine_counts(tokens: int | None, remedy: str) -> None:
    with pytest.raises(NotJudged, match=remedy):
        TokenSources.of(EngineCounters(prompt_tokens=tokens))


def test_sources_of_one_of_many_are_not_known() -> None:
    with pytest.raises(ValueError, match="one of several"):
        _ = answered("a").sources


# --- differences ------------------------------------------------------------------------------------------------------


def body(
    text: str = "ab",
    tokens: tuple[str, ...] = ("a", "b"),
    probabilities: tuple[float | None, ...] = (-0.5, -0.25),
    tops: Any = ({"a": -0.5, "x": -2.0}, {"b": -0.25}),
    reason: str = "length",
) -> dict[str, Any]:
    logprobs = {"tokens": tokens, "token_logprobs": probabilities, "top_logprobs": tops}
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": logprobs}]}


def fingerprint(**changed: Any) -> tuple[Any, ...]:
    return exchange(body(**changed)).fingerprint


def test_equal_answers_have_no_difference() -> None:
    assert first_difference(fingerprint(), fingerprint(tops=({"x": -2.0, "a": -0.5}, {"b": -0.25}))) == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"text": "ac"}, "text: 'ab' against 'ac'"),
        ({"reason": "stop"}, "finish reason: 'length' against 'stop'"),
        ({"tokens": ("a", "c")}, "tokens: "),
        (
            {"probabilities": (-0.5, -0.25000000000000006)},
            "log-probability of output token 2: -0.25 against -0.25000000000000006 (token 'b' against 'b')",
        ),
        ({"probabilities": (-0.5, float("nan"))}, "log-probability of output token 2: -0.25 against nan"),
        ({"probabilities": (-0.5,), "tokens": ("a",)}, "tokens: "),
        ({"probabilities": (-0.5,)}, "log-probabilities: "),
        ({"tops": ({"a": -0.5, "x": -2.1}, {"b": -0.25})}, "top log-probabilities: "),
        ({"tops": ({"a": -0.5, "y": -2.0}, {"b": -0.25})}, "top log-probabilities: "),
        (
            {"text": "zc", "tokens": ("z", "c"), "probabilities": (-0.7, -0.25)},
            "log-probability of output token 1: -0.5 against -0.7 (token 'a' against 'z')",
        ),
    ],
    ids=[
        "text",
        "finish-reason",
        "token",
        "last-bit",
        "not-a-number",
        "shorter",
        "fewer-probabilities",
        "top-value",
        "top-token",
        "probability-before-text",
    ],
)
def test_the_first_difference_is_named(changed: dict[str, Any], words: str) -> None:
    assert first_difference(fingerprint(), fingerprint(**changed)).startswith(words)
    assert first_difference(fingerprint(**changed), fingerprint())


def test_a_difference_far_in_a_text_is_shown() -> None:
    ours, theirs = fingerprint(text="a" * 200 + "b" * 200), fingerprint(text="a" * 200 + "c" * 200)
    shown = f"text from character 180 on: '{'a' * 20}{'b' * 60}' against '{'a' * 20}{'c' * 60}'"
    assert first_difference(ours, theirs) == shown


VALUES = st.floats(-20, 0, allow_nan=False)


@given(ours=st.lists(VALUES, min_size=1, max_size=4), theirs=st.lists(VALUES, min_size=1, max_size=4))
def test_there_is_a_difference_exactly_where_the_answers_differ(ours: list[float], theirs: list[float]) -> None:
    def of(values: list[float]) -> tuple[Any, ...]:
        return fingerprint(probabilities=tuple(values), tokens=("t",) * len(values), tops=({"t": -1.0},))

    assert bool(first_difference(of(ours), of(theirs))) == (ours != theirs)


WHOLE = body()["choices"][0]["logprobs"]


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        [],
        *(WHOLE | {name: value} for name in ("token_logprobs", "top_logprobs") for value in (None, [], [None])),
    ],
    ids=str,
)
def test_an_answer_without_log_probabilities_is_not_judged(logprobs: Any) -> None:
    """A comparison of nothing with nothing would always agree, and who removes them is not the tier."""
    answer = exchange({"choices": [{"text": "ab", "finish_reason": "length", "logprobs": logprobs}]})
    with pytest.raises(NotJudged, match="does not contain the log-probabilities that were requested"):
        _ = answer.fingerprint


# --- the answer -------------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
PIECE = {"id": "cmpl-7", "choices": [{"index": 0, "text": "a", "finish_reason": None}]}
LAST = {"id": "cmpl-7", "choices": [{"index": 0, "text": "b", "finish_reason": "length"}]}


@pytest.mark.parametrize(
    "answer",
    [
        exchange({"id": "cmpl-7", "choices": [{"text": "ab"}], "usage": USAGE}),
        exchange({"id": "cmpl-7", "choices": [{"message": {"content": "ab"}}], "usage": USAGE}),
        exchange(None, stream=[PIECE, LAST, {"id": "cmpl-7", "choices": [], "usage": USAGE}]),
    ],
    ids=["completion", "chat", "stream"],
)
def test_text_id_and_usage_of_every_kind_of_answer(answer: Exchange) -> None:
    assert (answer.text, answer.id, answer.usage) == ("ab", "cmpl-7", USAGE)


def test_a_stream_without_a_token_has_no_time_to_first_token() -> None:
    with pytest.raises(SubjectFault, match="ended without a token"):
        _ = exchange(None, stream=[]).ttft_s
    assert exchange(None, stream=[PIECE, LAST]).usage == {}


def test_a_summary_is_in_milliseconds() -> None:
    found = summary(answered("cmpl-1", tokens=TokenSources(1, 2, 3)))
    assert found["total_ms"] == 250.0
    assert (found["request"], found["prompt"], found["ttft_ms"]) == ("cmpl-1", "prompt-1 (1080 tokens)", None)
    assert (found["computed"], found["gpu_hit"], found["loaded"]) == (1, 2, 3)
    assert "computed" not in summary(answered("cmpl-1"))
    json.dumps(found)


# --- the log of this request ------------------------------------------------------------------------------------------


def recorded(name: str, *parts: str) -> LogFacts:
    """The recorded lines that hold any of ``parts``."""
    lines = (DATA / name).read_bytes().decode().splitlines()
    found = [line for line in lines if any(part in line for part in parts)]
    assert found
    return read_log("\n".join(found))


COLD, WARM = "cmpl-8dd1a70a955e350e", "cmpl-b0c6617d1b8af7f4"


def test_in_process_lines_are_told_apart_by_request() -> None:
    """Both requests in one window: each has its own."""
    facts = recorded("inprocess-lmcache0.5.3.engine.log", COLD, WARM)
    cold, warm = answered(COLD), answered(WARM)
    assert (cold.stored_in(facts), cold.hit_in(facts), cold.retrieved_in(facts)) == (1024, 0, 0)
    assert (warm.stored_in(facts), warm.hit_in(facts), warm.retrieved_in(facts)) == (0, 1024, 1024)


def test_in_process_lines_of_others_are_not_ours() -> None:
    facts = recorded("inprocess-lmcache0.5.3.engine.log", COLD, WARM)
    other = answered("cmpl-0000000000000000")
    assert (other.stored_in(facts), other.hit_in(facts), other.retrieved_in(facts)) == (0, 0, 0)
    longer = answered(COLD[:-1])
    assert longer.stored_in(facts) == 0, "an id that another one begins with is another request"


def test_multi_process_lines_that_name_no_request_count_for_the_window() -> None:
    """LMCache 0.5.6: stores and retrievals without an id, lookups with one, in chunks."""
    lines = (DATA / "mp-lmcache0.5.6.cache-server.log").read_bytes().decode().splitlines()
    cold, warm = read_log(lines[35]), read_log("\n".join(lines[37:39]))
    asked = answered("cmpl-8fe485a819f40583")
    assert (asked.stored_in(cold), asked.hit_in(cold), asked.retrieved_in(cold)) == (1024, 0, 0)
    assert (asked.stored_in(warm), asked.hit_in(warm), asked.retrieved_in(warm)) == (0, 1024, 1024)
    assert answered("cmpl-8fe485a819f40583", prompt=prompt(chunk=16)).hit_in(warm) == 64, (
        "4 chunks, whatever a chunk is"
    )


def test_multi_process_lookups_of_others_are_not_ours() -> None:
    lines = (DATA / "mp-lmcache0.5.6.cache-server.log").read_bytes().decode().splitlines()
    assert answered("cmpl-0000000000000000").hit_in(read_log("\n".join(lines[36:39]))) == 0


@pytest.mark.parametrize(
    "text", ["", "(EngineCore pid=1) INFO 11-25 04:31:03 [core.py:133] ready"], ids=["empty", "other"]
)
def test_silence_is_nothing_stored(text: str) -> None:
    facts, asked = read_log(text), answered("cmpl-1")
    assert (asked.stored_in(facts), asked.hit_in(facts), asked.retrieved_in(facts)) == (0, 0, 0)


def test_a_failing_test_shows_an_exchange_in_one_line() -> None:
    one = answered("cmpl-1", tokens=TokenSources(1, 2, 3))
    assert len(repr(one)) < 250
    assert "TokenSources(computed=1, gpu_hit=2, loaded=3)" in repr(one)
    assert one.sources.reused == 5
    facts = read_log((DATA / "mp-vllm0.32.0.engine.log").read_text())
    assert repr(facts).startswith("LogFacts(")
    assert len(repr(facts)) < 250
