"""Helm by the user's own words: which one, which chart, what it renders; with real Helm 3 and 4."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from fixtures.core.errors import ConfigurationError
from fixtures.provide.kube import charts
from fixtures.provide.kube.charts import Chart
from fixtures.provide.kube.helm import ENV_HELM, Helm, Layers, RenderError, error_summary, find_command
from tests.helm_binaries import helm as binary
from tests.stand_in_chart import STAND_IN, VALUES


@pytest.fixture(params=[3, 4])
def helm(request: pytest.FixtureRequest, tmp_path: Path) -> Helm:
    return Helm((str(binary(request.param)),), None, tmp_path / "home")


@pytest.fixture
def chart(tmp_path: Path) -> Chart:
    return charts.chart_of(str(STAND_IN), None, tmp_path / "work")


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# --- which Helm -------------------------------------------------------------------------------------------------------


def test_the_words_that_call_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "microk8s", "echo v3.17.1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(ENV_HELM, raising=False)
    assert find_command(None) == ("microk8s", "helm")
    assert find_command("microk8s helm3") == ("microk8s", "helm3")
    monkeypatch.setenv(ENV_HELM, "microk8s kubectl")
    assert find_command(None) == ("microk8s", "kubectl")
    with pytest.raises(ConfigurationError, match="command not found"):
        find_command("sudo microk8s helm")


def test_without_helm_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(ENV_HELM, raising=False)
    with pytest.raises(ConfigurationError, match="--helm 'sudo microk8s helm'"):
        find_command(None)


def test_another_major_is_refused(tmp_path: Path) -> None:
    old = Helm((str(program(tmp_path, "helm", "echo v2.17.0")),), None, tmp_path)
    with pytest.raises(ConfigurationError, match="use Helm 3 or 4"):
        _ = old.major


def test_nothing_of_the_users_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM_NAMESPACE", "somebody-elses")
    monkeypatch.setenv("HELM_KUBECONTEXT", "production")
    spy = Helm((str(program(tmp_path, "helm", "env")),), None, tmp_path / "home")
    said = spy.run("version", cluster=False)
    assert "somebody-elses" not in said
    assert "production" not in said
    assert f"HELM_CACHE_HOME={tmp_path / 'home'}" in said
    assert f"KUBECONFIG={os.devnull}" in said


def test_last_words_leave_warnings_out() -> None:
    said = (
        "WARNING: Kubernetes configuration file is group-readable\ncoalesce.go:289: warning: x\nError: it is\n broken\n"
    )
    assert error_summary(said) == "Error: it is broken"
    assert error_summary("WARNING: only that") == "it said nothing"
    assert error_summary("") == "it said nothing"


def test_the_message_of_a_template_may_speak_of_the_network(tmp_path: Path) -> None:
    said = "Error: execution error at (x/templates/i.yaml:3:4): a TLS secret is needed"
    fails = Helm((str(program(tmp_path, "helm", f"echo '{said}' >&2; exit 1")),), None, tmp_path)
    with pytest.raises(RenderError, match="TLS secret"):
        fails.render_values(Chart("x"), "x", "n", {})


# --- which chart ------------------------------------------------------------------------------------------------------


def test_the_published_chart_is_pinned(tmp_path: Path) -> None:
    assert charts.chart_of(None, None, tmp_path).args == [
        "vllm-stack",
        "--repo",
        charts.REPOSITORY,
        "--version",
        charts.VERSION,
    ]
    assert charts.chart_of(None, "0.1.9", tmp_path).version == "0.1.9"
    assert charts.chart_of("oci://example.com/charts/x", "1", tmp_path).args == [
        "oci://example.com/charts/x",
        "--version",
        "1",
    ]


@pytest.mark.parametrize(
    ("reference", "version", "words"),
    [
        ("./nowhere", None, "no such file"),
        (str(STAND_IN), "1.0", "omit it for a file or folder"),
        (str(STAND_IN.parent), None, "no Chart.yaml"),
    ],
)
def test_a_wrong_chart_is_refused(reference: str, version: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        charts.chart_of(reference, version, tmp_path)


@pytest.mark.parametrize("text", ["a: [", "\xff", "- a", "dependencies: a", "dependencies: [{name: d}, {version: 1}]"])
def test_a_chart_that_says_nothing_of_itself_ends_in_no_traceback(text: str, tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_bytes(text.encode("latin-1"))
    if text in {"a: [", "\xff"}:
        with pytest.raises(ConfigurationError, match=r"Chart.yaml cannot be read .* give another --chart"):
            charts.chart_of(str(tmp_path), None, tmp_path / "work")
    else:
        assert charts.chart_of(str(tmp_path), None, tmp_path.with_name("work")).version is None


def test_a_checkout_is_not_touched(tmp_path: Path, chart: Chart) -> None:
    assert not (STAND_IN / "charts").exists()
    stub = yaml.safe_load((Path(chart.reference) / "charts/monitoring/Chart.yaml").read_text())
    assert (stub["name"], stub["version"]) == ("monitoring", "9.9.9")
    assert charts.stubbed(chart, {"monitoring": {"enabled": True}}) == ["monitoring"]
    assert charts.stubbed(chart, {}) == []


def test_the_folder_above_the_chart_will_do(tmp_path: Path) -> None:
    shutil.copytree(STAND_IN, tmp_path / "checkout/helm")
    assert charts.chart_of(str(tmp_path / "checkout"), None, tmp_path).reference.endswith("chart")


def test_a_chart_is_pulled_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        f'echo "$@" >> {log}; [ "$1" = pull ] && for last in "$@"; do :; done && touch "$last/vllm-stack-0.1.12.tgz"'
    )
    fake = Helm((str(program(tmp_path, "helm", script)),), None, tmp_path / "home")
    published = charts.chart_of(None, None, tmp_path)
    for _ in range(2):
        assert fake.pull(published, tmp_path / "chart").args == [str(tmp_path / "chart/vllm-stack-0.1.12.tgz")]
    assert len(log.read_text().splitlines()) == 1
    assert charts.REPOSITORY in log.read_text()
    assert fake.pull(Chart(str(STAND_IN)), tmp_path / "chart") == Chart(str(STAND_IN))


@pytest.mark.parametrize("major", [3, 4])
def test_a_repository_that_cannot_be_reached_is_reported(tmp_path: Path, major: int) -> None:
    real = Helm((str(binary(major)),), None, tmp_path / "home")
    with pytest.raises(ConfigurationError, match=r"repository http://127.0.0.1:9 cannot be reached .*--chart PATH"):
        real.pull(Chart("vllm-stack", "0.1.12", "http://127.0.0.1:9"), tmp_path / "chart")


# --- rendering --------------------------------------------------------------------------------------------------------


def test_layers_lie_over_each_other(helm: Helm, chart: Chart, tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(json.dumps({**VALUES, "routerSpec": {"image": "r:1", "replicaCount": 2}}))
    second.write_text(json.dumps({"routerSpec": {"image": "r:2"}}))
    layers = Layers((first, second), ("routerSpec.replicaCount=3",))
    router = next(one for one in helm.template(chart, "x", "n", layers) if one["metadata"]["name"].endswith("router"))
    assert router["spec"]["replicas"] == 3
    assert router["spec"]["template"]["spec"]["containers"][0]["image"] == "r:2"


def test_crds_come_on_request(helm: Helm, chart: Chart, tmp_path: Path) -> None:
    values = tmp_path / "a.yaml"
    values.write_text(json.dumps(VALUES))
    kinds = [one["kind"] for one in helm.template(chart, "x", "n", Layers((values,)), crds=True)]
    assert "CustomResourceDefinition" in kinds
    assert "CustomResourceDefinition" not in [one["kind"] for one in helm.template(chart, "x", "n", Layers((values,)))]


def test_values_in_memory_render_the_same(helm: Helm, chart: Chart, tmp_path: Path) -> None:
    values = tmp_path / "a.yaml"
    values.write_text(json.dumps(VALUES))
    assert helm.render_values(chart, "x", "n", VALUES) == helm.template(chart, "x", "n", Layers((values,)))


def test_a_chart_that_does_not_render_says_why(helm: Helm, chart: Chart) -> None:
    with pytest.raises(RenderError, match=r"helm template failed: .*modelSpec"):
        helm.render_values(chart, "x", "n", {"servingEngineSpec": {"modelSpec": "no list"}})
    assert helm.default_values(chart)["routerSpec"]["replicaCount"] == 1
