"""The summary at the end of a run, and what of it is cut or redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.verdict_sessions import ADVISORY, MIXED, UNJUDGED, Run, allure_results, entries, written

if TYPE_CHECKING:
    import pytest

pytest_plugins = ("pytester", "tests.verdict_sessions")


def test_many_failures_are_run_again_by_their_requirements(run: Run, project: pytest.Pytester) -> None:
    run('@requirement("ACC-02")\n@pytest.mark.parametrize("k", range(9))\ndef test_it(k): assert 0, "no"')
    assert written(project)["reproduce"]["failing"] == "pytest --requirement=ACC-02"


def test_nothing_that_explains_a_failure_is_cut(run: Run, project: pytest.Pytester) -> None:
    words = " ".join(f"word{number}" for number in range(400))
    result = run(
        f"""
        @requirement("ACC-02")
        def test_fails(): assert 0, "{words}\\nsecond line {words} the end"

        @requirement("API-01")
        def test_errs(): raise StackError("{words} bundle: /a/path")
        """
    )
    found = entries(project)
    assert found["ACC-02"]["reason"] == words
    assert "the end" in found["ACC-02"]["detail"]
    assert found["API-01"]["reason"].endswith("bundle: /a/path")
    output = result.stdout.str()
    assert f"reload: exactly whole chunks from the tier: {words}\n" in output
    assert f"error: StackError: {words} bundle: /a/path\n" in output
    text = (project.path / "reports/conformance.md").read_text()
    assert "second line" in text
    assert "bundle: /a/path" in text
    message = allure_results(project)["test_fails"]["statusDetails"]["message"]
    assert "the end" in message


def test_quiet_shows_failures_and_counts_only(run: Run) -> None:
    result = run(ADVISORY + UNJUDGED + '@requirement("ACC-02")\ndef test_no(): assert 0, "expected 2, got 0"', "-q")
    text = result.stdout.str()
    assert "NON-CONFORMANT ACC-02" in text
    assert "conformance: 0 conformant, 1 non-conformant, 1 advisory, 1 not judged" in text
    assert "ADVISORY " not in text
    assert "NOT JUDGED " not in text
    assert "report:" not in text


def test_verbose_names_each_outcome(run: Run) -> None:
    result = run(MIXED, "-v")
    result.stdout.fnmatch_lines(
        [
            "*::test_should ADVISORY *",
            "*::test_fixture_errs ERROR *",
            "*::test_errs ERROR *",
            "*::test_not_judged NOT JUDGED (not judged: no *",
            "*::test_subject_dies_in_setup FAILED *",
        ]
    )


def test_a_run_that_judged_nothing_says_so(run: Run) -> None:
    run(UNJUDGED).stdout.fnmatch_lines(["no requirement was judged: this run proves nothing"])


def test_the_rerun_command_and_the_seed_of_other_plugins(run: Run, project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        from fixtures.plugin import REPORTING as pytest_plugins
        from fixtures.plugin.judgement import RERUN_ARGS_KEY
        def pytest_configure(config):
            config.stash.setdefault(RERUN_ARGS_KEY, []).extend(["--seed=123"])
        """
    )
    result = run('@requirement("ACC-02")\ndef test_no(): assert 0, "no"')
    result.stdout.fnmatch_lines(["run again: pytest --seed=123 suite/test_accounted.py::test_no"])
    assert written(project)["run"]["seed"] == 123


def test_captured_output_and_tracebacks_are_redacted_for_allure(run: Run, project: pytest.Pytester) -> None:
    run(
        """
        @pytest.fixture
        def noisy():
            raise StackError("vllm serve --api-key topsecretvalue")

        @requirement("ACC-01")
        def test_prints(evidence):
            print("HF_TOKEN=hf_abcdefghijklm")
            evidence("values", {"hf_token": "letmein", "ok": 1}, kind="json")
            assert 0, "got Bearer abcdefghijk"

        @requirement("ACC-02")
        def test_errs(noisy): pass
        """
    )
    secrets = ("topsecretvalue", "hf_abcdefghijklm", "letmein", "abcdefghijk")
    texts = {path.name: path.read_text() for path in (project.path / "reports").rglob("*") if path.is_file()}
    assert [(secret, name) for secret in secrets for name, text in texts.items() if secret in text] == []
    assert "[redacted]" in "".join(texts.values())


def test_long_evidence_is_trimmed_in_the_report_only(run: Run, project: pytest.Pytester) -> None:
    run(
        """
        @requirement("ACC-01")
        def test_it(evidence):
            evidence("log", "first" + "x" * 9000 + "last", kind="log")
            assert 0, "no"
        """
    )
    text = entries(project)["ACC-01"]["evidence"][0]["text"]
    assert len(text.encode()) <= 2048
    assert text.startswith("first")
    assert text.endswith("last")
    assert any(path.stat().st_size > 9000 for path in project.path.glob("reports/allure-results/*attachment*"))
