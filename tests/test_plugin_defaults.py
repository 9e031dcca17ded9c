"""What the tests need of pytest's own settings holds without an ini file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ("pytester",)
CONFTEST = 'pytest_plugins = ("fixtures.plugin.markers", "fixtures.plugin.defaults")'
ONE = """
    import pytest, threading, time

    @pytest.fixture
    def stack():
        time.sleep(1.5)

    @pytest.mark.requirement("CFG-01")
    def test_one(request, stack):
        print("marker", request.node.get_closest_marker("timeout"))
        {body}
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    def run(*arguments: str, body: str = "pass", ini: str = "") -> pytest.RunResult:
        pytester.makeconftest(CONFTEST)
        pytester.makeini(f"[pytest]\n{ini}")
        pytester.makepyfile(ONE.format(body=body))
        return pytester.runpytest_inprocess("-s", "-p", "no:cacheprovider", *arguments)

    return run


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "ini", "variable", "seconds"),
    [
        ((), "", "", 300.0),
        ((), "timeout = 40", "", 40.0),
        ((), "timeout = 40", "50", 50.0),
        (("--timeout=60",), "timeout = 40", "50", 60.0),
        (("--timeout=0",), "timeout = 40", "", 0.0),
    ],
)
def test_a_test_of_a_requirement_has_a_timeout(
    run: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], ini: str, variable: str, seconds: float
) -> None:
    monkeypatch.delenv("PYTEST_TIMEOUT", raising=False)
    if variable:
        monkeypatch.setenv("PYTEST_TIMEOUT", variable)
    result = run(*arguments, ini=ini)
    result.assert_outcomes(passed=1)
    said = f"marker Mark(name='timeout', args=({seconds},), kwargs={{'method': 'signal', 'func_only': True}})"
    assert said in result.stdout.str()


@pytest.mark.long
def test_a_hang_ends_and_the_time_of_its_stack_does_not_count(run: Any) -> None:
    run("--timeout=1").assert_outcomes(passed=1)
    result = run("--timeout=1", body="time.sleep(60)")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Timeout (>1.0s) from pytest-timeout*"])


@pytest.mark.long
def test_without_the_plugin_of_timeouts_nothing_is_set(run: Any) -> None:
    result = run("-p", "no:timeout", "--strict-markers")
    result.assert_outcomes(passed=1)
    assert "marker None" in result.stdout.str()


@pytest.mark.long
def test_a_thread_that_dies_fails_its_test(run: Any) -> None:
    result = run(body="thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*PytestUnhandledThreadExceptionWarning*"])
