"""What the documentation quotes is what the suite says; its links and its index are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.catalogue.profiles import ON_REQUEST
from fixtures.catalogue.requirements import REQUIREMENTS
from tests.pages import PAGES, REPORTS, ROOT


def test_the_words_are_those_of_the_field() -> None:
    """Subject, noun, present tense: who does something is named."""
    vague = re.compile(r"\b(somebody|nobody|anybody|someone|anyone)\b", re.IGNORECASE)
    places = [path for name in ("fixtures", "suite", "lab", "configs", "deploy") for path in (ROOT / name).rglob("*")]
    texts = [path for path in places if path.suffix in {".py", ".yaml", ".j2"}]
    texts += [page for page in PAGES if page not in REPORTS and page.name not in {"compatibility.md"}]
    assert [f"{path.name}: {found}" for path in texts if (found := vague.findall(path.read_text()))] == []


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
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in address or address.startswith("mailto:"):
            continue
        file, _, anchor = address.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {address}, which is not there"
        if anchor and target.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page.name} links to {address}: {target.name} has no such heading"


@pytest.mark.parametrize("folder", ["docs", "docs/evidence", "docs/defects"])
def test_the_index_of_a_folder_lists_every_page(folder: str) -> None:
    index = (ROOT / folder / "README.md").read_text()
    pages = {path.name for path in (ROOT / folder).glob("*.md")} - {"README.md"}
    assert sorted(name for name in pages if f"({name})" not in index) == []


def test_a_defect_is_reproduced_in_thirty_lines_without_the_suite() -> None:
    folder = ROOT / "docs/defects"
    pages = "\n".join(page.read_text() for page in folder.glob("*.md"))
    for script in folder.glob("*.py"):
        text = script.read_text()
        compile(text, script.name, "exec")
        assert len(text.splitlines()) <= 30, script.name
        assert f"({script.name})" in pages, f"no page shows {script.name}"
        assert not re.search(r"import (fixtures|lab|suite)\b|from (fixtures|lab|suite)\b", text)


def test_every_picture_is_small_and_shown() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for picture in ROOT.glob("docs/**/*.png"):
        assert picture.stat().st_size < 150_000, picture.name
        assert f"images/{picture.name}" in text, picture.name


def test_the_readme_has_a_table_of_contents() -> None:
    text = (ROOT / "README.md").read_text()
    heads = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert re.findall(r"^- \[(.+)\]\(#", text, flags=re.MULTILINE) == heads


def test_the_readme_counts_the_requirements_of_a_default_run() -> None:
    text = (ROOT / "README.md").read_text()
    by_default = [one for one in REQUIREMENTS.values() if not one.planned and not ON_REQUEST.intersection(one.profiles)]
    on_request = sum(not one.planned for one in REQUIREMENTS.values()) - len(by_default)
    told = re.search(r"^conformance: (.*) not applicable; (\d+) not run$", text, flags=re.MULTILINE)
    assert told
    counted = (sum(map(int, re.findall(r"\d+", told[1]))), int(told[2]))
    assert counted == (len(by_default), on_request), (
        "the line `conformance: ...` of README.md adds up to something else"
    )
    assert f"judges {len(by_default) - int(told[1].split()[-1])} requirements" in text, "README.md, above that sample"
