"""A values file with one model, loaded and rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.engine_command import EngineCommand
    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]


DATA = Path(__file__).parent / "data" / "values"


V1 = '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'


MODEL = """\
name: m
repository: lmcache/vllm-openai
tag: latest
modelURL: x/y
replicaCount: 1
requestCPU: 1
requestMemory: 1Gi
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "values.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def values_text(model: str = "", top: str = "", tail: str = "") -> str:
    """A values file of one model: lines of the model, lines below servingEngineSpec, lines at the top level."""
    spec = "".join(f"    {line}\n" for line in (MODEL + model).splitlines())
    shared = "".join(f"  {line}\n" for line in top.splitlines())
    return f"servingEngineSpec:\n{shared}  modelSpec:\n  -\n{spec}{tail}"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(model: str = "vllmConfig: {maxModelLen: 16384}", top: str = "", tail: str = "") -> Values:
        return load_values(write(tmp_path, values_text(model, top, tail)))

    return _load


@pytest.fixture
def render(load: Load) -> Render:
    return lambda *args, **kwargs: render_engine(load(*args, **kwargs))


def lmcache(**keys: Any) -> str:
    return f"vllmConfig: {{maxModelLen: 16384}}\nlmcacheConfig: {json.dumps({'enabled': True, **keys})}"


LAUGH = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
