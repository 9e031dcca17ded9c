"""``--cluster kind``: a cluster for one run."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.record import StackRecord
from fixtures.plugin.target_options import target_of
from fixtures.provide.release import kind
from fixtures.provide.release_provider import ReleaseProvider
from fixtures.provide.target import Target
from tests import release_project
from tests.release_project import ROOT, Project, killed

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


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
def test_options_of_pytest_kind_that_are_not_read_are_refused(name: str, value: object, instead: str) -> None:
    config: Any = SimpleNamespace(option=SimpleNamespace(kv_cluster="kind", **{name: value}), getini=lambda _: None)
    with pytest.raises(ConfigurationError, match=rf"--{name.replace('_', '-')} is for pytest-kind.*{instead}"):
        target_of(config, ReleaseProvider)
