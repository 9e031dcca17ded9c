"""Both ways in which a wait shows itself: plain lines, and a live line on a terminal."""

from __future__ import annotations

import io
import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core import progress
from fixtures.core.progress import Progress
from fixtures.core.waiting import poll


def wait_for(out: io.StringIO, text: str) -> None:
    """Until the thread that shows a phase has shown it, however busy the machine."""
    poll(out.getvalue, lambda shown: text in shown, 10.0)


def test_a_plain_phase_says_when_it_begins_and_ends() -> None:
    out = io.StringIO()
    with Progress(out, live=False).phase("engine mistral-0: loading weights", deadline_s=300) as phase:
        phase.update("shard 1 of 2")
    first, last = out.getvalue().splitlines()
    assert first == "engine mistral-0: loading weights ... (at most 300 s)"
    assert re.fullmatch(r"engine mistral-0: loading weights: \d\.\d s", last)


def test_many_updates_make_few_plain_lines_and_the_latest_text_is_shown() -> None:
    out = io.StringIO()
    with Progress(out, live=False, every_s=0.2).phase("engine") as phase:
        for step in range(50):
            phase.update(f"step {step}")
            time.sleep(0.01)
    between = out.getvalue().splitlines()[1:-1]
    assert 1 <= len(between) < 25, "far fewer than updates, however busy the machine"
    assert all(re.match(r"engine \.\.\. \d s, step ", line) for line in between)


def test_a_plain_phase_shows_itself_even_while_its_owner_is_blocked() -> None:
    out = io.StringIO()
    with Progress(out, live=False, every_s=0.05).phase("engine"):
        wait_for(out, "engine ... ")
    assert len(out.getvalue().splitlines()) >= 3


@pytest.mark.parametrize("live", [False, True])
def test_a_failed_phase_says_so_with_what_was_seen_last(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    clock = iter((100.0, 107.4))  # at the begin, and at the end; a real one shows how busy the machine is
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def interrupted() -> None:
        with Progress(out, live=live).phase("engine") as phase:
            phase.update("[1/2] loading")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "engine: failed after 7 s ([1/2] loading)" in out.getvalue()


def test_a_live_phase_is_one_line_with_its_elapsed_time_and_leaves_one_line_behind() -> None:
    out = io.StringIO()
    with Progress(out, live=True).phase("engine [x]", deadline_s=300) as phase:
        phase.update("loading [1/2]")
        wait_for(out, "loading [1/2]")
    text = out.getvalue()
    assert "engine [x]: loading [1/2]" in text
    assert re.search(r"0:00:\d\d", text)
    assert "of at most 300 s" in text
    assert "\x1b[2K" in text  # the line is erased and drawn again
    assert len(re.findall(r"engine \[x\]: \d\.\d s", text)) == 1


def test_live_phases_can_be_nested_and_lines_printed_in_between() -> None:
    out = io.StringIO()
    shown = Progress(out, live=True)
    with shown.phase("stack"), shown.phase("engine"):
        shown.line("a [line] of its own")
    assert "a [line] of its own\n" in out.getvalue()


def test_the_half_line_of_another_program_is_ended_first() -> None:
    out = io.StringIO()
    shown = Progress(out, live=False, fresh_line=lambda: print(file=out))
    out.write("suite/test_x.py::test_y ")
    shown.line("engine environment: ready")
    assert out.getvalue() == "suite/test_x.py::test_y \nengine environment: ready\n"


@pytest.mark.parametrize("live", [False, True])
def test_a_table_is_shown_below_its_phase(live: Any) -> None:
    out = io.StringIO()
    table = [
        ("pod", "phase", "last event"),
        ("engine-0 [x]", "Pending", "Failed: no such image"),
        ("router", "Ready", ""),
    ]
    with Progress(out, live=live, every_s=0.05).phase("start-up") as phase:
        phase.update("1 of 2 pods ready", table=table)
        wait_for(out, "Failed: no such image")
    text = out.getvalue()
    for words in ("engine-0 [x]", "Pending", "Failed: no such image", "router", "Ready"):
        assert words in text
    assert ("last event" in text) is live
