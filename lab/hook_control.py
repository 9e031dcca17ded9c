"""The hooks that seed faults inside of engine and cache server: copied for one stack, switched on and off by a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.catalogue.model import Hook

HOOKS = Path(__file__).parent / "hooks"


def copy_hooks(target: Path) -> Path:
    """The hooks in a folder of their own: the control file is beside them."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HOOKS, target, ignore=shutil.ignore_patterns("__pycache__", "*.json", "*.jsonl"))
    return target


def write_control(hooks: Path, id_: str, hook: Hook) -> None:
    """Switch a fault on."""
    _replace(hooks / "control.json", json.dumps({"id": id_, "hook": hook.name, "params": hook.params}))


def switch_off(hooks: Path) -> None:
    """No fault acts any more."""
    _replace(hooks / "control.json", "")


def acted(hooks: Path, id_: str) -> bool:
    """Whether a fault has acted, by its own word."""
    log = hooks / "fired.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return any(line["id"] == id_ and not line["what"].startswith("wrapped ") for line in lines)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
