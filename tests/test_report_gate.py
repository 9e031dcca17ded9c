"""What a bare ``--gate`` asks for."""

from __future__ import annotations

import json

import pytest

from fixtures.catalogue.selection import musts
from tests.verdict_sessions import CONFTEST, RERUN, Run, all_of, written

pytest_plugins = ("pytester", "tests.verdict_sessions")


DEFAULTS = """
# What fixtures.plugin.session does with the configurations of a run; test_configs.py does it for each that ships.
from fixtures.plugin import REPORTING as pytest_plugins
from fixtures.plugin.judgement import CLAIMED_PROFILES_KEY
def pytest_configure(config):
    config.stash[CLAIMED_PROFILES_KEY] = ("latency",)
"""


@pytest.mark.parametrize(
    "arguments", [("--gate",), ("--gate", "suite/"), ("--gate", "suite/test_accounted.py::test_0")]
)
def test_a_bare_gate_is_about_what_the_configuration_claims(
    run: Run,
    project: pytest.Pytester,
    arguments: tuple[str, ...],
) -> None:
    project.makeconftest(DEFAULTS)
    result = run(all_of("latency"), *arguments)
    whole = "::" not in arguments[-1]
    assert result.ret == (0 if whole else 1)
    report = written(project)
    assert report["gate"]["profiles"] == ["latency"]
    assert report["totals"]["requirements"] == (len(musts(["latency"])) if whole else 1), (
        "the path after --gate is a path"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--gate",), 0),
        (("--gate=latency",), 1),
        (("--gate", "--profiles=core,latency"), 1),
        (("--gate", "-k", "core or test_"), 1),
    ],
    ids=str,
)
def test_a_bare_gate_judges_nothing_else(
    run: Run, project: pytest.Pytester, arguments: tuple[str, ...], code: int
) -> None:
    """A configuration with a small CPU tier above a disk does not meet core, which it does not claim."""
    project.makeconftest(DEFAULTS)
    core = '\n@requirement("ACC-01")\ndef test_core():\n    assert False, "expected a, got b"\n'
    assert run(all_of("latency") + core, *arguments).ret == code
    assert [one["id"] for one in written(project)["requirements"] if one["id"] == "ACC-01"] == ["ACC-01"] * code


def test_a_gate_that_swallows_a_path_keeps_the_other_one(run: Run, project: pytest.Pytester) -> None:
    (project.path / "suite/test_other.py").write_text("def test_other(): pass\n")
    result = run(all_of("latency"), "suite/test_other.py", "--gate", "suite/test_accounted.py")
    result.assert_outcomes(passed=1 + len(musts(["latency"])))


def test_allure_keeps_the_first_attempt(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(RERUN + CONFTEST)
    run(
        """
        attempts = []

        @requirement("ACC-01")
        def test_it():
            attempts.append(1)
            assert len(attempts) > 1, "expected 8 chunks, got 0"
        """
    )
    found = [json.loads(path.read_text()) for path in project.path.glob("reports/allure-results/*-result.json")]
    assert {result["status"] for result in found} == {"failed"}
    last = max(found, key=lambda result: result["start"])
    assert last["statusDetails"]["flaky"]
    assert "flaky, passed on a re-run: expected 8 chunks" in last["statusDetails"]["message"]
