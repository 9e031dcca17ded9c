"""The commands of the documentation: which pages tell a reader what to do, and what their blocks and texts say."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.pages import PAGES, REPORTS, ROOT

WRITTEN = [page for page in PAGES if page not in REPORTS]
MANUAL = [page for page in WRITTEN if page.parent in (ROOT, ROOT / "docs")]
"""What tells a reader what to do; the other pages tell what was done."""
OWN = re.compile(r"pytest|tox|python3?|pip|ruff|mypy|lint-imports")
"""Programs whose commands are parsed by the project's tests."""
FOREIGN = re.compile(r"`((?:kubectl|helm|kind|minikube|docker|podman|npx|curl|jq|git|sudo|pre-commit) [^`]+)`")
VALUES = {"sudo microk8s helm"}
"""Of an option, and no command."""


def shell_lines(block: str) -> Iterator[str]:
    """The lines of a block for a shell, those that go on joined; without comments and the text of here-documents."""
    text = re.sub(r"(<<'(\w+)')\n.*?\n\s*\2$", r"\1", block, flags=re.DOTALL | re.MULTILINE)
    kept = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        kept = f"{kept}\n{line}".strip()
        with contextlib.suppress(ValueError):  # a quotation is not closed yet
            if shlex.split(kept, comments=True):
                yield kept
            kept = ""
    assert not kept, f"a quotation is not closed: {kept}"


def lines(page: Path) -> list[str]:
    """The command lines of a page: of its blocks for a shell, and those in its text."""
    text = page.read_text()
    found = [line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) for line in shell_lines(block)]
    inline = re.findall(r"`((?:pytest|python -m|tox -e|pip|mypy|ruff)\s[^`]+)`", text)
    if page in MANUAL:
        inline += [one for one in FOREIGN.findall(text) if len(one.split()) > 2 and one not in VALUES]
    return found + [" ".join(one.split()) for one in inline]


def commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without its variables and the brackets of what may be left out."""
    words = shlex.shlex(line.replace("[", "").replace("]", ""), posix=True, punctuation_chars="&|;")
    words.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("&|;"):
            found.append([])
        elif found[-1] or not re.match(r"^[A-Z_]+=", word):
            found[-1].append(word)
    return [one for one in found if one]


def program(words: Sequence[str]) -> str:
    """Name of the program, without the folder of an environment."""
    return Path(words[0]).name


def is_own(line: str) -> bool:
    """Whether every command of a line is one of `OWN`."""
    return all(OWN.fullmatch(program(one)) for one in commands(line))
