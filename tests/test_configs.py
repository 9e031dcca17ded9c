"""A bare ``--gate`` on every configuration that ships: open on a healthy subject, closed by one fault.

The suite itself is collected and run, with its own plugins, options, features, fold and gate; only the start of the stack
is left out, and what a test measures: on a healthy subject a test that applies passes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from fixtures.catalogue.selection import musts
from fixtures.core.baseline_record import Baseline
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, PodRef, Release, Server, StackRecord
from fixtures.plugin import locks, stack_end, stack_fixture
from fixtures.plugin.judgement import STATE_KEY, Judgement
from fixtures.provide.process.commands import commands_of
from fixtures.provide.process.host_copies import stays_in_process
from fixtures.provide.process_provider import ProcessProvider
from fixtures.provide.release import open_sessions
from fixtures.provide.release_provider import ReleaseProvider
from fixtures.provide.requested import requested
from fixtures.provide.values.config import available, load_config
from fixtures.report import gate
from fixtures.report import verdicts as aggregate
from fixtures.report.cases import Case, Phase
from tests.shipped import CONFIGS, GPU, ROOT, ROUTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fixtures.plugin.run import Run
    from fixtures.report.cases import Outcome

pytest_plugins = ("pytester",)

SEVERAL = (*ROUTED, "gpu-two-engines", "shared")
IN_PROCESS, NATIVE = ("cpu-offload", "gpu-small"), ("native-cpu", "native-offload")
"""Configurations whose engines keep everything themselves, by LMCache and by vLLM's own connector."""
BELOW_IN_PROCESS = ("disk-in-process", "remote-in-process", "remote-lm")
WITH_A_KEY = ("embedded", "disk", "remote", "shared", "native-cpu", *BELOW_IN_PROCESS, *ROUTED)
"""Configurations that set an API key."""
SUBJECTS = [
    ("embedded", "process"),
    *((name, "process") for name in ROUTED),
    ("disk", "process"),
    ("native-cpu", "process"),
    *((name, "process") for name in ("remote", "shared", *BELOW_IN_PROCESS)),
    ("cpu-cluster", "chart"),
    *((name, kind) for name in GPU for kind in ("process", "chart")),
]

HEALTHY = """
from types import SimpleNamespace

import pytest

from fixtures.experiments.control import Control

def nothing(stack):
    return None

MEASURING = "prompts early latency latency_curve api engine_apis router_api text_requests host_memory teardown_report"
for name in (*MEASURING.split(), "without_engines", "exclusive_stack", "upgraded", "failed", "interrupted", "damaged"):
    globals()[name] = pytest.fixture(nothing, name=name)

@pytest.fixture(autouse=True)
def _observation(request):
    if "stack" in request.fixturenames:
        request.getfixturevalue("_stack_lock")

@pytest.fixture
def control(stack):
    return Control(SimpleNamespace(gpu_prefix_cache=True, record=stack.record))

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if "on_gpu" in pyfuncitem.funcargs:  # what this test asks of its own control, before it measures
        on_gpu = pyfuncitem.funcargs["on_gpu"]
        pyfuncitem.funcargs["control"].require_partial_hit_control(aligned=on_gpu == int(on_gpu))
    return True
"""


def record_of(run: Run, name: str) -> StackRecord:
    """The record of a healthy stack, from what the configuration really renders."""
    config = load_config(name, CONFIGS).with_random_weights("tiny-mistral")  # no model is loaded
    command, explicit = commands_of(config)
    of_server = explicit is not None or (run.context.device == "cpu" and not stays_in_process(command))
    owner = ProcessRef.of(os.getpid())
    pod = PodRef(namespace="kv", name="p", uid="u", container="vllm", port=8000)
    record = StackRecord(
        id=name,
        owner=owner,
        kind="chart" if run.provider.name == "chart" else "process",
        config=name,
        device=run.context.device,
        folder=run.context.folder_of(name),
        model=command.served_model_name,
        requested=requested(command, explicit),
        engines=[
            EngineServer(
                name=f"engine-{index}",
                url="http://127.0.0.1:9",
                argv=tuple(command.argv),
                env=dict(command.env),
                log=run.context.folder / "engine.log",
                cache_server="kv-0" if of_server else None,
                process=None if run.provider.name == "chart" else owner,
                pod=pod if run.provider.name == "chart" else None,
            )
            for index in range(command.replicas)
        ],
        cache_servers=[Server(name="kv-0", url="http://127.0.0.1:9")] if of_server else [],
        ready_after_s=1.0,
    )
    record.folder.mkdir(parents=True)
    if run.provider.name == "chart":
        record.release = Release(
            name="vllm",
            namespace="kv",
            kubeconfig=None,
            context=None,
            helm=("helm",),
            own=True,
            chart="vllm-stack-0.1.12",
        )
    if run.provider.name == "chart" or config.router is not None:
        record.routers = [Server(name="router", url="http://127.0.0.1:9")]
    if run.provider.name != "chart":
        record.baseline = Baseline(pool_tokens=1, prompt_tokens=1, cold_s=(1.0,))
    return record


class Pods:
    """Stands in for the access to a release."""

    release = api_key = metrics = None
    broken_by_an_end = ()

    def __init__(self, record: StackRecord, folder: Path) -> None:
        self.record = record

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def no_lock(*_: object) -> Iterator[None]:
    yield


@pytest.fixture
def states(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[Judgement]:
    """The suite in a folder of its own, with stacks that are never stood up; gets the state of every run."""
    found: list[Judgement] = []
    shutil.copytree(ROOT / "suite", pytester.path / "suite", ignore=shutil.ignore_patterns("__pycache__"))
    (pytester.path / "suite" / "conftest.py").write_text(HEALTHY)
    (pytester.path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    pytester.makeini(
        "[pytest]\ntestpaths = suite\naddopts = --import-mode=importlib -p no:allure_pytest -p no:cacheprovider "
        "-p no:hypothesispytest\n"
    )
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setattr(stack_fixture, "record_of", lambda run, name, *, compared: record_of(run, name))
    monkeypatch.setattr(open_sessions, "ClusterSession", Pods)
    for module, name in (
        *((stack_fixture, "_say_slow"), (stack_fixture, "end"), (stack_fixture, "diagnose")),
        *((stack_end, "end"), (stack_end, "diagnose")),
        *((ReleaseProvider, "check"), (ProcessProvider, "check")),
    ):
        monkeypatch.setattr(module, name, lambda *_: None)
    monkeypatch.setattr(locks, "machine", no_lock)
    monkeypatch.setattr(locks, "locked", no_lock)

    class Keeps:
        def pytest_unconfigure(self, config: pytest.Config) -> None:
            found.append(config.stash[STATE_KEY])

    original = pytester.inline_run
    monkeypatch.setattr(
        pytester, "inline_run", lambda *args, **kwargs: original(*args, **kwargs | {"plugins": [Keeps()]})
    )
    return found


def judge(pytester: pytest.Pytester, name: str, kind: str) -> tuple[int, dict[str, Any]]:
    arguments = [f"--config={CONFIGS / name}", f"--stack={kind}", "--gate", "--run-dir=runs", "-q"]
    arguments += ["--gpu"] if name in GPU else []
    arguments += [f"--engine-python={sys.executable}"] if kind == "process" and name in GPU else []
    result = pytester.inline_run(*arguments)
    assert result.ret is not None
    return int(result.ret), json.loads((pytester.path / "reports/conformance.json").read_text())


def with_case(state: Judgement, id_: str, outcome: Outcome) -> list[Case]:
    """The cases of a run, of which the first that passed for a requirement had this outcome instead."""
    cases = list(state.log.cases)
    at = next(at for at, case in enumerate(cases) if id_ in case.ids and case.outcome == "passed")
    cases[at] = Case(cases[at].nodeid, cases[at].ids, [Phase("call", outcome, "seeded")])
    return cases


def test_every_configuration_that_ships_is_tried() -> None:
    assert {name for name, _ in SUBJECTS} == set(available(CONFIGS))


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), SUBJECTS)
def test_a_bare_gate_opens_on_a_healthy_subject_and_closes_on_one_fault(
    pytester: pytest.Pytester, states: list[Judgement], name: str, kind: str
) -> None:
    code, report = judge(pytester, name, kind)
    verdicts = {entry["id"]: entry["verdict"] for entry in report["requirements"]}
    assert report["gate"]["unmet"] == []
    assert report["gate"]["open"]
    assert code == 0
    claimed = load_config(name, CONFIGS).expect.profiles
    assert set(report["gate"]["profiles"]) == {*claimed, *(["chart"] if kind == "chart" else [])} - (
        {"chart"} if kind == "process" else set()
    )
    asked = set(report["run"]["profiles"])
    assert set(report["gate"]["profiles"]) <= asked
    judged = {id_: each for id_, each in REQUIREMENTS.items() if not each.planned and asked & set(each.profiles)}
    assert set(verdicts) == set(judged), "all of what the configuration claims is told"

    absent = {id_ for id_, verdict in verdicts.items() if verdict == "not applicable"}
    lacks = {"release"} if kind == "process" else set()
    # Elsewhere a cache server, or the spec that native-cpu names, may have tiers below.
    if name in (*IN_PROCESS, "native-offload"):
        lacks |= {"lower-tier", "persistent-tier", "disk-tier", "remote-tier"}
    if name in NATIVE:
        lacks |= {"lmcache"}
    if name in BELOW_IN_PROCESS:
        lacks |= {"persistent-tier", "remote-tier"} if name == "disk-in-process" else {"disk-tier"}
    if name not in SEVERAL:
        lacks |= {"several-engines"}
    if kind == "process" and (name == "shared" or name not in SEVERAL):
        lacks |= {"router"}
    assert absent == set(judged) & {
        *(id_ for id_, each in judged.items() if lacks & each.needs),
        *(() if name in GPU else ("MEM-01", "MEM-02")),
        *(() if name in WITH_A_KEY or kind == "chart" else ("API-08",)),
    }
    (subject,) = report["subjects"]
    assert ("gpu" in subject["features"]["supported"]) == (name in GPU)
    assert ("release" in subject["features"]["unsupported"]) == (kind == "process")

    (state,) = states
    assert state.gate is not None
    # One MUST after the other, and one case of it only: a fault that one case sees closes the gate, so does an open case.
    for requirement in musts(state.gate):
        if verdicts[requirement.id] == "not applicable":
            continue
        for outcome in ("failed", "not judged", "error"):
            results = aggregate.fold(with_case(state, requirement.id, outcome))
            unmet = [found.id for found, _ in gate.unmet(results, state.gate)]
            assert unmet == [requirement.id], outcome
            assert gate.has_failed(results) == (outcome != "not judged")
