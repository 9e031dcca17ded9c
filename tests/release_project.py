"""A project with ``--stack chart`` and a stand-in cluster, for pytest sessions inside of tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.record import StackRecord
from fixtures.core.waiting import poll
from fixtures.provide.kube import charts
from fixtures.provide.kube.helm import Helm, Layers
from tests import apart, fakes
from tests.fakes.api_server import FakeCluster
from tests.helm_binaries import helm as binary
from tests.stand_in_chart import MODEL, STAND_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.apart import Started

pytest.importorskip("kubernetes")


ROOT = Path(__file__).resolve().parents[1]


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
