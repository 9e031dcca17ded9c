"""fixtures.evidence.sse: the event stream standard to the letter, and what makes an OpenAI-style stream well-formed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.evidence.sse import DONE, Event, SseReader, StreamFacts, check_stream


def events_of(*chunks: bytes) -> tuple[list[Event], list[str]]:
    reader = SseReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.close(), reader.problems


# --- the reader -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end(end: str) -> None:
    body = f"data: a{end}{end}data: b{end}{end}".encode()
    assert events_of(body) == ([Event("a"), Event("b")], [])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("data: one\ndata: two\n\n", [Event("one\ntwo")]),
        ("data:no space\n\ndata:  two spaces\n\n", [Event("no space"), Event(" two spaces")]),
        ("data\n\n", [Event("")]),
        (": comment\n\ndata: a\n: another\n\n", [Event("a")]),
        (
            "event: error\nid: 7\nretry: 3000\ndata: a\n\ndata: b\n\n",
            [Event("a"), Event("b")],
        ),
        ("event: nothing\n\n\n\n", []),
        ("data: a: b\n\n", [Event("a: b")]),
        ("id: x\0y\nretry: soon\ndata: a\n\n", [Event("a")]),
        ("\ufeffdata: a\n\n", [Event("a")]),
    ],
)
def test_the_standard(body: str, expected: list[Event]) -> None:
    assert events_of(body.encode()) == (expected, [])


def test_comments_are_passed_over() -> None:
    reader = SseReader()
    assert reader.feed(b": ping\n\n: ping\n\n") == []
    assert reader.close() == []
    assert reader.problems == []


def test_events_come_as_soon_as_they_are_complete() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\r") == []
    assert reader.feed(b"\r") == [Event("a")], "the second carriage return ends the event, whatever follows"
    assert reader.feed(b"\ndata: b\n") == []
    assert reader.feed(b"\n") == [Event("b")]


def test_a_character_cut_in_two() -> None:
    euro = "data: \N{EURO SIGN}\n\n".encode()
    assert events_of(euro[:7], euro[7:8], euro[8:]) == ([Event("\N{EURO SIGN}")], [])


@pytest.mark.parametrize(
    ("body", "events", "problem"),
    [
        (b"data: a\n\ndata: b", [Event("a"), Event("b")], "lacks its final blank line"),
        (b"data: a\n\ndata: b\n", [Event("a"), Event("b")], "lacks its final blank line"),
        (b"data: \xff\n\n", [Event("\N{REPLACEMENT CHARACTER}")], "not UTF-8"),
        (b'{"error": 1}\n\n', [], "not a field of an event stream"),
        (b"\xef\xbb", [], "not UTF-8"),
    ],
)
def test_what_a_lenient_client_overlooks(body: bytes, events: list[Event], problem: str) -> None:
    found, problems = events_of(body)
    assert found == events
    assert problem in problems[0]


def test_data_as_json() -> None:
    assert Event('{"a": 1}').json() == {"a": 1}
    with pytest.raises(ValueError, match="Expecting value"):
        Event("").json()


def test_a_long_body_is_read_in_linear_time() -> None:
    assert len(SseReader().feed(b"data: x\n\n" * 100_000)) == 100_000


BODY = st.lists(
    st.one_of(
        st.sampled_from(
            ["data: a", "data:", "data", "event: e", "id: 1", "retry: 5", ": c", "", "\n", "\r", "\r\n", "\ufeff"]
        ),
        st.text(max_size=8),
    ),
    max_size=20,
).flatmap(
    lambda parts: st.lists(
        st.sampled_from(["\n", "\r\n", "\r", "\n\n", ""]), min_size=len(parts), max_size=len(parts)
    ).map(lambda ends: "".join(part + end for part, end in zip(parts, ends, strict=True)).encode(errors="replace"))
)


@pytest.mark.long
@given(st.one_of(BODY, st.binary(max_size=60)), st.data())
@settings(max_examples=400, deadline=None)
def test_the_cuts_do_not_matter(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    chunks = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert events_of(*chunks) == events_of(body) == events_of(*(body[at : at + 1] for at in range(len(body))))


# --- the stream -------------------------------------------------------------------------------------------------------


def completion(text: str = "", reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": reason}], **more}


def chat(delta: dict[str, Any], reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


def judge(*payloads: dict[str, Any] | str, **arguments: Any) -> StreamFacts:
    texts = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return check_stream([Event(text) for text in texts], **arguments)


USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
GOOD = (completion("Hel"), completion("lo", "length"), {"id": "cmpl-1", "choices": [], "usage": USAGE}, DONE)


def test_a_good_completion() -> None:
    facts = judge(*GOOD)
    assert facts == StreamFacts((), {0: "Hello"}, ("length",), USAGE, ("cmpl-1",), 0, True)
    assert (facts.violations, facts.text) == ((), "Hello")


def test_a_good_chat_of_two_choices() -> None:
    facts = judge(
        chat({"role": "assistant", "content": ""}),
        chat({"role": "assistant", "content": ""}, index=1),
        chat({"content": "a"}),
        chat({"content": "b"}, index=1),
        chat({}, "stop"),
        chat({"content": None}, "stop", index=1),
        DONE,
        kind="chat",
    )
    assert facts.violations == ()
    assert (facts.texts, facts.finish_reasons, facts.first_text_at) == ({0: "a", 1: "b"}, ("stop", "stop"), 2)


@pytest.mark.parametrize(
    ("payloads", "violation"),
    [
        ((), "the stream has no event"),
        (GOOD[:-1], "the stream does not end with [DONE]"),
        ((*GOOD, DONE), "the stream has 2 [DONE] events"),
        ((*GOOD, completion("more")), "event 4 follows [DONE]"),
        (("{half", *GOOD), "event 0 is not JSON: '{half'"),
        ((completion("a", score=float("-inf")), *GOOD), "event 0 is not JSON: it contains -Infinity"),
        (("[1]", *GOOD), "event 0 is not a JSON object: '[1]'"),
        (({"id": "cmpl-1"}, *GOOD), "event 0 has no choices"),
        (({"id": "cmpl-1", "choices": []}, *GOOD), "event 0 has neither a choice nor usage"),
        (({"id": "cmpl-1", "choices": [{"text": "a"}]}, *GOOD), "event 0 has a choice without an index"),
        (({"id": "cmpl-1", "choices": [{"index": 0}]}, *GOOD), "event 0 has no text"),
        (({"id": "cmpl-1", "choices": [{"index": 0, "delta": 1}]}, DONE), "event 0 has a delta that is not an object"),
        (({**completion("a"), "id": "cmpl-2"}, *GOOD), "the events have 2 different ids"),
        (({"choices": [{"index": 0, "text": "a"}]}, *GOOD), "event 0 has no id"),
        ((completion("a"), DONE), "choice 0 has no finish_reason"),
        ((completion("a", "stop"), completion("b"), DONE), "event 1 has text for choice 0, which has finished"),
        ((completion("a", "stop"), completion("", "stop"), DONE), "choice 0 finishes twice"),
        (
            (completion("a"), {**chat({}, "stop"), "id": "cmpl-1"}, DONE),
            "event 1 is of a chat in the stream of a completion",
        ),
        (
            ({"error": {"message": "boom", "code": 500}}, DONE),
            "event 0 carries an error: {'message': 'boom', 'code': 500}",
        ),
        ((completion("a", "stop", usage={**USAGE, "total_tokens": 8}), DONE), "usage does not add up: "),
        (
            (completion("a", "stop", usage={"prompt_tokens": 3.5, "total_tokens": "x"}), DONE),
            "usage does not add up: {'prompt_tokens': 3.5, 'total_tokens': 'x'}",
        ),
        (
            (completion("a"), '{"object": "error", "message": "boom", "code": 500}'),
            "event 1 carries an error: {'object': 'error', 'message': 'boom', 'code': 500}",
        ),
        ((DONE,), "the stream has no choice"),
    ],
)
def test_violations(payloads: tuple[dict[str, Any] | str, ...], violation: str) -> None:
    facts = judge(*payloads)
    assert facts.violations
    assert [sentence for sentence in facts.violations if sentence.startswith(violation)]


def test_a_violation_does_not_breed_others() -> None:
    assert judge(*GOOD[:-1]).violations == ("the stream does not end with [DONE]",)
    assert judge("{half", *GOOD).violations == ("event 0 is not JSON: '{half'",)
    assert judge().violations == ("the stream has no event",)


def test_a_completion_is_no_chat() -> None:
    assert "event 0 is of a completion in the stream of a chat" in judge(*GOOD, kind="chat").violations


def test_problems_of_the_reader_are_violations() -> None:
    body = "".join(f"data: {json.dumps(payload)}\n\n" for payload in GOOD[:-1]).encode() + b"data: [DONE]\n"
    reader = SseReader()
    events = [*reader.feed(body), *reader.close()]
    assert check_stream(events, problems=reader.problems).violations == ("the last event lacks its final blank line",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "choices", "index", "text", "delta", "content", "finish_reason", "usage", "error"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@pytest.mark.long
@given(st.lists(st.one_of(JSON.map(json.dumps), st.text(max_size=10), st.just(DONE)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_no_stream_is_too_strange(texts: list[str]) -> None:
    assert isinstance(check_stream([Event(text) for text in texts]).violations, tuple)


def test_details_of_the_usage_are_kept_and_nothing_else_that_is_no_count() -> None:
    details = {"cached_tokens": 2}
    usage = USAGE | {
        "prompt_tokens_details": details,
        "completion_tokens_details": None,
        "other": {"a": 1},
        "cost": "2",
    }
    facts = judge(completion("a", "stop", usage=usage), DONE)
    assert facts.usage == USAGE | {"prompt_tokens_details": details}
    assert facts.violations == ()
