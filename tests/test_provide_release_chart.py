"""``--stack chart`` and ``--stack attach`` under pytest, from the options to the clean-up.

A real Helm, a stand-in chart, a stand-in cluster in this process, and the stand-in engine that the local stack's tests use.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.processes import ProcessRef
from fixtures.core.progress import Progress
from fixtures.core.record import Release, StackRecord
from fixtures.core.waiting import poll
from fixtures.plugin.target import target_of
from fixtures.provide.kube import charts
from fixtures.provide.kube.helm import Helm, Layers
from fixtures.provide.orphans import remove_orphans, remove_release
from fixtures.provide.release import kind
from fixtures.provide.release.teardown import tear_down
from fixtures.provide.target import Target
from fixtures.report import waivers
from tests import apart, fakes
from tests.fakes.api_server import FakeCluster
from tests.helm_binaries import helm as binary
from tests.test_provide_kube_helm import MODEL, STAND_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.apart import Started

pytest.importorskip("kubernetes")
pytest_plugins = ("pytester",)

ROOT = Path(__file__).resolve().parents[1]
KEY = "open-sesame-key"
WITHIN_S = 120
"""A run of stand-ins takes some seconds; on a machine that does other things too, much longer."""
SUITE = """
    import pytest
    from fixtures.instruments.client import bearer
    from fixtures.plugin.markers import requirement

    @requirement("CFG-01")
    def test_engine(stack):
        assert stack.engine.counters().running == 0
        assert "starting" in stack.engine.log.text()

    @requirement("CFG-03")
    def test_names(stack):
        assert stack.unknown_lmcache_names() == []

    @requirement("MEM-04")
    def test_memory(stack):
        with stack.host_memory() as memory:
            assert memory.peak(stack.engine.name) == 107

    @requirement("API-09")
    def test_router(stack):
        assert stack.router.get("/v1/models").status == 200

    @requirement("CFG-04")
    def test_keys(stack):
        assert stack.release.keys_without_effect(stack.lmcache_names) == []

    @requirement("CFG-05")
    def test_manifests(stack):
        assert stack.release.refused() == []
        assert stack.release.dangling() == []

    @requirement("REL-01")
    def test_starts(stack):
        assert {one.role for one in stack.release.starts()} == {"engine", "router"}

    @requirement("REL-03")
    @pytest.mark.run_last
    def test_gone(stack, teardown_report):
        assert not teardown_report.left_running
        assert not teardown_report.left_objects

    @requirement("MEM-06")
    @pytest.mark.run_last
    def test_memory_is_back(teardown_report):
        assert teardown_report.resident_after_bytes == 0
"""


class Project:
    """A project with a suite, a configuration for the stand-in chart, and a cluster."""

    def __init__(self, pytester: pytest.Pytester, major: int) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.out = self.path / "out.txt"
        self.cluster = FakeCluster().start()
        self.kubeconfig = self.cluster.kubeconfig(self.path)
        self.helm = binary(major)
        self.values: dict[str, Any] = {"servingEngineSpec": {"modelSpec": [{**MODEL, "modelURL": "org/m"}]}}
        fake = fakes.make(self.path / "env")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [
            str(fake.python),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            "org/m",
            "--port",
            str(port),
        ]
        self.engine = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        self.cluster.targets["vllm", 8000] = self.cluster.targets["router", 8000] = ("127.0.0.1", port)
        versions = {"vllm": "0.32.0", "lmcache": "0.5.6", "torch": "2.13.0"}
        names = ["LMCACHE_LOCAL_CPU", "LMCACHE_MAX_LOCAL_CPU_SIZE"]
        self.cluster.programs = {
            "_CONFIG_DEFINITIONS": json.dumps(names),
            "importlib.metadata": json.dumps({"versions": versions, "model": None}),
            "memory.stat": "anon 100\nshmem 7\n",
        }
        self.suite(SUITE)

    def suite(self, source: str) -> None:
        (self.path / "suite").mkdir(exist_ok=True)
        (self.path / "suite" / "test_suite.py").write_text(textwrap.dedent(source))

    @property
    def options(self) -> list[str]:
        config = self.path / "one"
        config.mkdir(exist_ok=True)
        (config / "values.yaml").write_text(json.dumps(self.values))
        (config / "expect.yaml").write_text("description: stand-in\ndevice: cpu\n")
        return [
            f"--helm={self.helm}",
            f"--chart={STAND_IN}",
            f"--config={config}",
            "--stack=chart",
            "-p",
            "no:cacheprovider",
        ]

    def run(self, *args: str, options: list[str] | None = None) -> pytest.RunResult:
        """A run in this process, which saves the imports; what it says of its progress goes to the real terminal."""
        return self.pytester.runpytest_inprocess(*(self.options if options is None else options), *args)

    def apart(self, *args: str, options: list[str] | None = None) -> pytest.RunResult:
        """A run in a process of its own, as one with workers has to be; all that it says is seen."""
        return apart.run(self.path, "pytest", *(self.options if options is None else options), *args)

    def start(self, words: str, *args: str) -> Started:
        """A run beside this process, as soon as its output (``out``) has the words."""
        run = apart.Started("pytest", [*self.options, *args], self.path, self.out)
        told = poll(self.out.read_text, lambda text: words in text or run.poll() is not None, WITHIN_S)
        assert words in told, told
        return run

    def namespaces(self) -> list[str]:
        found = [one["metadata"]["name"] for one in self.cluster.find("api/v1/namespaces")]
        return [name for name in found if name not in {"default", "kube-system"}]

    def report(self) -> dict[str, Any]:
        return json.loads((self.path / "reports/conformance.json").read_text())

    def records(self) -> list[StackRecord]:
        return [StackRecord.load(path) for path in sorted(self.path.glob("runs/*/*/record.json"))]

    def install(self, name: str = "theirs", **values: Any) -> None:
        self.cluster.put("api/v1/namespaces", "", {"metadata": {"name": name}})
        path = self.path / "their-values.yaml"
        path.write_text(json.dumps({**self.values, **values}))
        tool = Helm((str(self.helm),), None, self.path / "their-helm")
        chart = charts.chart_of(str(STAND_IN), None, self.path / "their-chart")
        args = ["--kubeconfig", str(self.kubeconfig), "--kube-context", "fake"]
        tool.run("install", "vllm", *chart.args, "--namespace", name, *Layers((path,)).args, *args)


@pytest.fixture(params=[4])
def project(
    request: pytest.FixtureRequest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    for variable in ("PYTEST_ADDOPTS", "KV_OFFLOAD_HELM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(pytester.path / "cache"))
    pytester.makeconftest('pytest_plugins = ("fixtures.plugin",)')
    pytester.makeini(f"[pytest]\ntestpaths = suite\naddopts = {apart.ADDOPTS}\n")
    made = Project(pytester, request.param)
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
    yield made
    made.engine.kill()
    made.engine.wait()
    os.killpg(made.engine.pid, signal.SIGKILL) if _group_runs(made.engine.pid) else None
    made.cluster.stop()
    for path in Path("/dev/shm").glob(f"kvoc-fake-{made.engine.pid}"):
        path.unlink()


def _group_runs(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", [pytest.param(3, marks=pytest.mark.long), 4], indirect=True)
def test_installed_judged_and_gone(project: Project) -> None:
    result = project.apart()
    result.assert_outcomes(passed=9)
    assert project.namespaces() == []
    assert project.cluster.pods() == []
    assert project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions") == []
    (record,) = project.records()
    assert record.kind == "chart"
    assert record.model == "org/m"
    assert not list((project.path / "cache/stacks").glob("*.json"))
    subject = project.report()["subjects"][0]
    assert subject["chart"] == "stand-in-1.2.3"
    assert subject["kubernetes"] == "v1.36.2"
    assert subject["versions"]["lmcache"] == "0.5.6"
    assert subject["images"]
    shown = result.stderr.str() + result.stdout.str()
    for phase in ("dry run", "helm install vllm", "pods are made", "images and volumes", "start-up", "service"):
        assert phase in shown


@pytest.mark.long
@pytest.mark.parametrize("project", [pytest.param(3, marks=pytest.mark.long), 4], indirect=True)
def test_the_rights_that_are_documented_are_enough(project: Project) -> None:
    rules = [rule for one in documented() if one["kind"] == "ClusterRole" for rule in one["rules"]]
    project.cluster.granted = {
        (verb, group, resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    } | {("list", "example.com", "things")}  # the stand-in chart's own kind
    result = project.run()
    result.assert_outcomes(passed=9)
    assert project.namespaces() == []
    assert project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions") == []


def documented() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "docs/rbac.yaml").read_text()))


def test_one_right_less_is_told_before_anything_is_made(project: Project) -> None:
    project.cluster.forbidden.add(("create", "pods/exec"))
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*these credentials may not create pods/exec in namespace *", "*docs/rbac.yaml*"])
    assert not any(one.startswith("POST /api/v1/namespaces") for one in project.cluster.requests)


@pytest.mark.parametrize("lacking", [None, ("get", "namespaces"), ("list", "nodes")])
def test_without_rights_it_says_which_and_how_to_get_them(project: Project, lacking: tuple[str, str] | None) -> None:
    if lacking is None:
        project.cluster.granted = set()
    else:
        project.cluster.forbidden.add(lacking)
    result = project.run()
    assert result.ret == 4
    words = "get pods in namespace *more" if lacking is None else f"{' '.join(lacking)} in the cluster"
    result.stderr.fnmatch_lines([f"*rights: these credentials may not {words}", "*docs/rbac.yaml*"])


@pytest.mark.long
def test_workers_share_one_release(project: Project) -> None:
    project.apart("-n2").assert_outcomes(passed=9)
    assert len(project.records()) == 1
    assert project.namespaces() == []


@pytest.mark.long
def test_kept_then_judged_again_then_stopped(project: Project) -> None:
    result = project.apart("--keep-stack")
    result.assert_outcomes(passed=7)
    (namespace,) = project.namespaces()
    result.stderr.fnmatch_lines([f"*is kept: release vllm in namespace {namespace}*"])
    path = next(project.path.glob("runs/*/*/record.json"))
    again = project.apart(f"--record={path}", options=["--stack=attach", "-p", "no:cacheprovider"])
    again.assert_outcomes(passed=7)
    assert project.namespaces() == [namespace]
    assert apart.run(project.path, "fixtures", "stop", str(path)).ret == 0
    assert project.namespaces() == []


@pytest.mark.long
@pytest.mark.parametrize("asked_by", ["config", "values", "set"])
def test_volumes_are_kept_for_the_next_run(project: Project, asked_by: str) -> None:
    options = project.options
    if asked_by == "config":
        project.values["servingEngineSpec"]["modelSpec"][0]["pvcStorage"] = "1Gi"
        options = project.options
    elif asked_by == "values":
        model = {**project.values["servingEngineSpec"]["modelSpec"][0], "pvcStorage": "1Gi"}
        overlay = project.path / "volume.yaml"
        overlay.write_text(json.dumps({"servingEngineSpec": {"modelSpec": [model]}}))
        options = [*options, f"--values={overlay}"]
    else:
        options = [*options, "--set=servingEngineSpec.modelSpec[0].pvcStorage=1Gi"]
    for _ in range(2):
        result = project.run("--namespace=mine", "--keep-volumes", "-k", "test_engine", options=options)
        result.assert_outcomes(passed=1)
        assert project.namespaces() == ["mine"]
        volumes = project.cluster.find("api/v1/persistentvolumeclaims", "mine")
        assert [one["metadata"]["name"] for one in volumes] == ["vllm-m-claim"]
        assert project.cluster.pods() == []


def test_the_development_mode_is_added_and_declared(project: Project) -> None:
    project.values["servingEngineSpec"]["modelSpec"][0]["env"] = [{"name": "HF_HUB_OFFLINE", "value": "1"}]
    result = project.run("--with-dev-mode", "-k", "test_engine")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*adds VLLM_SERVER_DEV_MODE=1 to every engine*"])
    record = json.loads(next(project.path.glob("runs/*/*/record.json")).read_text())
    assert [one["env"].get("VLLM_SERVER_DEV_MODE") for one in record["engines"]] == ["1"] * len(record["engines"])
    assert [one["env"].get("HF_HUB_OFFLINE") for one in record["engines"]] == ["1"] * len(record["engines"])
    assert record["substitutions"] == [
        "env VLLM_SERVER_DEV_MODE: (not set) -> 1 (--with-dev-mode: enables POST /reset_prefix_cache)"
    ]


@pytest.mark.long
def test_ended_by_a_signal_it_leaves_nothing(project: Project) -> None:
    project.cluster.fates["vllm"] = "never"
    run = project.start("start-up ...")
    run.send_signal(signal.SIGTERM)
    assert run.wait(WITHIN_S) == 2
    assert project.namespaces() == []
    assert not list((project.path / "cache/stacks").glob("*.json"))


# --- what killed runs leave ------------------------------------------------------------------------------------------


def killed(project: Project, *args: str) -> Path:
    """The record of a run that was ended by SIGKILL while its release started."""
    project.cluster.fates["vllm"] = "never"
    run = project.start("start-up ...", *args)
    run.kill()
    run.wait(WITHIN_S)
    project.cluster.fates.clear()
    (path,) = (project.path / "cache/stacks").glob("*.json")
    return path


def crds(project: Project) -> list[str]:
    return [
        one["metadata"]["name"]
        for one in project.cluster.find("apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    ]


@pytest.mark.long
def test_what_a_killed_run_left_is_removed_by_the_next_one(project: Project) -> None:
    path = killed(project)
    (left,) = project.namespaces()
    record = StackRecord.load(path)
    assert record.release is not None
    assert record.release.cluster == project.cluster.find("api/v1/namespaces")[1]["metadata"]["uid"]
    result = project.apart("-k", "test_engine")
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines([f"*removing stack {record.id}, left by a run that was killed*"])
    assert project.namespaces() == []
    assert crds(project) == []
    assert not path.exists()
    assert left not in {one["metadata"]["namespace"] for one in project.cluster.pods()}


@pytest.mark.long
def test_a_run_of_another_kind_names_it_and_keeps_the_record(project: Project) -> None:
    path = killed(project)
    (left,) = project.namespaces()
    said = io.StringIO()
    remove_orphans(path.parent, Progress(said, live=False))
    assert (
        f"still has release vllm in namespace {left}; remove it with: python -m fixtures stop {path}" in said.getvalue()
    )
    attach = ["--stack=attach", "--namespace=theirs", "--release=nobody", f"--helm={project.helm}"]
    project.apart(options=attach).stderr.fnmatch_lines(
        [f"*still has release vllm in namespace {left}; remove it with*"]
    )
    assert path.exists()
    assert project.namespaces() == [left]
    assert apart.run(project.path, "fixtures", "stop", str(path)).ret == 0
    assert project.namespaces() == []
    assert not path.exists()


def test_what_cannot_be_removed_is_told_and_kept(project: Project) -> None:
    path = killed(project)

    def told(words: str, **changes: str) -> None:
        record = StackRecord.load(path)
        assert record.release is not None
        for name, value in changes.items():
            setattr(record.release, name, value)
        said = io.StringIO()
        remove_release(record, path.parent, Progress(said, live=False), patience_s=0.5)
        assert words in said.getvalue()
        assert f"python -m fixtures stop {path}" in said.getvalue()
        assert path.exists()

    told("now points to another cluster", cluster="another")
    told("no kubeconfig", kubeconfig=str(project.path / "gone"))
    project.cluster.stop()
    told("does not answer")


@pytest.mark.long
def test_runs_that_overlap_leave_no_crd(project: Project) -> None:
    path = killed(project)  # the first one, which made the CRD
    record = StackRecord.load(path)
    assert record.owner is not None
    record.owner = ProcessRef.of(os.getpid())  # and is still alive
    record.save(path.parent)
    project.run("-k", "test_engine").assert_outcomes(passed=1)
    assert crds(project) == ["things.example.com"], "the first one uses it"
    tear_down(record, path.parent)
    assert crds(project) == []
    assert project.namespaces() == []


def test_a_release_of_another_owner_is_not_uninstalled(project: Project) -> None:
    """Two runs want the same name; the one that did not get it must not remove the other's when it gives up."""
    project.install("theirs")
    record = StackRecord(
        id="late", kind="chart", config="c", folder=project.path / "late", model="m",
        release=Release(
            name="vllm", namespace="theirs", kubeconfig=str(project.kubeconfig), context="fake", helm=(str(project.helm),),
            own=True, own_namespace=True,
        ),
    )  # fmt: skip
    tear_down(record, project.path / "cache/stacks")
    assert project.namespaces() == ["theirs"]
    assert len(project.cluster.pods("theirs")) == 2


@pytest.mark.long
def test_a_failed_release_in_a_namespace_of_others_is_waited_for(project: Project) -> None:
    project.cluster.put("api/v1/namespaces", "", {"metadata": {"name": "theirs"}})
    project.cluster.fates["vllm"] = "crash"
    project.run("--namespace=theirs", "-k", "test_engine").assert_outcomes(errors=1)
    assert project.cluster.pods("theirs") == [], "not even one that is Terminating"
    assert project.namespaces() == ["theirs"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_told_before_anything_is_made(project: Project) -> None:
    project.values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*1 of * checks fail; nothing was installed:", "*there is no RuntimeClass nvidia*"])
    assert not any(one.startswith("POST /api/v1/namespaces") for one in project.cluster.requests)


@pytest.mark.long
def test_a_release_that_crashes_is_an_error_with_a_bundle(project: Project) -> None:
    project.cluster.fates["vllm"] = "crash"
    project.values["servingEngineSpec"]["vllmApiKey"] = KEY
    result = project.apart()
    result.assert_outcomes(errors=1)
    assert "1 error, 8 not judged" in result.stdout.str()
    text = result.stdout.str()
    assert "its log says: ValueError: boom" in text
    assert len([line for line in text.splitlines() if "ValueError: boom" in line]) < 9, (
        "told for one test, not for nine"
    )
    assert "the stack of one did not start; the error of the first test gives the reason" in text
    told = result.stderr.str()
    assert told.index("release vllm does not start") < told.index("removing release vllm")
    assert project.namespaces() == []
    (folder,) = project.path.glob("runs/*/one/bundle")
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert {"README.txt", "values.yaml", "manifest.yaml", "helm.txt", "events.txt", "nodes.yaml"} <= set(files)
    assert any(name.endswith(".previous.log") for name in files)
    assert "kind: Secret" not in files["manifest.yaml"]
    assert not any(KEY in body or "sesame-of-the-fake" in body for body in files.values())


@pytest.mark.long
def test_a_signal_while_a_failed_release_is_removed_does_not_swallow_the_reason(project: Project) -> None:
    project.cluster.fates["vllm"] = "crash"
    run = project.start("removing release vllm")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        run.send_signal(number)
        time.sleep(0.2)
    assert run.wait(WITHIN_S) == 2
    text = project.out.read_text()
    assert "its log says: ValueError: boom" in text
    assert "Traceback (most recent call last)" not in text
    assert project.namespaces() == []
    assert not list((project.path / "cache/stacks").glob("*.json"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("servingEngineSpec.modelSpec[0].replicaCount=abc", "replicaCount holds the text*write a whole number"),
        ("nonsense", "--set nonsense: this is not in Helm*"),
        ("servingEngineSpec.modelSpec=7", "modelSpec"),
    ],
)
def test_a_nonsensical_set_is_one_sentence(project: Project, text: str, words: str) -> None:
    result = project.run("-k", "test_engine", options=[*project.options, f"--set={text}"])
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_a_repository_that_cannot_be_reached_names_the_remedy(project: Project) -> None:
    options = [one for one in project.options if not one.startswith("--chart=")]
    result = project.run(options=[*options, "--chart=https://127.0.0.1:9/charts/x.tgz"])
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*the chart repository https://127.0.0.1:9/* cannot be reached*--chart PATH*"])


@pytest.mark.long
def test_a_check_is_overridden_by_its_name(project: Project) -> None:
    project.values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    result = project.apart("--no-preflight=references", "-k", "test_engine")
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["*override references: there is no RuntimeClass nvidia*"])
    result = project.apart("--no-preflight=reference")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--no-preflight reference: choose from cluster, helm*"])


@pytest.mark.long
def test_the_scheduler_has_the_last_word_on_room(project: Project) -> None:
    project.values["servingEngineSpec"]["modelSpec"][0]["requestGPU"] = 1
    project.cluster.fates["vllm-m-"] = "gpu"
    result = project.apart("-k", "test_engine")
    result.assert_outcomes(errors=1)
    result.stderr.fnmatch_lines(["*warning  room: no node seems to be large enough for *1 nvidia.com/gpu*"])
    result.stdout.fnmatch_lines(["*Unschedulable*Insufficient nvidia.com/gpu*"])


@pytest.mark.long
def test_refused_objects_are_all_told(project: Project) -> None:
    project.cluster.refuses = {"vllm-m-deployment-vllm": "must not contain dots", "vllm-secrets": "too long"}
    result = project.run("-k", "test_engine")
    assert "refuses 2 objects of the chart" in result.stdout.str()
    assert project.namespaces() == []


@pytest.mark.long
def test_an_api_server_that_goes_away_is_no_verdict(project: Project) -> None:
    project.suite(
        """
        from fixtures.plugin.markers import requirement

        @requirement("CFG-01")
        def test_engine(stack):
            stack.engine.counters()
            for access in (stack.access,):
                access.kube.patience_s = 1.0
            open("go", "w").close()
            while True:
                stack.engine.counters()
        """
    )
    run = project.start("pods are made", "--keep-stack")
    assert poll((project.path / "go").exists, bool, WITHIN_S)
    with project.cluster.away():
        assert run.wait(WITHIN_S) == 1
    report = project.report()
    entry = next(one for one in report["requirements"] if one["id"] == "CFG-01")
    assert entry["verdict"] == "not judged"
    assert entry["errored"]
    assert "API server" in project.out.read_text()


@pytest.mark.long
def test_a_known_defect_points_to_its_ready_waiver(project: Project) -> None:
    shipped = waivers.load(ROOT / "configs/cpu-cluster/waivers.yaml")
    assert set(shipped) == {"API-09"}
    assert not shipped["API-09"].expired(datetime.date(2026, 12, 1))
    project.suite(
        """
        from fixtures.plugin.markers import requirement

        @requirement("API-09")
        def test_router(stack):
            assert stack.router is None, "expected an error object, got a text"
        """
    )
    options = project.options
    (project.path / "one/waivers.yaml").write_text((ROOT / "configs/cpu-cluster/waivers.yaml").read_text())
    result = project.run("--keep-stack", options=options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["API-09: a known defect of this subject; *--waivers=*one/waivers.yaml"])
    result = project.run(f"--waivers={project.path}/one/waivers.yaml", options=options)
    assert result.ret == 0
    assert "a known defect of this subject" not in result.stdout.str()


# --- adopting ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_running_release_is_judged_and_not_changed(project: Project) -> None:
    project.install()
    before = json.dumps([*project.cluster.objects.values()], sort_keys=True, default=str)
    asked = len(project.cluster.requests)
    options = [
        "--stack=attach",
        "--namespace=theirs",
        f"--helm={project.helm}",
        f"--chart={STAND_IN}",
        "-p",
        "no:cacheprovider",
    ]
    result = project.run(options=options)
    result.stdout.fnmatch_lines(
        ["NOT JUDGED     MEM-04: *add --allow evict", "NOT JUDGED     API-09: *add --allow disrupt"]
    )
    result.assert_outcomes(passed=5)
    result = project.run("--allow=evict,disrupt", options=options)
    result.assert_outcomes(passed=7)
    assert json.dumps([*project.cluster.objects.values()], sort_keys=True, default=str) == before
    wrote = {one for one in project.cluster.requests[asked:] if not one.startswith("GET")}
    assert {one.partition(" ")[0] for one in wrote if "selfsubjectaccessreviews" not in one} <= {"PATCH"}  # dry runs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stack=attach"], "needs one of: --record FILE*--namespace N*--url URL"),
        (["--stack=attach", "--namespace="], "--namespace '' is not a valid Kubernetes name"),
        (["--stack=attach", "--namespace=a/../b"], "--namespace 'a/../b' is not a valid Kubernetes name"),
        (
            ["--stack=chart", "--namespace=Mine", "--config=embedded"],
            "--namespace 'Mine' is not a valid Kubernetes name",
        ),
        (
            ["--stack=attach", "--namespace=a", f"--release={'r' * 54}"],
            "is not a valid Kubernetes name*at most 53 lowercase letters",
        ),
        (["--stack=attach", "--namespace=theirs", "--set=a=1"], "does not change the deployment: omit --values, --set"),
        (["--stack=attach", "--namespace=theirs", "--keep-stack"], "omit --config, --gpu and --keep-stack"),
        (["--namespace=x"], "--namespace: only for a stack on Kubernetes"),
        (["--stack=chart", "--cluster=minikube", "--config=embedded"], "only 'kind' is supported"),
        (
            ["--stack=process", "--with-dev-mode", "--config=embedded"],
            "--with-dev-mode changes a release that the run installs",
        ),
        (
            ["--stack=attach", "--namespace=theirs", "--with-dev-mode"],
            "--with-dev-mode changes a release that the run installs",
        ),
        (["--stack=chart", "--keep-volumes", "--config=embedded"], "--keep-volumes without --namespace"),
        (["--stack=chart", "--kube-context=nobody", "--config=embedded"], "it has: fake, other); name one of them"),
        (["--stack=chart", "--chart=./nowhere", "--config=embedded"], "no such file or folder"),
    ],
)
def test_wrong_options_are_refused(project: Project, options: list[str], words: str) -> None:
    result = project.run(options=[*options, f"--helm={project.helm}"] if "--stack" in " ".join(options) else options)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*{words}*"])


def test_a_release_that_is_not_there_is_one_line(project: Project) -> None:
    project.install()
    options = ["--stack=attach", "--namespace=theirs", "--release=nobody", f"--helm={project.helm}"]
    result = project.run(options=options)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*namespace theirs has no such release (it has: vllm)*"])


# --- a cluster for one run ---------------------------------------------------------------------------------------------

PYTEST_KIND = """
    import pathlib, subprocess

    class KindCluster:
        def __init__(self, name, kubeconfig, image, kind_path, kubectl_path):
            self.name, self.kubeconfig_path, self.image = name, kubeconfig, image

        def create(self, config_file):
            text = pathlib.Path({kubeconfig!r}).read_text().replace("fake", "kind-" + self.name)
            self.kubeconfig_path.write_text(text)
            pathlib.Path({log!r}).open("a").write(f"create{{' ' + self.image if self.image else ''}}\\n")

        def delete(self):
            pathlib.Path({log!r}).open("a").write("delete\\n")
            if pathlib.Path({log!r}).with_name("broken").exists():
                raise subprocess.CalledProcessError(1, "kind delete")
"""


@pytest.fixture
def kind_log(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked of kind, which makes no cluster here but gives the stand-in one."""
    log = project.path / "kind.log"
    package = project.path / "site/pytest_kind"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    source = textwrap.dedent(PYTEST_KIND).format(kubeconfig=str(project.kubeconfig), log=str(log))
    (package / "cluster.py").write_text(source)
    tools = project.path / "tools"
    tools.mkdir()
    for tool in ("kind", "kubectl"):
        (tools / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{project.path / 'site'}")
    return log


@pytest.mark.long
def test_a_kind_cluster_lives_for_one_run(project: Project, kind_log: Path) -> None:
    project.apart("--cluster=kind", "-k", "test_engine").assert_outcomes(passed=1)
    assert kind_log.read_text().split() == ["create", "delete"]


@pytest.mark.long
def test_the_kind_cluster_of_a_killed_run_is_deleted_by_the_next_one(project: Project, kind_log: Path) -> None:
    path = killed(project, "--cluster=kind")
    (cluster,) = (project.path / "cache/clusters").glob("*.json")
    said: list[str] = []
    kind.remove_orphans(said.append, only_name=True)
    assert "kind delete cluster --name kv-offload-" in said[0]
    assert cluster.exists()
    project.apart("--cluster=kind", "-k", "test_engine").assert_outcomes(passed=1)
    assert kind_log.read_text().split() == ["create", "delete", "create", "delete"]
    assert not cluster.exists()
    assert not path.exists(), "what was on it is gone with it"


@pytest.mark.long
def test_a_kind_cluster_that_does_not_pass_the_preflight_is_deleted(project: Project, kind_log: Path) -> None:
    project.values["servingEngineSpec"]["runtimeClassName"] = "nvidia"
    result = project.apart("--cluster=kind")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*there is no RuntimeClass nvidia*"])
    assert kind_log.read_text().split() == ["create", "delete"]
    kind_log.with_name("broken").touch()  # what cannot be deleted hides nothing
    result = project.apart("--cluster=kind")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*there is no RuntimeClass nvidia*"])
    result.stderr.fnmatch_lines(["*could not be deleted*kind delete cluster --name kv-offload-*"])


@pytest.mark.long
def test_workers_use_the_kind_cluster_of_their_run(project: Project, kind_log: Path) -> None:
    """Else they would install into the context that happens to be the current one."""
    result = project.apart("--cluster=kind", "-n", "2", "-k", "test_engine or test_names")
    result.assert_outcomes(passed=2)
    assert kind_log.read_text().split() == ["create", "delete"]
    records = [StackRecord.load(path) for path in project.path.glob("runs/*/*/record.json")]
    assert [str(one.release.context).startswith("kind-kv-offload-") for one in records if one.release] == [True]


@pytest.mark.long
def test_a_kept_kind_cluster_says_how_to_delete_it(project: Project, kind_log: Path) -> None:
    result = project.apart("--cluster=kind", "--keep-stack", "-k", "test_engine")
    assert kind_log.read_text().split() == ["create"]
    result.stderr.fnmatch_lines(["*kind cluster kv-offload-* is kept*", "*kind delete cluster --name kv-offload-*"])


# --- the small parts --------------------------------------------------------------------------------------------------


def test_a_kind_node_gets_the_gpus_the_nvkind_way() -> None:
    (node,) = kind.configuration(gpu=True)["nodes"]
    assert node["extraMounts"] == [{"hostPath": "/dev/null", "containerPath": "/var/run/nvidia-container-devices/all"}]
    assert "extraMounts" not in kind.configuration(gpu=False)["nodes"][0]
    assert yaml.safe_load(yaml.safe_dump(kind.configuration(gpu=True)))["kind"] == "Cluster"


def test_kind_itself_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="needs kind on the PATH"):
        kind.create(tmp_path, Target(), gpu=False, report=lambda _: None)


def test_kind_leaves_nothing_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Cluster:
        """As pytest-kind's: makes a folder where it is called, and its kubeconfig there unless it is told another."""

        def __init__(self, name: str, kubeconfig: Path, image: str, kind_path: Path, kubectl_path: Path) -> None:
            self.name, self.kubeconfig_path, self.image = name, kubeconfig, image
            self.tools = kind_path, kubectl_path
            Path(".pytest-kind", name).mkdir(parents=True, exist_ok=True)

        def create(self, config_file: str) -> None:
            assert yaml.safe_load(Path(config_file).read_text())["nodes"]
            assert all(tool.is_absolute() for tool in self.tools)
            if self.image == "bad":
                raise subprocess.CalledProcessError(1, "kind")
            self.kubeconfig_path.write_text("{}")

        def delete(self) -> None:
            deleted.append(self.name)

    deleted: list[str] = []

    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))  # for the records of the clusters
    tools, here = tmp_path / "bin", tmp_path / "here"
    for folder in (tools, here):
        folder.mkdir()
    for tool in ("kind", "kubectl"):
        (tools / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.chdir(here)
    monkeypatch.setitem(sys.modules, "pytest_kind.cluster", SimpleNamespace(KindCluster=Cluster))
    monkeypatch.setattr(kind, "_await_node", lambda *_: None)
    monkeypatch.setattr(kind, "resolve_context", lambda *_: None)
    monkeypatch.setattr(kind, "Kube", lambda _: None)
    target = kind.create(Path("../runs/one-7"), Target(), gpu=False, report=lambda _: None)
    other = kind.create(Path("../runs/two-7"), Target(), gpu=False, report=lambda _: None)
    assert str(target.context).startswith("kind-kv-offload-")
    assert target.context != other.context, "the same process id in another container is another cluster"
    assert target.kubeconfig == str(tmp_path / "runs/one-7/kubeconfig")
    with pytest.raises(StackError, match=r"kind could not create the cluster .*Docker is running.*--kind-image"):
        kind.create(Path("../runs/three-7"), Target(), gpu=False, report=lambda _: None, image="bad")
    assert list(here.iterdir()) == []
    assert len(list((tmp_path / "cache/clusters").iterdir())) == 2, "of those that were made"
    assert deleted == [], "kind itself removes what it could not make"

    def never(_: object, name: str) -> None:
        raise StackError(f"the node of kind cluster {name} does not accept pods")

    monkeypatch.setattr(kind, "_await_node", never)
    with pytest.raises(StackError, match="does not accept pods"):
        kind.create(Path("../runs/four-7"), Target(), gpu=False, report=lambda _: None)
    assert len(deleted) == 1


def test_a_kind_cluster_is_used_once_its_node_takes_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(ready: str, *taints: str) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": ready}]
        return {"spec": {"taints": [{"key": key} for key in taints]}, "status": {"conditions": conditions}}

    seen: list[list[dict[str, Any]]] = [[], [node("False")], [node("True", kind.NOT_READY)], [node("True")]]
    kind._await_node(SimpleNamespace(list=lambda _: seen.pop(0)), "some")  # type: ignore[arg-type]
    assert seen == []
    monkeypatch.setattr(kind, "READY_S", 0.1)
    with pytest.raises(StackError, match=r"kind cluster some does not accept pods after 0 s"):
        kind._await_node(SimpleNamespace(list=lambda _: [node("False")]), "some")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [("keep_cluster", True, "--keep-stack"), ("kubeconfig", "x", "--kube-context"), ("kind_bin", "x", "on the PATH")],
)
def test_options_of_pytest_kind_that_nobody_reads_are_refused(name: str, value: object, instead: str) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(kv_cluster="kind", **{name: value}), getini=lambda _: None)
    with pytest.raises(ConfigurationError, match=rf"--{name.replace('_', '-')} is for pytest-kind.*{instead}"):
        target_of(config, "chart")
