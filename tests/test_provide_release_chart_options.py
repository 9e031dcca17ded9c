"""Options of ``--stack chart``: kept volumes, the development mode, wrong values, overridden checks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import release_project

if TYPE_CHECKING:
    from tests.release_project import Project

pytest.importorskip("kubernetes")

pytest_plugins = ("pytester",)

project = release_project.project


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
