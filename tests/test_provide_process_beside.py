"""The engine without its connector is measured while the stack is up and idle; stand-ins for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.baseline_record import Baseline
from fixtures.provide import without_connector
from tests import process_project

if TYPE_CHECKING:
    from tests.process_project import Project

pytest_plugins = ("pytester",)

project = process_project.project

COMPARED = """
@requirement("MEM-05")
def test_compared(stack, baseline, note):
    assert baseline.pool_tokens == 1
"""


@pytest.fixture
def measured(project: Project, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is measured, each with the number of stand-ins that run meanwhile."""
    found: list[Any] = []

    def measure(*_: Any) -> Baseline:
        found.append(len(project.running()))
        return Baseline(pool_tokens=1, prompt_tokens=1)

    monkeypatch.setattr(without_connector, "measure_baseline", measure)
    project.suite(COMPARED)
    return found


def test_both_are_started_before_anything_is_measured(project: Project, measured: list[Any]) -> None:
    assert project.run(*project.subject).ret == 0
    assert measured == [5], "API server and engine core of both engines, and a cache server"
    (record,) = project.records()
    assert [server.name for server in record.servers] == ["fake-0", "fake-0-tier"]
    assert not project.running()


def test_a_stack_that_does_not_come_up_is_told_and_nothing_is_measured(project: Project, measured: list[Any]) -> None:
    project.fake.behave(server="dies")
    result = project.run(*project.subject)
    result.stdout.fnmatch_lines(["*fake-0-tier ended while it was starting: cannot allocate the L1 buffer*"])
    assert measured == []
    (log,) = project.path.glob("runs/*/*/fake-0-tier.log")
    assert log.read_text().count("cannot allocate the L1 buffer") == 1, "it is not tried again"
    assert not project.running()


def test_the_stack_is_ended_where_the_measurement_breaks(
    project: Project, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Baseline:
        raise ZeroDivisionError

    monkeypatch.setattr(without_connector, "measure_baseline", broken)
    assert project.run(*project.subject).ret != 0
    assert not project.running()
    assert not project.registered()
    assert measured == []
