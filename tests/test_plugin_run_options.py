"""What judging may do to a deployment, by --allow: the words, and that nothing is sent beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fixtures.catalogue.features import IMPACTS
from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.core.errors import ConfigurationError, NotJudged
from fixtures.core.record import EngineServer, StackRecord
from fixtures.experiments.aborts import abort_requests
from fixtures.experiments.filling import fill_tier
from fixtures.instruments.prompts import Prompts
from fixtures.instruments.text_requests import BAD_REQUESTS
from fixtures.plugin.run_options import allowed_impacts
from fixtures.subject.context import not_allowed
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("words", "own", "allowed"),
    [
        (None, True, {"observes", "asks", "evicts", "disrupts"}),
        (None, False, {"observes", "asks"}),
        ("none", False, {"observes"}),
        ("none", True, {"observes"}),
        ("evict", False, {"observes", "asks", "evicts"}),
        ("disrupt", False, {"observes", "asks", "disrupts"}),
        ("evict, disrupt", False, {"observes", "asks", "evicts", "disrupts"}),
    ],
)
def test_words(words: str | None, own: bool, allowed: set[str]) -> None:
    assert allowed_impacts(words, own=own) == allowed


@pytest.mark.parametrize("words", ["evicts", "all", "none,evict", ",", "EVICT"])
def test_a_wrong_word_is_named_with_the_right_ones(words: str) -> None:
    with pytest.raises(ConfigurationError, match="give evict, disrupt, or both separated by a comma, or none"):
        allowed_impacts(words, own=False)


def test_every_impact_is_explained_and_has_a_word() -> None:
    used = {requirement.impact for requirement in REQUIREMENTS.values()} | {bad.impact for bad in BAD_REQUESTS}
    assert used <= set(IMPACTS)
    for impact in used - {"observes", "asks"}:
        assert f"--allow {impact.removesuffix('s')}" in not_allowed(impact)


def test_what_ends_engines_is_not_sent_by_default() -> None:
    assert {bad.name for bad in BAD_REQUESTS if bad.impact == "disrupts"} == {"huge-n", "too-many-logprobs"}


@pytest.mark.parametrize(
    ("allowed", "forbidden"),
    [
        ({"observes"}, ["ask", "clear", "fill", "abort"]),
        ({"observes", "asks"}, ["clear", "fill", "abort"]),
        ({"observes", "asks", "evicts"}, ["abort"]),
    ],
)
def test_nothing_is_sent_that_is_not_allowed(tmp_path: Path, allowed: set[str], forbidden: list[str]) -> None:
    """The second line of defence: whatever a test tries, the stack refuses before a byte is sent."""
    record = StackRecord(
        id="x",
        kind="attach",
        config="x",
        folder=tmp_path,
        model="m",
        engines=[EngineServer(name="e", url="http://127.0.0.1:1")],
    )
    stack = Stack(record, allowed=frozenset(allowed))  # type: ignore[arg-type]
    stack.__dict__["started_counters"] = type("Counters", (), {"prefix_caching_enabled": True})()
    prompts = Prompts(1, "x", 256, 4096)
    actions: dict[str, Callable[[], object]] = {
        "ask": lambda: stack.post(stack.engine, "/v1/completions", {}),
        "clear": stack.clear_prefix_cache,
        "fill": lambda: fill_tier(stack, prompts),
        "abort": lambda: abort_requests(stack, [prompts.unique()]),
    }
    for name in forbidden:
        with pytest.raises(NotJudged, match="--allow"):
            actions[name]()
