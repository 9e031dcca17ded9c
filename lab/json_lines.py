"""Raw results as JSON lines: one dataclass a line, without what is as by default; several processes may append at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from fixtures.core.files import PUBLIC, append, make_folder, write_atomically

T = TypeVar("T")


def line_of(one: Any) -> str:
    """A dataclass as one line."""
    values = dataclasses.asdict(one)
    for known in dataclasses.fields(one):
        made = known.default_factory
        default = known.default if made is dataclasses.MISSING else made()
        if values[known.name] == default:
            del values[known.name]
    return json.dumps(values)


def read(path: Path, kind: type[T]) -> list[T]:
    """Every line of a file, the oldest first; none where there is no file."""
    if not path.exists():
        return []
    return [kind(**_with_tuples(json.loads(line))) for line in path.read_text().splitlines()]


def keep(path: Path, one: Any) -> None:
    """Append one."""
    make_folder(path.parent)
    with append(path, buffering=0) as file:
        file.write(f"{line_of(one)}\n".encode())


def write(path: Path, every: Iterable[Any]) -> None:
    """All of a file anew."""
    write_atomically(path, "".join(f"{line_of(one)}\n" for one in every), mode=PUBLIC)


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {name: _with_tuples(one) for name, one in value.items()}
    return value
