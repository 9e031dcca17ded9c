"""What the documentation quotes is what the suite says; its links, its index and its commands are right."""

from __future__ import annotations

import configparser
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.__main__ import COMMANDS
from fixtures.catalogue.profiles import ON_REQUEST
from fixtures.catalogue.requirements import REQUIREMENTS

ROOT = Path(__file__).parents[1]
EMBEDDED = "configs/embedded/values.yaml"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BY_A_RUN = re.compile(r"# KV-cache offload conformance\n\n(Gate on .*\n\n)?(\*\*|> \*\*Interrupted)")
REPORTS = {path for path in PAGES if BY_A_RUN.match(path.read_text())}
"""Written by runs, as they were."""
WHERE_RUN = {
    "docs/ci.md": "## Where this was run",
    "docs/clusters.md": "## Where this was run",
    "docs/defects/dashboard-cache-hit-rate.md": "The engine was a stand-in",
    "docs/defects/in-process-cache-salt.md": "This form was not run",
    "docs/evidence/node.md": "Seen on 2026-11-28",
    "docs/reading-a-report.md": "Both commands were run with Node.js 20",
}
"""Pages with commands of other programs, and the words with which each says where those were run."""
OWN_PROGRAMS = re.compile(r"^(\S*/)?(pytest|tox|python3?|pip)\s")
"""Those of the README are run by CI, pip's by the test of the wheel."""


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


def commands(page: Path) -> list[str]:
    """The command lines of a page: of its shell blocks, without comments, and pytest's in tables."""
    text = page.read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    lines += re.findall(r"`((?:pytest|python -m|tox -e) [^`]+)`", text)
    split = [one.strip() for line in lines for one in re.split(r" && | *\|\| *|(?:^|\s)#.*$", line)]
    return [one for one in split if one]


def problem(command: str, known_options: set[str]) -> str | None:
    """What is wrong with a command line of this project; None: nothing, or another program's."""
    if not OWN_PROGRAMS.match(re.sub(r"^([A-Z_]+=\S* )*", "", command)):
        return None
    words = shlex.split(command.replace("[", "").replace("]", ""))
    words = [word for word in words if not re.match(r"^[A-Z_]+=", word)]
    program = Path(words[0]).name if words else ""
    if program == "pytest":
        options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        return f"no such option: {sorted(options - known_options)}" if options - known_options else None
    if program == "tox" and "-e" in words:
        tox = configparser.ConfigParser()
        tox.read(ROOT / "tox.ini")
        environment = words[words.index("-e") + 1]
        return None if f"testenv:{environment}" in tox else f"no such environment: {environment}"
    if program.startswith("python") and words[1:2] == ["-m"]:
        module = words[2]
        if module in ("fixtures", "kv_offload_conformance"):
            return None if len(words) < 4 or words[3] in COMMANDS | {"COMMAND": ()} else f"no such command: {words[3]}"
        return None if module == "venv" or importlib.util.find_spec(module) else f"no such module: {module}"
    return None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in REPORTS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_of_the_pages_exist(page: Path, pytestconfig: pytest.Config) -> None:
    """Every command of this project is one; those of other programs are on pages that say where they were run."""
    known = {name for option in pytestconfig._parser._anonymous.options for name in option.names()}
    known |= {name for group in pytestconfig._parser._groups for option in group.options for name in option.names()}
    found = commands(page)
    assert [f"{one}: {wrong}" for one in found if (wrong := problem(one, known))] == []
    foreign = [one for one in found if not OWN_PROGRAMS.match(re.sub(r"^([A-Z_]+=\S* )*", "", one))]
    said = WHERE_RUN.get(str(page.relative_to(ROOT)))
    assert not foreign or (said is not None and said in page.read_text()), f"say where these were run: {foreign}"


DASHBOARD = "tests/data/dashboard.json"
EXAMPLES = {
    "NS": "ns",
    "R": "r",
    "values.yaml": EMBEDDED,
    "path/to/values.yaml": EMBEDDED,
    "FILE": DASHBOARD,
    "helm/dashboards/vllm-dashboard.json": DASHBOARD,
}
"""What stands for a word that the reader replaces; commands with ``...`` are left out."""
SUITE_COMMANDS = sorted(
    {one for page in PAGES if page not in REPORTS for one in commands(page) if one.startswith("pytest suite ")}
)


@pytest.mark.long
@pytest.mark.parametrize("command", [one for one in SUITE_COMMANDS if "..." not in one])
def test_a_command_of_the_pages_selects_tests(command: str) -> None:
    words = [EXAMPLES.get(word, word) for word in shlex.split(command)]
    call = [sys.executable, "-m", *words, "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("pytest suite --gpu --no-such", "--no-such"),
        ("tox -e no-such", "no-such"),
        ("python -m fixtures no-such", "no-such"),
        ("python -m no_such", "no_such"),
        (".venv/bin/tox -e lab -- --list", None),
    ],
)
def test_a_wrong_command_is_found(command: str, wrong: str | None) -> None:
    assert wrong is None or wrong in (problem(command, {"--gpu"}) or "")
    assert wrong is not None or problem(command, set()) is None
