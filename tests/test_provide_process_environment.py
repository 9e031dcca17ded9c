"""The variables of a stack, and where its files are kept."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.files import cache_dir
from fixtures.provide.process.environment import base_environment
from tests import small_wheels

if TYPE_CHECKING:
    from pathlib import Path

locks = small_wheels.locks
made = small_wheels.made
wheels = small_wheels.wheels


def test_the_callers_variables_do_not_reach_the_stack(
    made: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, env, _ = made
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "LMCACHE_CHUNK_SIZE", "VLLM_PORT", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "leaks")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    plain = base_environment(env.python)
    assert "leaks" not in plain.values()
    assert plain["CUDA_VISIBLE_DEVICES"] == "3"
    assert plain["PATH"].split(os.pathsep)[0] == str(env.python.parent)
    assert base_environment(env.python, extra_pythonpath=[tmp_path / "hook"])["PYTHONPATH"] == str(tmp_path / "hook")


def test_a_start_up_hook_runs_in_the_engine(made: Any, tmp_path: Path) -> None:
    _, env, _ = made
    (tmp_path / "sitecustomize.py").write_text("print('hooked')")
    hooked = base_environment(env.python, extra_pythonpath=[tmp_path])
    out = subprocess.run([env.python, "-c", ""], env=hooked, capture_output=True, text=True, check=True).stdout
    assert out == "hooked\n"


@pytest.mark.parametrize("given", [None, "~/elsewhere"])
def test_the_cache_is_the_users_and_can_be_moved(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("KV_OFFLOAD_CACHE", raising=False)
    if given:
        monkeypatch.setenv("KV_OFFLOAD_CACHE", given)
    folder = cache_dir()
    assert folder.is_absolute()
    assert folder.name == ("elsewhere" if given else "kv-offload-conformance")
