"""One table makes the options, their ini settings, the documents and the command that repeats a run."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures import plugin
from fixtures.__main__ import main
from fixtures.core.deadlines import SETTABLE
from fixtures.plugin import options
from fixtures.plugin.option_docs import DOCUMENT, README, document, readme
from fixtures.plugin.option_table import TABLE
from tests.verdict_sessions import PASSING, Run, written

DATA = Path(__file__).with_name("data")
OTHER_PLUGINS: dict[str, dict[str, str]] = json.loads((DATA / "other_plugins.json").read_text())
OWN_FIXTURES = {
    name
    for module in map(importlib.import_module, plugin.pytest_plugins)
    for name, found in vars(module).items()
    if type(found).__name__ == "FixtureFunctionDefinition"
}

pytest_plugins = ("pytester", "tests.verdict_sessions")


def test_the_documents_are_current() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m fixtures options"
    assert README.read_text() == readme(README.read_text()), "run: python -m fixtures options"
    assert all(f"`--{option.name}" in document() for option in TABLE)
    assert all(re.search(rf"^\| `{name}` \| [\d.]+ \| \w.*\. \|$", document(), re.MULTILINE) for name in SETTABLE)


def test_a_readme_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README.md has no place for a table: <!-- options, written by"):
        readme("# Title\n")


def test_the_command_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options", "x"]) == 2
    assert "takes no arguments" in capsys.readouterr().err


def test_names_are_unique() -> None:
    names = [name for option in TABLE for name in (option.name, option.alias) if name]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("arguments", [("--profile=api",), ("--profiles=api",), ("-o", "profile=api")])
def test_an_older_name_still_works(run: Run, project: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    assert run(PASSING, *arguments).ret == 0
    assert written(project)["run"]["profiles"] == ["api"]


def test_a_name_that_another_plugin_owns_is_left_to_it(run: Run, project: pytest.Pytester) -> None:
    project.syspathinsert()
    (project.path / "profiling.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--profile', action='store_true')"
    )
    assert run(PASSING, "-p", "profiling", "--profile", "--profiles=api").ret == 0
    assert written(project)["run"]["profiles"] == ["api"]


@pytest.mark.long
def test_a_name_of_an_installed_plugin_is_left_to_it_where_the_plugin_is_named_by_an_option(
    pytester: pytest.Pytester,
) -> None:
    """``-p`` loads the plugin before installed ones; what one of those owns must still be free then."""
    pytester.syspathinsert()
    pytester.makepyfile(profiling="def pytest_addoption(parser): parser.addoption('--profile', action='store_true')")
    early = ("-p", "fixtures.plugin.options", "-p", "profiling")
    shown = pytester.runpytest_subprocess(*early, "--profile", "--profiles=api", "--help")
    assert shown.ret == 0, shown.stderr.str()
    alone = pytester.runpytest_subprocess(*early[:2], "--profile=api", "--help")
    assert alone.ret == 0, alone.stderr.str()
    assert re.search(r"--profile=NAME.*\s+as --profiles", alone.stdout.str())


@pytest.mark.parametrize(("owner", "names"), OTHER_PLUGINS.items(), ids=list(OTHER_PLUGINS))
def test_no_name_belongs_to_a_plugin_that_is_much_used(owner: str, names: dict[str, str]) -> None:
    """What the most used plugins add to pytest, as of the versions in the file. Only an alias may have the same name."""
    assert not {f"--{option.name}" for option in TABLE} & set(names.get("options", "").split()), owner
    assert not {option.ini for option in TABLE} & set(names.get("ini", "").split()), owner
    assert not OWN_FIXTURES & set(names.get("fixtures", "").split()), owner


def config_of(**given: Any) -> Any:
    return SimpleNamespace(option=argparse.Namespace(**{f"kv_{name}": value for name, value in given.items()}))


def test_a_run_is_repeated_with_what_describes_its_subject() -> None:
    config = config_of(gpu=True, config=["a", "b"], engine_python="/x/python", run_dir="r", gate="core", seed=5, url=[])
    assert options.repeated(config) == ["--gpu", "--config=a", "--config=b", "--engine-python=/x/python"]
