"""The line that says what is judged, how long it has taken and about how long it will."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.plugin import running as module
from fixtures.plugin.running import Running, expected_s
from tests import process_project

if TYPE_CHECKING:
    from tests.process_project import Project

pytest_plugins = ("pytester",)

project = process_project.project


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def running(expected: dict[str, float], *tests: str) -> tuple[Running, Clock]:
    clock = Clock(100.0)
    found = Running(expected, clock)
    found.names |= {test: f"LAT-0{number} {test}" for number, test in enumerate(tests, 1)}
    return found, clock


def test_nothing_runs_nothing_is_said() -> None:
    assert running({}, "a")[0].line() == ""


def test_by_the_last_run_it_says_how_long_the_test_and_the_rest_take() -> None:
    found, clock = running({"a": 30.0, "b": 12.0, "c": 8.0}, "a", "b", "c")
    found.begin("a")
    clock.now += 31
    found.end("a")
    found.begin("b")
    clock.now += 5
    found.doing = lambda: "clear the GPU prefix cache"
    assert found.line() == (
        "judging LAT-02 b: 5 of about 12 s; 1 of 3 tests over after 36 s, about 15 s left; now: clear the GPU prefix cache"
    )


def test_a_test_that_takes_longer_than_last_time_does_not_shorten_the_rest() -> None:
    found, clock = running({"a": 3.0, "b": 12.0}, "a", "b")
    found.begin("a")
    clock.now += 60
    assert found.left_s == 12.0


def test_without_an_earlier_report_nothing_is_foretold() -> None:
    found, clock = running({}, "a", "b")
    found.begin("a")
    clock.now += 20
    assert found.line() == "judging LAT-01 a: 20 s; 0 of 2 tests over after 20 s"


@pytest.mark.parametrize(("known", "left"), [(1, None), (2, 40.0)])
def test_of_a_few_unknown_tests_the_others_tell_how_long_they_take(known: int, left: float | None) -> None:
    tests = ("a", "b", "c", "d")
    assert running(dict.fromkeys(tests[:known], 10.0), *tests)[0].left_s == left


def test_several_workers_have_several_tests() -> None:
    found, _ = running({}, "a", "b", "c")
    for test in ("a", "b", "c"):
        found.begin(test)
    assert found.line().startswith("judging LAT-01 a: 0 s, LAT-02 b: 0 s and 1 more; 0 of 3 tests")


def test_the_time_of_a_requirement_is_split_among_its_cases() -> None:
    def entry(seconds: float, *nodeids: str) -> dict[str, Any]:
        return {"duration_s": seconds, "cases": {"nodeids": list(nodeids)}}

    report = {"requirements": [entry(10.0, "a", "b"), entry(7.0, "b"), entry(1.0, "c"), entry(0.0)]}
    assert expected_s(report) == {"a": 5.0, "b": 7.0, "c": 1.0}
    assert expected_s(None) == {}


@pytest.mark.parametrize(("options", "said"), [((), True), (("-q",), False), (("-n", "1"), True)])
def test_a_run_says_so_unless_it_is_to_be_quiet(
    project: Project,
    options: tuple[str, ...],
    said: bool,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a stream that is not a terminal, in the controller alone, and not while the stack starts."""
    monkeypatch.setattr(module, "EVERY_S", 0.1)
    project.suite(
        """
        @requirement("CFG-01")
        def test_request(stack):
            stack.context.step("think").__enter__()
            time.sleep(0.6)
        """
    )
    assert project.run(*project.subject, *options).ret == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("judging ")]
    assert bool(lines) == said
    for line in lines:
        assert "test_request[one]: " in line
        assert " of 1 tests over after " in line
    if said and not options:
        assert all(line.startswith("judging CFG-01 test_request[one]: ") for line in lines)
        assert any(line.endswith("; now: think (0 exchanges observed)") for line in lines)
