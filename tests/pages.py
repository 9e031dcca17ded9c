"""The pages of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BY_A_RUN = re.compile(r"# KV-cache offload conformance\n\n(Gate on .*\n\n)?(\*\*|> \*\*Interrupted)")
REPORTS = {path for path in PAGES if BY_A_RUN.match(path.read_text())}
"""Written by runs, as they were."""
