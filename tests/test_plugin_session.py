"""The life of a stack under pytest, in sessions of their own with stand-ins for engine and cache server."""

from __future__ import annotations

import json
import types
from typing import TYPE_CHECKING

import pytest

from fixtures.plugin import session
from fixtures.plugin.run import RUN_KEY
from fixtures.provide import process_provider
from fixtures.provide.process import process_teardown
from fixtures.provide.provider import TearDown
from tests import fakes, process_project
from tests.process_project import PASSES, Project

if TYPE_CHECKING:
    from pathlib import Path

    from fixtures.core.record import StackRecord

pytest_plugins = ("pytester",)

project = process_project.project


def test_the_panels_that_a_stack_leaves_blank_are_in_the_report(project: Project) -> None:
    """They are named before the stack is torn down, also where a test judges that."""
    queries = ("vllm:num_requests_running", "vllm:gone", "lmcache_mp_l1_memory_usage_bytes")
    found = [{"title": f"panel of {query}", "targets": [{"expr": query}]} for query in queries]
    (project.path / "d.json").write_text(json.dumps({"panels": found}))
    project.suite(
        PASSES
        + """
        @pytest.mark.run_last
        @requirement("MEM-06")
        def test_ended(teardown_report):
            assert not teardown_report.left_running
        """.replace("\n        ", "\n")
    )
    result = project.run(*project.subject, "--dashboard=d.json")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["dashboard d.json (one): 3 panels with queries, 1 blank, 0 partly blank"])
    (subject,) = project.report()["subjects"]
    assert subject["dashboards"]["d.json"]["blank"] == [
        {"title": "panel of vllm:gone", "missing": ["vllm:gone is not exposed"]}
    ]
    page = (project.path / "reports" / "conformance.md").read_text()
    assert "- **d.json**: 3 panels with queries, 1 blank, 0 partly blank\n" in page
    assert "  - blank: panel of vllm:gone: vllm:gone is not exposed\n" in page


@pytest.mark.long
def test_configurations_run_one_after_the_other(project: Project) -> None:
    fakes.make_config(project.path / "second")
    project.suite(
        """
        import psutil
        @requirement("CFG-01")
        def test_a(stack, note):
            for line in (HERE / "notes.jsonl").read_text().splitlines() if note["config"] == "second" else ():
                assert not any(map(psutil.pid_exists, json.loads(line)["pids"])), "the first stack still runs"
        @requirement("CFG-02")
        @pytest.mark.run_last
        def test_c(stack, note):
            pass
        @requirement("CFG-03")
        def test_b(stack, note):
            pass
        def test_without():
            pass
        """
    )
    result = project.run(*project.subject, f"--config={project.path / 'second'}")
    assert result.ret == 0
    expected = [f"test_{name}[{config}]" for config in ("one", "second") for name in "abc"]
    assert [note["test"] for note in project.notes()] == expected
    assert len({tuple(note["pids"]) for note in project.notes()}) == 2
    assert project.running() == []
    assert project.registered() == []


ENDS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "a test fails": ("assert False, 'expected 1, got 0'", (), 1),
    "a test fails, -x": ("assert False, 'expected 1, got 0'", ("-x",), 1),
    "a test errs": ("raise ValueError('of the suite')", (), 1),
    "a fixture errs": ("request.getfixturevalue('broken')", (), 1),
    "pytest.exit": ("pytest.exit('enough')", (), 2),
}


@pytest.mark.parametrize(
    "how",
    [how if how == "a fixture errs" else pytest.param(how, marks=pytest.mark.long) for how in ENDS],
)
def test_nothing_runs_after_a_run_however_it_ends(project: Project, how: str) -> None:
    code, args, status = ENDS[how]
    project.suite(
        f"""
        @pytest.fixture
        def broken(stack):
            raise StackError("broken")
        @requirement("CFG-01")
        def test_request(request, stack, note):
            {code}
        @requirement("CFG-02")
        def test_two(stack):
            pass
        """
    )
    assert project.run(*project.subject, *args).ret == status
    assert project.running() == []
    assert project.registered() == []
    [record] = project.records()
    assert record.ready_after_s is not None
    assert not any(server.tmp is not None and server.tmp.exists() for server in record.servers)
    report = project.report()
    assert report["run"]["exit_status"] == status
    assert {entry["id"] for entry in report["requirements"]} >= {"CFG-01", "CFG-02"}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_stack_that_does_not_come_up_is_an_error_of_the_run(project: Project, workers: int) -> None:
    project.fake.behave(engine="dies")
    project.suite(PASSES + PASSES.replace("test_request", "test_two").replace("CFG-01", "CFG-02"))
    result = project.run(*project.subject, *(["-n2"] if workers else []), apart=bool(workers))
    assert result.ret == 1
    said = result.stdout.str()
    assert "fake-0 ended while it was starting: ValueError: no weights here" in said
    assert "Traceback" not in said
    assert "fixtures/plugin" not in said, "an error of the stack is a message, not a place in the suite"
    reasons = {entry["id"]: entry["reason"] for entry in project.report()["requirements"]}
    told = sorted(reasons.values())
    assert told[0].startswith("error: StackError: "), "once"
    assert "did not start; the error of the first test gives the reason" in told[1]
    assert said.count("ValueError: no weights here") <= 3, "the error, the summary, and pytest's own last line"
    assert len(project.records()) == 1, "started once, not once per test or worker"
    assert project.running() == []
    assert project.registered() == []


@pytest.mark.long
def test_a_tear_down_that_fails_does_not_cost_the_report(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = process_teardown.tear_down

    def fails(record: StackRecord, registry: Path) -> TearDown:
        real(record, registry)
        return TearDown(1, 1, left_running=(4711,))

    monkeypatch.setattr(process_provider, "tear_down", fails)
    assert project.run(*project.subject).ret == 1
    assert "left pids 4711 running; end them with kill -9" in capfd.readouterr().err
    assert project.report()["run"]["exit_status"] == 1


MEETS_IT = """
@requirement("ACC-02")
def test_many(stack, prompts):
    for _ in range(12):
        stack.complete(prompts.unique(chunks=2))

@requirement("COR-03")
def test_after(stack, prompts):
    stack.complete(prompts.unique(chunks=2))

@requirement("API-06")
def test_api(api, text_requests):
    api.answer(text_requests.request("completions"))

@requirement("CFG-01")
def test_needs_no_answer(stack):
    pass

@requirement("ACT-04")
@pytest.mark.run_late
def test_log(stack):
    gone = stack.health.gone()
    assert not gone, "; ".join(gone.values())
"""


@pytest.mark.parametrize(
    ("does", "first", "then", "owns"),
    [
        (
            "dies-after-6",
            "engine fake-0 ended during the run: ",
            "engine fake-0 ended during the run: ",
            "expected every process to run until the end of the run, got engine fake-0 ended during the run",
        ),
        (
            "stalls-after-6",
            "a request never ended, so the test is not judged: POST http",
            "engine fake-0 has been hanging since a request that never ended",
            "expected every request to end, got POST http",
        ),
    ],
    ids=["dies", "hangs"],
)
def test_an_end_costs_no_other_claim_its_verdict(project: Project, does: str, first: str, then: str, owns: str) -> None:
    project.fake.behave(engine=does)
    project.suite(MEETS_IT)
    result = project.run(*project.subject, "--deadline=answer=1", "--deadline=probe=0.3")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    entries = {entry["id"]: entry for entry in project.report()["requirements"]}
    assert [entries[id_]["verdict"] for id_ in ("ACC-02", "COR-03", "API-06", "CFG-01", "ACT-04")] == [
        *["not judged"] * 3,
        "conformant",
        "non-conformant",
    ]
    assert entries["ACC-02"]["reason"].startswith(first)
    assert entries["COR-03"]["reason"].startswith(then)
    assert entries["API-06"]["reason"].startswith(then)
    assert entries["ACT-04"]["reason"].startswith(owns)


def test_a_wrong_deadline_is_a_usage_error(project: Project) -> None:
    project.suite(PASSES)
    result = project.run(*project.subject, "--deadline=anser=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--deadline anser=5: give NAME=SECONDS (did you mean answer?)*"])


def test_of_the_ordinary_tests_those_of_the_configuration_come_first() -> None:
    def item(id_: str, *marks: str) -> types.SimpleNamespace:
        judged = pytest.mark.requirement(id_).mark
        return types.SimpleNamespace(
            name=id_,
            get_closest_marker=lambda name: name if name in marks else None,
            iter_markers=lambda name: [judged] if name == "requirement" else [],
        )

    items = [
        item("ACC-01"),
        item("RES-01", "run_disruptive"),
        item("MEM-06", "exclusive_host", "run_last"),
        item("MEM-01", "exclusive_host"),
        item("ACT-01"),
        item("CFG-01"),
        item("CFG-02", "run_late"),
    ]
    config = types.SimpleNamespace(stash={RUN_KEY: types.SimpleNamespace(provider=types.SimpleNamespace(names=[]))})
    session.pytest_collection_modifyitems(config, items)  # type: ignore[arg-type]
    assert [one.name for one in items] == ["CFG-01", "ACC-01", "ACT-01", "MEM-01", "CFG-02", "RES-01", "MEM-06"]
