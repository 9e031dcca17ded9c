"""Requests that end in every way: what is overdue, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fixtures.core.errors import NoAnswer
from fixtures.experiments import endings
from tests.fakes.counting_stack import FakeStack, source

if TYPE_CHECKING:
    import pytest

# --- every request ends -----------------------------------------------------------------------------------------------


def test_every_request_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "abort_requests", lambda _, prompts: len(prompts))
    found = endings.send_everything(FakeStack(), source())  # type: ignore[arg-type]
    assert found.sent == endings.ROUNDS * 3 * endings.KIND
    assert found.aborted == endings.ROUNDS * endings.KIND
    assert (found.overdue, found.failed, found.longest_s) == ((), (), 1.0)


def test_what_is_overdue_and_what_failed_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "abort_requests", lambda *_: 0)
    monkeypatch.setattr(FakeStack, "complete_concurrently", lambda *_, **__: None)
    late = FakeStack(fault=NoAnswer("no answer within 120 s", overdue=True))
    found = endings.send_everything(late, source())  # type: ignore[arg-type]
    assert len(found.overdue) == found.sent == 3 * endings.KIND, "after it no other round begins"
    assert not found.failed
    assert len(late.explained) == found.sent, "an engine that hangs is noted"
    found = endings.send_everything(FakeStack(fault=NoAnswer("HTTP 500")), source())  # type: ignore[arg-type]
    assert len(found.failed) == found.sent
    assert not found.overdue
