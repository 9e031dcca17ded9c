"""Every command of the pages is parsed by the program that it names, or its page says where it was run."""

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures import __main__ as own
from tests.pages import PAGES, REPORTS, ROOT

WRITTEN = [page for page in PAGES if page not in REPORTS]
MANUAL = [page for page in WRITTEN if page.parent in (ROOT, ROOT / "docs")]
"""What tells a reader what to do; the other pages tell what was done."""
TESTS_RUN = re.compile(r"pytest|tox|python3?|pip|ruff|mypy|lint-imports")
"""Programs whose commands are parsed here; where the README's are run is a test of the workflows."""
FOREIGN = re.compile(r"`((?:kubectl|helm|kind|minikube|docker|podman|npx|curl|jq|git|sudo|pre-commit) [^`]+)`")
VALUES = {"sudo microk8s helm"}
"""Of an option, and no command."""
WHERE_RUN: dict[str, dict[str, str]] = {
    "docs/ci.md": {
        "podman ": "Those with `podman` and `kubectl` were not run",
        "kubectl ": "Those with `podman` and `kubectl` were not run",
        "until kubectl ": "Those with `podman` and `kubectl` were not run",
        "jq ": "those with `jq` were, with jq 1.6",
        "npx allure@3.18.0 generate": "CI runs `npx allure@3.18.0 generate`",
    },
    "docs/clusters.md": {
        "kubectl apply": "| `kubectl apply` of the RuntimeClass |",
        "kubectl get nodes": "| `kubectl get nodes` |",
        "docker build": "| `docker build` of `cpu-engine` | no:",
        "kind create cluster --name kv": "| `kind create`, `kind load` and `kind delete` |",
        "kind load": "| `kind create`, `kind load` and `kind delete` |",
        "kind delete": "| `kind create`, `kind load` and `kind delete` |",
        **dict.fromkeys(
            (
                *("sudo nvidia-ctk", "sudo systemctl", "cat > kind-gpu.yaml", "docker exec", "helm install nvdp"),
                *("sudo sysctl", "minikube start", "curl -sfL https://get.k3s.io", "sudo cat /etc/rancher"),
                *("sudo snap", "sudo microk8s"),
            ),
            "| the commands above for kind, minikube, k3s and MicroK8s with a GPU | no:",
        ),
    },
    "docs/defects/dashboard-cache-hit-rate.md": {"curl ": "The engine was a stand-in"},
    "docs/defects/in-process-cache-salt.md": {"ask": "This form was not run", "curl ": "This form was not run"},
    "docs/reading-a-report.md": {"cd reports && npx allure@3.18.0": "Both commands were run with Node.js 20"},
}
"""By page: how a command of another program begins, and the page's words on where it was run, or that it was not."""
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


def shell_lines(block: str) -> Iterator[str]:
    """The lines of a block for a shell, those that go on joined; without comments and the text of here-documents."""
    text = re.sub(r"(<<'(\w+)')\n.*?\n\s*\2$", r"\1", block, flags=re.DOTALL | re.MULTILINE)
    kept = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        kept = f"{kept}\n{line}".strip()
        with contextlib.suppress(ValueError):  # a quotation is not closed yet
            if shlex.split(kept, comments=True):
                yield kept
            kept = ""
    assert not kept, f"a quotation is not closed: {kept}"


def lines(page: Path) -> list[str]:
    """The command lines of a page: of its blocks for a shell, and those in its text."""
    text = page.read_text()
    found = [line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in shell_lines(block)]
    inline = re.findall(r"`((?:pytest|python -m|tox -e|pip|mypy|ruff)\s[^`]+)`", text)
    if page in MANUAL:
        inline += [one for one in FOREIGN.findall(text) if len(one.split()) > 2 and one not in VALUES]
    return found + [" ".join(one.split()) for one in inline]


def commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without its variables and the brackets of what may be left out."""
    words = shlex.shlex(line.replace("[", "").replace("]", ""), posix=True, punctuation_chars="&|;")
    words.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("&|;"):
            found.append([])
        elif found[-1] or not re.match(r"^[A-Z_]+=", word):
            found[-1].append(word)
    return [one for one in found if one]


def read(words: Sequence[str]) -> list[str]:
    """The words with an example in place of each that the reader replaces."""
    return [EXAMPLES.get(word, word) for word in words]


def program(words: Sequence[str]) -> str:
    """Name of the program, without the folder of an environment."""
    return Path(words[0]).name


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


def with_a_place(page: Path) -> dict[str, str]:
    """The beginnings of commands of other programs that a page may have, with its words on where they were run."""
    return WHERE_RUN.get(str(page.relative_to(ROOT)), {})


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_are_parsed_or_were_run(page: Path, problem: Parsers) -> None:
    found = {line: commands(line) for line in lines(page)}
    ours = {line: every for line, every in found.items() if all(TESTS_RUN.fullmatch(program(one)) for one in every)}
    assert [(line, wrong) for line, every in ours.items() for one in every if (wrong := problem(read(one)))] == []
    places = with_a_place(page)
    others = found.keys() - ours.keys()
    assert [one for one in others if not one.startswith(tuple(places))] == [], (
        f"say in {page.name} where these were run"
    )
    assert [start for start in places if not any(one.startswith(start) for one in others)] == [], "no such command"
    text = " ".join(page.read_text().split())
    assert [said for said in places.values() if said not in text] == []


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
