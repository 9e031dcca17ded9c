"""What the documentation quotes is what the suite says, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_troubleshooting_quotes_what_the_suite_says() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "fixtures").rglob("*.py"))
    spoken = re.sub(r'"\s*\n\s*f?"', "", sources)
    rows = [
        line.split("|")[1] for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines() if line[:1] == "|"
    ]
    quoted = [words for row in rows for words in re.findall(r"\*([^*]+)\*", row)]
    assert len(quoted) > 5
    assert [words for words in quoted if words not in spoken] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Any) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in address or address.startswith(("#", "mailto:")):
            continue
        file, _, anchor = address.partition("#")
        target = (page.parent / file).resolve()
        assert target.exists(), f"{page.name} links to {address}, which is not there"
        if anchor and target.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page.name} links to {address}: {target.name} has no such heading"
