"""One table makes the options, their ini twins, the documents and the command that repeats a run."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.plugin import options
from fixtures.plugin.option_docs import DOCUMENT, README, document, main, readme
from fixtures.plugin.option_table import TABLE
from tests.verdict_sessions import PASSING, Run, written

pytest_plugins = ("pytester", "tests.verdict_sessions")


def test_the_documents_are_current() -> None:
    assert DOCUMENT.read_text() == document(), "run: python -m fixtures options"
    assert README.read_text() == readme(README.read_text()), "run: python -m fixtures options"
    assert all(f"`--{option.name}" in document() for option in TABLE)


def test_a_readme_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"README.md has no place for a table: <!-- options, written by"):
        readme("# Title\n")


def test_the_command_takes_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x"]) == 2
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


def config_of(**given: Any) -> Any:
    return SimpleNamespace(option=argparse.Namespace(**{f"kv_{name}": value for name, value in given.items()}))


def test_a_run_is_repeated_with_what_describes_its_subject() -> None:
    config = config_of(gpu=True, config=["a", "b"], engine_python="/x/python", run_dir="r", gate="core", seed=5, url=[])
    assert options.repeated(config) == ["--gpu", "--config=a", "--config=b", "--engine-python=/x/python"]
