"""Every command of this project on the pages is parsed by the program that it names."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures import __main__ as own
from tests.documented_commands import WRITTEN, commands, is_own, lines, program, shell_lines
from tests.pages import ROOT

DASHBOARD = "tests/data/dashboard.json"
EMBEDDED = "configs/embedded/values.yaml"
EXAMPLES = {
    "N": "1",
    "NS": "ns",
    "R": "r",
    "values.yaml": EMBEDDED,
    "path/to/values.yaml": EMBEDDED,
    "FILE": DASHBOARD,
    "helm/dashboards/vllm-dashboard.json": DASHBOARD,
}
"""What stands for a word that the reader replaces; commands with ``...`` are left out."""
WITHOUT_PARSER = {
    **dict.fromkeys(("fixtures options", "fixtures requirements", "fixtures compatibility", "lab.versions"), 0),
    "fixtures stop": 1,
    "fixtures chart-keys": 1,
    "tests.test_architecture": 0,
}
"""Commands that take no option, and how many words they take."""


def read(words: Sequence[str]) -> list[str]:
    """The words with an example in place of each that the reader replaces."""
    return [EXAMPLES.get(word, word) for word in words]


class ParsedError(Exception):
    """A parser has accepted a command line; nothing is run."""


class Parsers:
    """What is wrong with a command of this project, by the parser of its program; None: nothing."""

    def __init__(self, pytest_config: pytest.Config, patch: pytest.MonkeyPatch) -> None:
        self._pytest, self._patch = pytest_config._parser, patch
        self._parse = argparse.ArgumentParser.parse_args

    def __call__(self, words: Sequence[str]) -> str | None:
        name = program(words)
        if name.startswith("python"):
            return self._python(words[2], words[3:]) if words[1:2] == ["-m"] else None
        by_name = {"pytest": self._of_pytest, "tox": self._tox, "pip": self._pip}
        return by_name.get(name, lambda _: None)(words[1:])

    def _of_pytest(self, words: Sequence[str]) -> str | None:
        try:
            options, unknown = self._pytest.parse_known_and_unknown_args(list(words))
        except pytest.UsageError as error:
            return str(error)
        places = [] if options.pyargs else [one.partition("::")[0] for one in options.file_or_dir]
        absent = [one for one in places if not [*ROOT.glob(one)]]
        return f"unknown options {unknown}, no such files {absent}" if unknown or absent else None

    def _python(self, module: str, words: Sequence[str]) -> str | None:
        name, rest = module.replace("kv_offload_conformance", "fixtures"), words
        if name == "fixtures" and words:
            if words[0] not in {*own.COMMANDS, "COMMAND"}:
                return f"no such command: {words[0]}"
            name, rest = f"fixtures {words[0]}", words[1:]
            module = f"fixtures{own.COMMANDS[words[0]][0]}" if words[0] in own.COMMANDS else "fixtures"
        if name in WITHOUT_PARSER:
            return None if len(rest) == WITHOUT_PARSER[name] else f"{name} takes {WITHOUT_PARSER[name]} words"
        if importlib.util.find_spec(module) is None:
            return f"no such module: {module}"
        return (
            self._main(f"{module}.__main__" if module == "lab" else module, rest) if rest and module != "venv" else None
        )

    def _main(self, module: str, words: Sequence[str]) -> str | None:
        """By the parser of a module's ``main``, of which nothing else is run."""

        def parse_only(parser: argparse.ArgumentParser, *args: Any) -> None:
            self._parse(parser, *args)
            raise ParsedError

        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), self._patch.context() as patch:
                patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
                importlib.import_module(module).main(list(words))
        except ParsedError:
            return None
        except SystemExit:
            return said.getvalue()
        raise AssertionError(f"{module} has no parser: say in WITHOUT_PARSER how many words it takes")

    def _tox(self, words: Sequence[str]) -> str | None:
        tox = configparser.RawConfigParser()
        tox.read(ROOT / "tox.ini")
        given = shlex.join(words[words.index("--") + 1 :]) if "--" in words else ""
        environment = words[words.index("-e") + 1]
        if f"testenv:{environment}" not in tox:
            return f"no such environment: {environment}"
        every = tox[f"testenv:{environment}"]["commands"].splitlines() if given else []
        wrong = [self(shlex.split(line.replace("{posargs}", given))) for line in every if "{posargs}" in line]
        return next(filter(None, wrong), None)

    def _pip(self, words: Sequence[str]) -> str | None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = {one for word in words if (found := re.match(r"\.(\w.*)", word)) for one in found[1].split(",")}
        return None if wanted <= extras.keys() else f"no such extra: {wanted - extras.keys()}"


@pytest.fixture
def problem(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Parsers:
    return Parsers(pytestconfig, monkeypatch)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_are_parsed(page: Path, problem: Parsers) -> None:
    ours = {line: commands(line) for line in lines(page) if is_own(line)}
    assert [(line, wrong) for line, every in ours.items() for one in every if (wrong := problem(read(one)))] == []


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_of_a_page_has_a_language(page: Path) -> None:
    """A block for a shell is one of ``sh``, so that its commands are found."""
    marks = re.findall(r"^ *```(.*)$", page.read_text(), flags=re.MULTILINE)
    assert set(marks[::2]) <= {"sh", "text", "yaml", "mermaid"}
    assert set(marks[1::2]) <= {""}


SUITE_COMMANDS = sorted({line for page in WRITTEN for line in lines(page) if line.startswith("pytest suite ")})


@pytest.mark.long
@pytest.mark.parametrize("command", [one for one in SUITE_COMMANDS if "..." not in one])
def test_a_command_of_the_pages_selects_tests(command: str) -> None:
    words = read(shlex.split(command, comments=True))
    call = [sys.executable, "-m", *words, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("pytest suite --gpu --no-such", "--no-such"),
        ("pytest suite --maxfail many", "invalid int value"),
        ("pytest tests/test_no_such.py", "test_no_such"),
        ("tox -e no-such", "no-such"),
        ("tox -e lab -- --no-such", "--no-such"),
        ("python -m fixtures no-such", "no-such"),
        ("python -m fixtures requirements all", "takes 0 words"),
        ("python -m fixtures report compare one.json two.json --no-such", "--no-such"),
        ("python -m no_such", "no_such"),
        ("pip install -e '.[no-such]'", "no-such"),
        (".venv/bin/tox -e lab -- --list", None),
    ],
)
def test_a_wrong_command_is_found(command: str, wrong: str | None, problem: Parsers) -> None:
    (words,) = commands(command)
    found = problem(words)
    assert found is None if wrong is None else wrong in (found or "")


def test_lines_of_a_shell_are_read_whole() -> None:
    block = "cat > f <<'YAML'\n  a: b\nYAML\nA=1 one 'two\nthree' \\\n  | four   # said\n# nothing\n"
    assert list(shell_lines(block)) == ["cat > f <<'YAML'", "A=1 one 'two\nthree' | four   # said"]
    assert commands("A=1 one 'two\nthree' | four   # said") == [["one", "two\nthree"], ["four"]]
