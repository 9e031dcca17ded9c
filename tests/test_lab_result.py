"""What a run of the suite means for a fault."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from lab import other_load
from lab.catalogue.model import Fault, Healthy, Hook, ids
from lab.result import Result, compare
from lab.suite_run import Verdicts, read_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator


FAULT = Fault(
    "f", "inactive", "t", "s", Hook("drop-store"), ids("ACC-01 ACC-02"), allowed=ids("ACC-05"), not_judged=ids("LAT-01")
)


def verdicts(fired: str, not_judged: str = "LAT-01", errors: str = "", reason: str = "no counters") -> Verdicts:
    return Verdicts(
        dict.fromkeys(fired.split(), "why"),
        frozenset(),
        dict.fromkeys(not_judged.split(), reason),
        dict.fromkeys(errors.split(), "e"),
    )


@pytest.mark.parametrize(
    ("fired", "not_judged", "missed", "unrelated"),
    [
        ("ACC-01 ACC-02", "LAT-01", "", ""),
        ("ACC-01 ACC-02 ACC-05", "LAT-01", "", ""),
        ("ACC-01 ACC-02 ACC-08", "LAT-01", "", ""),
        ("ACC-01", "LAT-01", "ACC-02", ""),
        ("ACC-01 ACC-02 COR-01", "LAT-01", "", "COR-01"),
        ("", "LAT-01", "ACC-01 ACC-02", ""),
        ("ACC-01 ACC-02", "", "LAT-01", ""),
    ],
)
def test_a_fault_is_compared_with_what_fired(fired: str, not_judged: str, missed: str, unrelated: str) -> None:
    result = compare(FAULT, verdicts(fired, not_judged))
    assert (result.missed, result.unrelated) == (tuple(missed.split()), tuple(unrelated.split()))
    assert result.good == (not missed and not unrelated)


@pytest.mark.parametrize(
    ("reason", "others", "undecided"),
    [
        ("0.9 [0.6, 1.3]: too noisy to decide", 1.0, "ACC-02"),
        ("0.9 [0.6, 1.3]: too noisy to decide", 0.05, ""),
        ("no counters", 1.0, ""),
    ],
)
def test_a_fault_is_not_judged_where_others_kept_the_machine_busy(reason: str, others: float, undecided: str) -> None:
    """Only a measurement that others spoiled is not a miss: not one that is noisy by itself, nor one that lacks a fact."""
    result = compare(FAULT, verdicts("ACC-01", "LAT-01 ACC-02", reason=reason), others=others)
    assert (result.undecided, result.missed) == (tuple(undecided.split()), () if undecided else ("ACC-02",))
    assert (result.good, result.failed) == (False, not undecided)
    assert str(result).startswith("NOT JUDGED: " if undecided else "BAD: ")


def test_what_the_lab_itself_computes_is_not_the_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ten seconds all programs took 8 s of the one core that the lab may use, the lab 4 s of them and a child of it 1 s."""
    clock, machine, own, child = iter((100.0, 110.0)), iter((50.0, 58.0)), iter((10.0, 14.0)), iter((3.0, 4.0))

    def process(times: Iterator[float], *children: object) -> SimpleNamespace:
        return SimpleNamespace(
            cpu_times=lambda: SimpleNamespace(user=next(times), system=0.0, children_user=0.0, children_system=0.0),
            children=lambda recursive: list(children),
        )

    lab = process(own, process(child))
    spent = {"nice": 0.0, "system": 0.0, "irq": 0.0, "softirq": 0.0, "steal": 0.0}
    elsewhere = itertools.count(0.0, 9.0)

    def cores(percpu: bool) -> list[SimpleNamespace]:
        assert percpu
        return [SimpleNamespace(user=next(times), **spent) for times in (elsewhere, machine)]

    monkeypatch.setattr(other_load, "psutil", SimpleNamespace(cpu_times=cores, Process=lambda: lab, Error=psutil.Error))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1})
    monkeypatch.setattr(other_load, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert other_load.OtherLoad().cores() == pytest.approx(0.3)


def test_an_error_of_the_suite_is_never_good() -> None:
    assert not compare(FAULT, verdicts("ACC-01 ACC-02", errors="COR-01")).good
    assert not compare(Healthy("h", "t"), verdicts("", errors="COR-01")).good


def test_a_healthy_variant_has_to_be_silent() -> None:
    assert compare(Healthy("h", "t"), verdicts("")).good
    assert compare(Healthy("h", "t"), verdicts("COR-01")).unrelated == ("COR-01",)


def test_a_fault_that_was_not_seeded_is_never_good() -> None:
    result = Result("f", unproven="never acted")
    assert not result.good
    assert str(result) == "NOT SEEDED: never acted"


def test_verdicts_are_read_from_a_report() -> None:
    def entry(id_: str, verdict: str, judged: int = 1, errored: bool = False) -> dict[str, Any]:
        return {"id": id_, "verdict": verdict, "reason": "r", "errored": errored, "cases": {"judged": judged}}

    found = read_verdicts(
        {
            "requirements": [
                entry("ACC-01", "conformant"),
                entry("ACC-02", "non-conformant"),
                entry("CFG-08", "advisory"),
                entry("COR-01", "not judged", 0),
                entry("COR-02", "not judged", 0, errored=True),
            ]
        }
    )
    assert found.fired == {"ACC-02": "r", "CFG-08": "r"}
    assert found.not_judged == {"COR-01": "r", "COR-02": "r"}
    assert found.errors == {"COR-02": "r"}
    assert found.judged == ids("ACC-01 ACC-02 CFG-08")
