"""Requests while a release is upgraded, on stand-ins: what is lost is counted, and a reload is asked of the new pods."""

from __future__ import annotations

import contextlib
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged, StackError, SubjectFault
from fixtures.experiments import upgrade as module
from fixtures.experiments.upgrade import Upgraded, upgrade
from fixtures.instruments.response import Response
from fixtures.instruments.text_requests import TextRequests
from suite import test_released
from tests.fakes.answers import whole

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeStack:
    """A release whose router answers with 503 in the middle of an upgrade, if a test says so."""

    def __init__(self, *, loses: bool = False, finishes: bool = True) -> None:
        self.loses, self.finishes, self.upgrading = loses, finishes, False
        self.asked = threading.Semaphore(0)
        self.health = SimpleNamespace(ended=False)
        self.waits: list[float] = []
        self.context = SimpleNamespace(permit=lambda _: None, on_wait=self.waits.append)
        self.routers = [
            SimpleNamespace(session_key="x-user-id", excludes_after_s=30.0, client=SimpleNamespace(post=self.post))
        ]
        self.release = SimpleNamespace(upgrade_changing=self.change)
        self.opened: list[Any] = []

    def post(self, path: str, payload: dict[str, Any], headers: Any, deadline_s: float) -> Response:
        if self.upgrading:
            self.asked.release()
        if self.loses and self.upgrading:
            return Response(503, {}, "no engine", total_s=0.1)
        return whole(payload)

    def change(self, _: Any) -> tuple[str, str]:
        self.upgrading = True
        for _ in range(3):
            assert self.asked.acquire(timeout=10)
        self.upgrading = False
        if not self.finishes:
            raise SubjectFault("expected the upgrade to finish, got Pod x: Unschedulable")
        return "cpuOffloadingBufferSize 1 -> 0.9", "the record afterwards"

    @contextlib.contextmanager
    def reopen(self, record: Any) -> Iterator[Any]:
        self.opened.append(record)
        yield self


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)


def run(stack: FakeStack, monkeypatch: pytest.MonkeyPatch, *, reloads: bool = True) -> Upgraded:
    monkeypatch.setattr(module, "first_reload", lambda _, __: time.monotonic() if reloads else None)
    return upgrade(stack, TextRequests("m", 1, "test"), None, None, stack.reopen)  # type: ignore[arg-type]


def test_an_upgrade_without_an_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack()
    found = run(stack, monkeypatch)
    assert (found.what, found.lost, found.reloads) == ("cpuOffloadingBufferSize 1 -> 0.9", (), True)
    assert found.asked >= 3
    assert stack.opened == ["the record afterwards"]
    assert stack.health.ended, "the pods that it knew are gone, and that is not a fault"
    assert stack.waits == [module.PODS_S]


def test_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(FakeStack(loses=True), monkeypatch)
    assert 1 <= len(found.lost) <= found.asked
    assert "HTTP 503: no engine" in found.lost[0]


def test_a_request_of_which_nothing_is_known_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(FakeStack):
        def post(self, path: str, payload: dict[str, Any], headers: Any, deadline_s: float) -> Response:
            found = super().post(path, payload, headers, deadline_s)
            if self.upgrading:
                raise StackError("the port-forward to the router broke")
            return found

    with pytest.raises(StackError, match="port-forward to the router broke"):
        run(Unreachable(), monkeypatch)


def test_an_offload_that_does_not_come_back_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not run(FakeStack(), monkeypatch, reloads=False).reloads


def judge(stack: FakeStack, monkeypatch: pytest.MonkeyPatch, *, reloads: bool = True) -> list[str]:
    """What the test of REL-05 itself says of an upgrade; the names of the figures that it reports."""
    figures: list[str] = []
    found = run(stack, monkeypatch, reloads=reloads)
    test_released.test_an_upgrade_keeps_the_service_running(stack, found, lambda name, *_, **__: figures.append(name))  # type: ignore[arg-type]
    return figures


def test_a_healthy_upgrade_is_conformant(monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(FakeStack(), monkeypatch) == [
        "time until every engine was replaced",
        "requests lost during an upgrade",
    ]


def test_an_upgrade_that_loses_requests_is_not_conformant(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        r"expected no lost request during an upgrade \(cpuOffloadingBufferSize 1 -> 0.9\), got \d+ of \d+, the first "
    )
    with pytest.raises(AssertionError, match=said + r"\+\d+ s: HTTP 503: no engine"):
        judge(FakeStack(loses=True), monkeypatch)


def test_an_upgrade_after_which_nothing_is_loaded_is_not_conformant(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="expected a reload within 60 s after an upgrade"):
        judge(FakeStack(), monkeypatch, reloads=False)


def test_an_upgrade_that_never_finishes_is_not_conformant(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SubjectFault, match="expected the upgrade to finish, got Pod x: Unschedulable"):
        judge(FakeStack(finishes=False), monkeypatch)


def test_an_upgrade_that_never_finishes_ends_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SubjectFault, match="Unschedulable"):
        run(FakeStack(finishes=False), monkeypatch)


def test_nothing_is_changed_where_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FakeStack()

    def refuse(_: str) -> None:
        raise NotJudged("not allowed")

    stack.context.permit = refuse
    with pytest.raises(NotJudged):
        run(stack, monkeypatch)
    assert not stack.health.ended
