"""The wheel: one package that holds everything, and that works beside PyPI's `fixtures` in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fixtures.report import report as reporting

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "kv_offload_conformance"
PYTEST = ("pytest", "-p", f"{PACKAGE}.plugin", "--pyargs")


def test_every_package_is_in_the_wheel() -> None:
    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {path.parent.relative_to(ROOT / "fixtures") for path in (ROOT / "fixtures").rglob("__init__.py")}
    assert packages == {".".join((PACKAGE, *folder.parts)) for folder in found} | {
        f"{PACKAGE}.{name}" for name in ("configs", "docs", "suite")
    }


def test_every_file_that_is_no_code_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "fixtures").rglob("*"):
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__":
            package = ".".join((PACKAGE, *path.parent.relative_to(ROOT / "fixtures").parts))
            assert any(path.match(pattern) for pattern in patterns.get(package, [])), path


class Installed:
    """The wheel in a fresh environment, beside PyPI's `fixtures`, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.env, self.work = folder / "env", folder / "work"
        self.work.mkdir()
        source = folder / "source"
        source.mkdir()
        for name in ("fixtures", "suite", "configs", "docs"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        venv.create(self.env, with_pip=True)
        reached = self.run("pip", "download", "--quiet", "--no-deps", "--dest", str(folder / "index"), "fixtures")
        if reached.returncode:
            pytest.skip(f"pip reaches no index: {reached.stderr.splitlines()[-1]}")
        self.check("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder / "dist"), str(source))
        self.check("pip", "install", "--quiet", *map(str, (folder / "dist").glob("*.whl")), "fixtures")
        (self.site,) = self.env.glob("lib/python3*/site-packages")

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        environment = kept | {"KV_OFFLOAD_CACHE": str(self.work / "cache")}
        command = [str(self.env / "bin" / program), *arguments]
        return subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, check=False)

    def check(self, program: str, *arguments: str) -> str:
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_wheel_works_in_an_empty_environment(tmp_path: Path, httpserver: HTTPServer) -> None:
    installed = Installed(tmp_path)
    # Nothing of the project is beside its package, and what other projects call `fixtures` is theirs.
    recorded = next(installed.site.glob(f"{PACKAGE}-*.dist-info/RECORD")).read_text()
    top = {line.partition("/")[0] for line in recorded.splitlines()}
    assert {name for name in top if not name.endswith(".dist-info")} == {PACKAGE}
    assert installed.check("python", "-c", "import fixtures; print(fixtures.TestWithFixtures.__name__)").strip()
    # The tests are the checkout's, under the same ids.
    collected = installed.check(*PYTEST, f"{PACKAGE}.suite", "--collect-only", "-q")
    assert "suite/test_correct.py::test_a_reload_gives_the_same_answer_bit_for_bit[embedded-8]" in collected
    gpu = ("--gpu", "--stack=process", "--config=gpu-small", f"--engine-python={installed.env / 'bin' / 'python'}")
    one = installed.check(*PYTEST, f"{PACKAGE}.suite.test_active::test_the_offload_layer_is_up", *gpu, "--co", "-q")
    assert "suite/test_active.py::test_the_offload_layer_is_up[gpu-small]" in one
    # A run judges and reports; what runs it again is printed.
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "m", "max_model_len": 0}]})
    attached = ("--stack=attach", f"--url={httpserver.url_for('')}", "--requirement=API-01,CFG-01")
    for workers in ((), ("-n2",)):
        judged = installed.run(*PYTEST, f"{PACKAGE}.suite", *attached, *workers)
        assert judged.returncode == 1, judged.stdout + judged.stderr
        again = f"run again: pytest -p {PACKAGE}.plugin --pyargs --stack=attach {attached[1]} '{PACKAGE}.suite.test_"
        assert again in judged.stdout
        report = reporting.load(installed.work / "reports" / "conformance.json")
        (api,) = [one for one in report["requirements"] if one["id"] == "API-01"]
        assert api["verdict"] == "non-conformant"
        assert api["cases"]["nodeids"] == ["suite/test_serving.py::test_the_model_is_listed[attached]"]
    # The commands of the suite.
    path = "reports/conformance.json"
    assert installed.check("python", "-m", PACKAGE, "report", "validate", path).startswith(f"{path}: valid, schema")
    for command in ("options", "requirements", "compatibility"):
        assert installed.check("python", "-m", PACKAGE, command) == (ROOT / "docs" / f"{command}.md").read_text()
    schema = json.loads(installed.check("python", "-m", PACKAGE, "report", "schema"))
    assert schema["title"] == json.loads((ROOT / "docs/schema/conformance-report.schema.json").read_text())["title"]
