"""The Python files of the project."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("fixtures", "lab", "suite", "tests")
MODULES = {str(path.relative_to(ROOT)): path for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
