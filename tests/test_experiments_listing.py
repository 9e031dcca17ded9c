"""Whether what a router lists is what is served, on stand-ins."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.errors import NotJudged
from fixtures.experiments.listing import Listing, listing
from fixtures.instruments.response import Response
from fixtures.subject.router import Router

COMPLETES, CHATS, EMBEDS, TOKENIZES = "/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize"


def lists(listed: set[str], answers: dict[str, dict[str, tuple[int, str]]], engine: tuple[str, ...] = ("m",)) -> Any:
    """A router that lists models in front of an engine; ``answers``: by model and path, an unknown one of either is 404."""

    def names(models: Iterable[str]) -> Response:
        return Response(200, {}, json.dumps({"data": [{"id": name} for name in models]}), total_s=0.0)

    def post(path: str, payload: dict[str, Any]) -> Response:
        status, text = answers.get(payload["model"], {}).get(path, (404, '{"detail": "Not Found"}'))
        return Response(status, {}, text, total_s=0.0)

    router = Router.__new__(Router)
    router.name, router.client = "router-0", SimpleNamespace(get=lambda _: names(listed), post=post)  # type: ignore[assignment]
    return SimpleNamespace(
        engines=[SimpleNamespace(name="a", client=SimpleNamespace(get=lambda _: names(engine)))],
        health=SimpleNamespace(known_gone=frozenset()),
        context=SimpleNamespace(permit=lambda _: None),
        routers=[router],
    )


SERVED = {COMPLETES: (200, '{"choices": [{"text": "x"}]}')}


@pytest.mark.parametrize(
    ("listed", "other", "expected"),
    [
        ({"m"}, {}, Listing((), ())),
        (set(), {}, Listing(("m",), ())),
        ({"m", "other"}, SERVED, Listing((), ())),
        ({"m", "other"}, {CHATS: (200, '{"choices": [{"message": {"content": "x"}}]}')}, Listing((), ())),
        ({"m", "other"}, {EMBEDS: (200, '{"data": [{"embedding": [0.5]}]}')}, Listing((), ())),
        ({"m", "other"}, {TOKENIZES: (200, '{"tokens": [1, 2]}'), COMPLETES: (500, "")}, Listing((), ())),
        ({"m", "other"}, {}, Listing((), ("other",))),
        *(
            ({"m", "other"}, dict.fromkeys((COMPLETES, CHATS, EMBEDS, TOKENIZES), answer), Listing((), ("other",)))
            for answer in (
                *((status, '{"error": {"message": "it is gone"}}') for status in (400, 404, 405, 422, 500, 503)),
                (200, "<html>We will be back</html>"),
                (200, '{"error": {"message": "it is gone"}}'),
                (200, '{"choices": [], "data": [], "tokens": []}'),
                (200, ""),
                (200, "[]"),
            )
        ),
    ],
)
def test_a_model_is_listed_if_and_only_if_it_answers(
    listed: set[str], other: dict[str, tuple[int, str]], expected: Listing
) -> None:
    stack = lists(listed, {"m": SERVED, "other": other})
    assert listing(stack, stack.routers[0]) == expected


def test_a_second_name_that_the_router_lists_and_refuses_is_found() -> None:
    stack = lists({"m", "alias"}, {"m": SERVED, "alias": {COMPLETES: (400, "{}")}}, engine=("m", "alias"))
    assert listing(stack, stack.routers[0]) == Listing((), ("alias",))


@pytest.mark.parametrize(
    ("status", "why"), [(429, "limit of the rate"), (401, "refuses to say"), (403, "refuses to say")]
)
def test_a_router_that_refuses_to_say_shows_nothing(status: int, why: str) -> None:
    stack = lists({"m", "other"}, {"m": SERVED, "other": {COMPLETES: (status, "{}")}})
    with pytest.raises(NotJudged, match=why):
        listing(stack, stack.routers[0])
