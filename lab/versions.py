"""What vLLM and LMCache write, pair by pair: recordings from runs of the suite, and ``docs/versions.md``, made of them.

As a pytest plugin (``-p lab.versions``, by ``python -m lab.matrix --record FOLDER``) it keeps what the servers of a run wrote,
cut to one example of each shape: the metrics pages, and those lines of the logs that the suite reads. ``python -m
lab.versions`` writes the page: a table between every two pairs that follow each other.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from fixtures.core.places import DOCS, ROOT
from fixtures.core.redaction.redact import shorten
from fixtures.evidence.logs.lines import parse_line
from fixtures.evidence.logs.patterns import event_of
from fixtures.subject.metrics_pages import metrics_pages

if TYPE_CHECKING:
    import pytest

    from fixtures.subject.stack import Stack

RECORDINGS: Final = ROOT / "tests" / "data" / "evidence" / "pairs"
"""A folder for each pair, ``vllm-0.32.0-lmcache-0.5.6``, with two files for each program."""
DOCUMENT: Final = DOCS / "versions.md"
FOLDER_VARIABLE: Final = "KV_OFFLOAD_RECORD"
"""Where the plugin writes to."""
PROGRAMS: Final = {"engine": "the engine", "cache-server": "the cache server"}
_OWN: Final = ("vllm:", "lmcache")
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){3,4}|\b[0-9a-f]{12,}\b|-?\d+(?:[.,]\d+)*")
_WORD: Final = re.compile(r"(?<=[=:( '])(?:/|\$|~)[^\s',)]+|cmpl-[\w-]+")
_SUFFIX: Final = re.compile(r"_(?:bucket|count|sum|created)$")
_CONNECTOR: Final = "Creating v1 connector with name: "
_NOT_COMPARED: Final = ("EngineVersion", "Configuration")
"""Their lines hold versions and whole configurations."""
_ADDRESS: Final = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b")


@dataclass(frozen=True)
class Recording:
    """What one pair wrote: by program, names of metrics with their labels, and shapes of lines with an example."""

    metrics: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    lines: dict[str, dict[str, str]] = field(default_factory=dict)


def series_of(page: str) -> dict[str, tuple[str, ...]]:
    """The names of the metrics of a page that are the programs' own, each with its labels."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith(_OWN):
                found.setdefault(_SUFFIX.sub("", sample.name), set()).update(set(sample.labels) - {"le"})
    return {name: tuple(sorted(labels)) for name, labels in found.items()}


def cut_page(page: str) -> str:
    """A page with one series of each kind: no help, no buckets, no times, nothing of this machine."""
    kept, seen = [], set()
    for line in page.splitlines():
        name, _, labels = line.partition("{")
        if line.startswith("# TYPE ") and line.split()[2].startswith(_OWN):
            kept.append(line)
        elif line.startswith(_OWN) and not name.split()[0].endswith(("_bucket", "_created")):
            source = re.search(r'(?:source|reason|transfer_type)="[^"]*"', labels)
            kind = (name.split()[0], source[0] if source else "")
            if kind not in seen:
                seen.add(kind)
                kept.append(shorten(line))
    return "\n".join(kept) + "\n"


def shape(text: str) -> str:
    """A message without what differs from line to line.

    >>> shape("[req_id=cmpl-7a-0] Retrieved 512 out of 512 required tokens (from 513 total tokens). cost 1.5 ms")
    '[req_id=N] Retrieved N out of N required tokens (from N total tokens). cost N ms'
    """
    return " ".join(_NUMBER.sub("N", _WORD.sub("N", text)).split())


def _read(text: str) -> Iterator[tuple[str, str, str]]:
    """The line, what it is, and its message, of each line that says something to the suite."""
    for raw in text.splitlines():
        line = parse_line(raw)
        if (event := event_of(line, raw)) is not None:
            yield raw, type(event).__name__, line.message
        elif line.message.startswith(_CONNECTOR):
            yield raw, "Connector", line.message
        elif line.level in ("ERROR", "WARNING") and line.program == "lmcache":
            yield raw, line.level.capitalize(), line.message


def cut_log(text: str) -> str:
    """The first line of each shape of those that say something to the suite, as they are, without this machine's folders."""
    kept: dict[str, str] = {}
    for raw, kind, message in _read(text):
        kept.setdefault(f"{kind}: {shape(message)[:80]}", _ADDRESS.sub("127.0.0.1", shorten(raw)))
    return "\n".join(kept.values()) + "\n"


def lines_of(text: str) -> dict[str, str]:
    """The shapes of the lines of a log that say something to the suite, each with what it is."""
    found: dict[str, str] = {}
    for _, kind, message in _read(text):
        if kind not in _NOT_COMPARED:
            found.setdefault(shape(message), kind)
    return found


def read(folder: Path) -> Recording:
    """The recording of a pair."""
    found = Recording()
    for program in PROGRAMS:
        page, log = folder / f"{program}.metrics.txt", folder / f"{program}.log"
        if page.is_file():
            found.metrics[program] = series_of(page.read_text(encoding="utf-8"))
        if log.is_file():
            found.lines[program] = lines_of(log.read_text(encoding="utf-8"))
    return found


def versions(name: str) -> tuple[str, str]:
    """The versions of vLLM and LMCache of a folder's name."""
    found = re.fullmatch(r"vllm-([\d.]+)-lmcache-([\d.]+)", name)
    if found is None:
        raise ValueError(f"{name}: not the name of a pair, such as vllm-0.32.0-lmcache-0.5.6")
    return found[1], found[2]


def _order(name: str) -> tuple[list[int], ...]:
    return tuple([int(part) for part in version.split(".")] for version in versions(name))


def changes(old: Recording, new: Recording) -> Iterator[tuple[str, str, str]]:
    """Where, what (a metric or a line) and how it changed, from one pair to the next."""
    for program, words in PROGRAMS.items():
        before, after = old.metrics.get(program, {}), new.metrics.get(program, {})
        for name in sorted({*before, *after}):
            if name not in before:
                yield words, f"metric `{name}`", f"new, labels {_listed(after[name])}"
            elif name not in after:
                yield words, f"metric `{name}`", "gone"
            elif before[name] != after[name]:
                more, fewer = (sorted({*after[name]} - {*before[name]}), sorted({*before[name]} - {*after[name]}))
                said = [f"{word} {_listed(found)}" for word, found in (("new", more), ("gone", fewer)) if found]
                yield words, f"metric `{name}`", f"labels: {'; '.join(said)}"
        was, now = old.lines.get(program, {}), new.lines.get(program, {})
        for text in sorted({*was, *now}, key=lambda one: ((was | now)[one], one)):
            if (text in was) != (text in now):
                yield words, f"line `{_cell(text)}`", "new" if text in now else "gone"


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(f"`{one}`" for one in labels) or "none"


def _cell(text: str) -> str:
    text = text.replace("|", "\\|").replace("`", "'")
    return text if len(text) <= 160 else f"{text[:157]}..."


def document(recordings: dict[str, Recording]) -> str:
    """The text of `DOCUMENT`."""
    names = sorted(recordings, key=_order)
    lines = [
        "# What changed between versions",
        "",
        "<!-- Generated from tests/data/evidence/pairs by: python -m lab.versions -->",
        "",
        "What the suite reads of vLLM and LMCache (CPU build, multi-process connector), and how each pair of versions differs",
        "from the one before it: in its metrics (`vllm:`, `lmcache`) and in its log lines, in which N stands for what differs",
        "from line to line. The recordings are of the runs whose reports are in",
        "[compatibility](compatibility.md). What appears only with an event that did not happen in these runs is not in them.",
        "",
        "| pair | metrics of the engine | metrics of the cache server | shapes of lines |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        one = recordings[name]
        counts = [str(len(one.metrics.get(program, {}))) for program in PROGRAMS]
        lines.append(f"| {_pair(name)} | {' | '.join(counts)} | {sum(map(len, one.lines.values()))} |")
    for old, new in itertools.pairwise(names):
        lines += ["", f"## {_pair(old)} to {_pair(new)}", ""]
        found = list(changes(recordings[old], recordings[new]))
        lines += ["| of | what | change |", "| --- | --- | --- |"] if found else ["Nothing."]
        lines += [f"| {' | '.join(row)} |" for row in found]
    return "\n".join(lines) + "\n"


def _pair(name: str) -> str:
    return " with ".join(
        f"{program} {version}" for program, version in zip(("vLLM", "LMCache"), versions(name), strict=True)
    )


def recordings(folder: Path = RECORDINGS) -> dict[str, Recording]:
    """The recordings of a folder, by pair."""
    return {one.name: read(one) for one in sorted(folder.iterdir()) if one.is_dir()}


def write(folder: Path, program: str, page: str, log: str) -> None:
    """Keep what a program wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{program}.metrics.txt").write_text(cut_page(page), encoding="utf-8")
    (folder / f"{program}.log").write_text(cut_log(log), encoding="utf-8")


# --- the plugin -------------------------------------------------------------------------------------------------------

_known: dict[str, Stack] = {}


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Keep the stack that the tests use; after the last one, record it."""
    stack = getattr(item, "funcargs", {}).get("stack")
    if stack is not None:
        _known["stack"] = stack
    if nextitem is None and "stack" in _known:
        record(_known.pop("stack"), Path(os.environ[FOLDER_VARIABLE]))


def record(stack: Stack, folder: Path) -> None:
    """Write what the first engine and its cache server wrote so far."""
    pages = metrics_pages(stack)
    for program, servers in (("engine", stack.record.engines), ("cache-server", stack.record.cache_servers)):
        for server in servers[:1]:
            log = server.log.read_text(encoding="utf-8", errors="replace") if server.log else ""
            write(folder, program, pages[server.name], log)


def main(arguments: Iterable[str]) -> int:
    """Write `DOCUMENT` again."""
    if list(arguments):
        print(f"python -m lab.versions takes no arguments; it writes {DOCUMENT}", file=sys.stderr)
        return 2
    DOCUMENT.write_text(document(recordings()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
