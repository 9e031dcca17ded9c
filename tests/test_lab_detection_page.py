"""The page of detection, and the tries that it shows."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from lab import history, quality
from lab.catalogue import FAULTS, HEALTHY
from lab.detection_page import detection, how
from lab.history import Try
from lab.quality import TRIES
from lab.result import Result, compare
from lab.seeding_subject import ROOT
from lab.suite_run import Verdicts
from tests.lab_tries import IDS, VERSIONS

if TYPE_CHECKING:
    from pathlib import Path


def tried(result: Result, when: str = "2026-01-02T03:04:05Z") -> Try:
    return dataclasses.replace(Try.of(result, VERSIONS, "0123456789abcdef"), when=when)


def all_good() -> list[Try]:
    results = [
        compare(
            fault,
            Verdicts(dict.fromkeys(fault.expected, "r"), frozenset(), dict.fromkeys(fault.not_judged, "r"), {}),
            1.0,
        )
        for fault in FAULTS
    ]
    results += [compare(variant, Verdicts({}, frozenset(), {}, {}), 2.0) for variant in HEALTHY]
    return [tried(one) for one in results]


def test_the_page_is_the_same_for_the_same_tries() -> None:
    page = detection(all_good(), FAULTS, HEALTHY)
    assert page == detection(all_good(), FAULTS, HEALTHY)
    total = len(FAULTS) + len(HEALTHY)
    assert f"**Faults caught at the last try: {len(FAULTS)} of {len(FAULTS)} seeded ({len(FAULTS)} are in the" in page
    assert f"False alarms: 0 in {len(HEALTHY)} healthy runs. All tries that are kept: {total} of {total} as" in page
    assert all(f"`{id_}`" in page for id_ in IDS)
    assert page.count("| caught | 1 of 1, 2026-01-02 |") == len(FAULTS)


def test_both_pages_count_the_same_tries() -> None:
    shown = (ROOT / "docs" / "detection.md").read_text()
    last = re.search(r"\| a CPU \| last \| (\d+ of \d+)", quality.page())
    assert last is not None
    for page in (quality.page(), shown):
        assert history.left_out(history.read(TRIES), {one.id for one in FAULTS}) in page
    assert f"Faults caught at the last try: {last[1]} seeded" in shown


def test_the_page_shows_the_last_try_and_counts_all_of_them() -> None:
    first, *others = FAULTS[:2]
    missed = tried(Result(first.id, missed=("ACC-01",)), "2026-01-01T00:00:00Z")
    seen = tried(Result(first.id, fired=dict.fromkeys(first.expected, "r")))
    page = detection([missed, seen], FAULTS, ())
    assert "| caught | 1 of 2, 2026-01-02 |" in page
    assert "Faults caught at the last try: 1 of 1 seeded" in page
    assert "**missed: ACC-01** | 0 of 1, 2026-01-01 |" in detection([missed], FAULTS, ())
    assert "| not seeded | 0 of 1" in detection([tried(Result(first.id, unproven="why"))], FAULTS, ())
    assert f"`{others[0].id}`" in page
    assert "| not run |  |" in page


def test_tries_are_kept_as_lines_and_merged_once(tmp_path: Path) -> None:
    here, kept = tmp_path / "cache" / "tries.jsonl", tmp_path / "lab.jsonl"
    tries = [
        tried(Result("a", {"COR-01": "/a/path"}, seconds=1.0)),
        tried(Result("b", unproven="why"), "2026-01-01T00:00:00Z"),
    ]
    for one in tries:
        history.keep(here, one)
    assert history.read(here) == tries
    assert history.merge(kept, history.read(here)) == tries[::-1]
    assert history.merge(kept, history.read(here)) == history.read(kept) == tries[::-1]
    assert "/a/path" not in kept.read_text()
    assert history.read(tmp_path / "none") == []


def test_the_tries_that_the_project_keeps_can_be_read() -> None:
    tries = history.read(TRIES)
    assert {one.id for one in tries} >= {"store-dropped", "as-published"}
    assert any(one.on_gpu for one in tries)


def test_the_page_shows_the_tries_that_the_project_keeps() -> None:
    """``python -m lab --page`` writes it."""
    tries = [one for one in history.read(TRIES) if not one.on_gpu]
    assert detection(tries, FAULTS, HEALTHY) == TRIES.parents[1].joinpath("detection.md").read_text()


def test_every_injection_has_words() -> None:
    for fault in FAULTS:
        assert how(fault.injection)
    assert how(None) == "nothing"
