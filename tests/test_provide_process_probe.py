"""Adopting an interpreter: what it has, what is missing, which names its LMCache reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.provide.process.environment import CPU_PAIR, EngineEnv
from fixtures.provide.process.probe import adopt
from tests import small_wheels
from tests.small_wheels import site

locks = small_wheels.locks
made = small_wheels.made
offline = small_wheels.offline
wheels = small_wheels.wheels


# -- adopting ----------------------------------------------------------------------------------------------------------


def test_an_environment_of_the_users_own_is_adopted_as_it_is(made: Any) -> None:
    _, env, _ = made
    assert adopt(env.python) == env


@pytest.mark.parametrize(("cuda", "device"), [("None", "cpu"), ("'13.0'", "cuda")])
def test_the_device_is_what_torch_was_built_for(made: Any, cuda: str, device: str) -> None:
    folder, env, _ = made
    version = site(folder) / "torch" / "version.py"
    before = version.read_text()
    version.write_text(f"cuda: Optional[str] = {cuda}\n")
    try:
        assert adopt(env.python).device == device
    finally:
        version.write_text(before)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("python", "message"),
    [
        (lambda tmp: tmp / "absent", "/absent does not exist: set --engine-python"),
        (lambda tmp: tmp, "is a folder: set --engine-python to the interpreter in it, such as .*/bin/python"),
        (lambda tmp: script(tmp / "python", "#!/bin/sh\nexit 0\n"), "does not run as a Python interpreter"),
        (lambda tmp: script(tmp / "python", "#!/bin/sh\necho boom >&2; exit 3\n"), r"interpreter \(boom\)"),
        (lambda tmp: script(tmp / "python", ""), "does not run as a Python interpreter"),
        (lambda tmp: Path(sys.executable), r"\(Python 3\.\d+\.\d+\) has no vllm package: install it there, or omit"),
    ],
)
def test_an_interpreter_that_cannot_be_adopted_is_one_sentence(tmp_path: Path, python: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        adopt(python(tmp_path))


@pytest.mark.parametrize("name", ["vllm", "lmcache", "torch"])
def test_a_package_that_is_half_removed_is_missing(made: Any, name: str) -> None:
    folder, env, _ = made
    package, aside = site(folder) / name, folder.parent / "aside"
    package.rename(aside)
    package.mkdir()
    try:
        with pytest.raises(ConfigurationError, match=f"has no {name} package"):
            adopt(env.python)
    finally:
        package.rmdir()
        aside.rename(package)


# -- using -------------------------------------------------------------------------------------------------------------


def test_the_configuration_names_come_from_the_installed_lmcache_and_are_cached(
    made: Any, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, env, _ = made
    names = env.lmcache_config_keys()
    expected = {"LMCACHE_CHUNK_SIZE", "LMCACHE_LOCAL_CPU", "LMCACHE_OLD_NAME", "LMCACHE_EC_CHUNK_SIZE"}
    assert names == expected | {"LMCACHE_EC_LOCAL_CPU", "LMCACHE_EC_OLD_NAME", "LMCACHE_LOG_LEVEL"}
    monkeypatch.setattr(EngineEnv, "run", None)
    assert env.lmcache_config_keys() == names


def test_the_configuration_names_are_read_without_importing_what_serves(
    made: Any, offline: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, env, _ = made
    config = site(folder) / "lmcache" / "v1" / "config.py"
    before = config.read_text()
    config.write_text(before + "raise MemoryError('torch does not fit into what the limit of the container leaves')\n")
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    try:
        assert "LMCACHE_EC_OLD_NAME" in env.lmcache_config_keys()
    finally:
        config.write_text(before)


def test_an_lmcache_without_the_known_table_is_an_error(made: Any, offline: Path) -> None:
    folder, env, _ = made
    config = site(folder) / "lmcache" / "v1" / "config.py"
    before = config.read_text()
    config.write_text("")
    try:
        with pytest.raises(
            StackError, match=f"_CONFIG_DEFINITIONS.*use a version of LMCache close to {CPU_PAIR.lmcache}"
        ):
            env.lmcache_config_keys()
    finally:
        config.write_text(before)
