"""Values that are loaded or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.keys import of_version
from fixtures.provide.values.loading import load_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]


MODEL: dict[str, Any] = {
    "name": "m",
    "repository": "r",
    "tag": "t",
    "modelURL": "x/y",
    "replicaCount": 1,
    "requestCPU": 1,
    "requestMemory": "1Gi",
}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def _load(
        over: dict[str, Any] | str, *, version: str | None = None, sets: tuple[str, ...] = (), **more: Any
    ) -> Any:
        path = tmp_path / "values.yaml"
        text = over if isinstance(over, str) else yaml.safe_dump(over)
        path.write_text(text, encoding="utf-8")
        keys = more.pop("keys", of_version(version))
        return load_values(path, sets=sets, keys=keys, **more)

    return _load


def values(model: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    engines = {"modelSpec": [MODEL | (model or {})]} | top.pop("servingEngineSpec", {})
    return {"servingEngineSpec": engines, **top}


def refusal(load: Load, over: Any, **more: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(over, **more)
    return str(error.value)
