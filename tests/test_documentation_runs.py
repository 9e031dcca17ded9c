"""Every command of the documentation is run by a test or by CI, or its page says where it was run, or that it was not."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fixtures import __main__ as own
from tests.documented_commands import MANUAL, WRITTEN, is_own, lines
from tests.pages import ROOT
from tests.stand_in_chart import STAND_IN

PLACES = yaml.safe_load((ROOT / "tests/data/documented_commands.yaml").read_text())
"""``run_by``: a command, and the test or the step of CI that runs it. ``pages``: by page, a command, or the beginning of
one with ``*`` at its end, and the page's words on where it was run."""
HERE = "tests/test_documentation_runs.py::test_a_command_of_the_pages_does_what_it_says"
TELLING = {ROOT / "CHANGELOG.md"}
"""A page of `MANUAL` that tells what was done."""
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
STANDS_FOR = {
    "values.yaml": "configs/embedded/values.yaml",
    "path/to/values.yaml": "configs/embedded/values.yaml",
    "--engine-python=/opt/vllm/bin/python": "--engine-python=$ENGINE_PYTHON",
    "http://engine:8000": "$(jq -r '.engines[0].url' $record)",
    "runs/.../record.json": "$record",
    "RECORD": "$record",
}
"""What CI has in place of an example of a page."""


def told(page: Path) -> list[str]:
    """The commands that are run somewhere: of other programs all, of our own those that a page tells to run."""
    found = dict.fromkeys(line.partition("  #")[0].strip().replace(".venv/bin/", "") for line in lines(page))
    return [line for line in found if not is_own(line) or page in set(MANUAL) - TELLING]


def words_of(line: str) -> list[str]:
    """Words of a command line, a program without the folder of its environment."""
    return [re.sub(r"^[^-].*/bin/", "", word) for word in shlex.split(line, comments=True)]


def steps() -> list[list[str]]:
    """The words of every command line of CI; of the GPU's, the arguments that it collects."""
    jobs = [job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()]
    runs = [step.get("run", "") for job in jobs for step in job["steps"]]
    runs += [one.get("run", "") for job in jobs for one in job.get("strategy", {}).get("matrix", {}).get("include", [])]
    found = [line for run in [*runs, (ROOT / ".ci/run").read_text()] for line in run.splitlines()]
    found = [re.sub(r".*arguments=\((.*?)\).*", r"pytest suite \1", line) for line in found]
    return [words_of(line) for line in found if not line.strip().endswith("\\")]


def is_a_step(line: str) -> bool:
    """Whether CI runs a command, word by word, in this order; it may add options to it, but to one of tox nothing."""
    wanted = [STANDS_FOR.get(word, word) for word in words_of(line)]
    if wanted[0] == "tox":
        return any(step[-len(wanted) :] == wanted for step in steps())
    rest = [iter(step) for step in steps()]
    return any(all(word in step for word in wanted) for step in rest)


def is_told_by(line: str, row: str) -> bool:
    return line == row or (row.endswith("*") and line.startswith(row[:-1]))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_page_is_run_or_its_page_says_where_it_was(page: Path) -> None:
    found, places = told(page), PLACES["pages"].get(str(page.relative_to(ROOT)), {})
    nowhere = [
        line
        for line in found
        if line not in PLACES["run_by"] and not is_a_step(line) and not any(is_told_by(line, row) for row in places)
    ]
    assert nowhere == [], f"say in {page.name} where these were run, and in documented_commands.yaml the words"
    assert [row for row in places if not any(is_told_by(line, row) for line in found)] == [], "no such command"
    text = " ".join(page.read_text().split())
    assert [said for said in places.values() if said not in text] == []


def test_the_readme_has_no_command_that_only_its_words_vouch_for() -> None:
    """Each has a job of CI, but for the one that only a release can take."""
    assert "README.md" not in PLACES["pages"]
    assert [line for line in told(ROOT / "README.md") if not is_a_step(line)] == [
        "pytest suite --stack attach --namespace NS --release R"
    ]


def test_what_runs_a_command_is_there() -> None:
    assert PLACES["run_by"].keys() <= {line for page in MANUAL for line in told(page)}
    for place in PLACES["run_by"].values():
        path, _, name = place.partition("::")
        assert f"\ndef {name}(" in (ROOT / path).read_text() if name else is_a_step(place), place


def test_a_command_that_is_in_no_place_is_found() -> None:
    assert is_a_step("pytest suite -k ACC")
    assert not is_a_step("pytest suite -k NO-SUCH")
    assert is_a_step(".venv/bin/tox -e lab -- --sample")
    assert not is_a_step("tox -e lab"), "of which --sample is a part"
    assert is_told_by("kind load a", "kind load*")
    assert not is_told_by("kind load a", "kind load")


def test_the_commands_of_the_suite_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert own.main([]) == 2
    assert re.findall(r"^  (\S+)", capsys.readouterr().err, flags=re.MULTILINE) == [*own.COMMANDS]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, of which commands may write the pages; with a folder of charts."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("fixtures", "suite", "lab", "tests", "configs", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(STAND_IN, folder / "FOLDER/0.1.12")
    return folder


def spelt_out(line: str) -> list[str]:
    """A command line as one for this interpreter; of tox, what its environment runs."""
    words = words_of(line)
    if words[0] == "tox":
        tox = configparser.RawConfigParser()
        tox.read(ROOT / "tox.ini")
        command = tox[f"testenv:{words[2]}"]["commands"]
        words = shlex.split(command.replace("{posargs}", shlex.join(words[words.index("--") + 1 :])))
    return [sys.executable, *(("-m", *words) if words[0] == "pytest" else words[1:])]


@pytest.mark.parametrize("line", [line for line, test in PLACES["run_by"].items() if test == HERE])
def test_a_command_of_the_pages_does_what_it_says(line: str, copy: Path, tmp_path: Path) -> None:
    """What writes a page writes the one that is there; what prints something prints it."""
    there = {copy / page.relative_to(ROOT): page for page in MANUAL if (copy / page.relative_to(ROOT)).exists()}
    before = {page: page.stat().st_mtime_ns for page in there}
    environment = os.environ | {"PYTHONPATH": str(copy), "KV_OFFLOAD_CACHE": str(tmp_path)}
    done = subprocess.run(spelt_out(line), cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written = [page for page in there if page.stat().st_mtime_ns != before[page]]
    assert [page.name for page in written if page.read_text() != there[page].read_text()] == []
    assert bool(written) != bool(done.stdout), "nothing is written, and nothing printed"
