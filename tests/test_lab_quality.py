"""The page on the quality of the suite, and the raw results that it shows."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged
from lab import healthy_runs, json_lines, mutants, quality
from lab.healthy_runs import HealthyRun
from lab.mutants import Mutant, Place
from lab.power import picture, samples, simulate
from lab.power.simulate import VERDICTS, Curve
from lab.power.world import worlds
from lab.suite_run import Verdicts

if TYPE_CHECKING:
    from lab.power.verdict import Verdict
    from lab.power.world import World

RUN = HealthyRun("2026-01-02T03:04:05Z", "nothing", 0.1, "0123456789ab", "0.32.0", "0.5.6", "a CPU", 2, 150.0, 47)
WORLDS = {world.name: world for world in worlds(samples.read())}
SIMULATED = [(one, world) for one in VERDICTS for world in WORLDS.values() if world.has(*one.needs)]


def test_the_page_and_its_picture_show_the_results_that_are_kept() -> None:
    assert quality.PAGE.read_text() == quality.page(), "python -m lab --page writes it anew"
    assert quality.PICTURE.read_text() == picture.svg(simulate.read())


@pytest.mark.parametrize(
    ("found", "of", "text"),
    [(162, 164, "162 of 164: 98.8 % [95.7, 99.9]"), (0, 9, "0 of 9: 0.0 % [0.0, 33.6]"), (0, 0, "none")],
)
def test_shares_have_their_number_and_interval(found: int, of: int, text: str) -> None:
    assert quality.share(found, of) == text


def test_results_are_the_same_after_they_were_kept(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "runs.jsonl"
    assert json_lines.read(path, HealthyRun) == []
    for one in (RUN, dataclasses.replace(RUN, fired=("LAT-09",))):
        json_lines.keep(path, one)
    assert json_lines.read(path, HealthyRun) == [RUN, dataclasses.replace(RUN, fired=("LAT-09",))]
    recorded = samples.read()
    json_lines.write(path, recorded)
    assert json_lines.read(path, samples.Samples) == recorded


# --- healthy runs -----------------------------------------------------------------------------------------------------


def test_the_machine_is_left_alone_and_kept_busy_in_turn() -> None:
    runs: list[HealthyRun] = []
    for _ in range(2 * len(healthy_runs.BESIDE)):
        runs.append(dataclasses.replace(RUN, beside=healthy_runs.next_beside(runs)))
    assert [one.beside for one in runs] == [*healthy_runs.BESIDE, *healthy_runs.BESIDE]


def test_a_run_beside_which_others_computed_is_not_quiet() -> None:
    assert RUN.quiet
    assert not dataclasses.replace(RUN, others=0.7).quiet
    assert not dataclasses.replace(RUN, beside="one core taken").quiet
    assert healthy_runs.in_words(dataclasses.replace(RUN, fired=("LAT-09",))).startswith(
        "false alarms: LAT-09, 47 judged"
    )


@pytest.mark.parametrize("beside", list(healthy_runs.BESIDE))
def test_what_the_lab_does_beside_a_run_is_over_with_it(beside: str) -> None:
    with healthy_runs.BESIDE[beside]():
        pass


class FakeRunner:
    def __init__(self, folder: Path, suite: str = "0123456789abcdef") -> None:
        self.folder, self.sources, self.compared = folder, suite, frozenset[str]()
        self.versions = {"vllm": "0.32.0", "lmcache": "0.5.6", "on": "a CPU"}


class FakeLane:
    """Its first stack is not healthy any more after a run."""

    def __init__(self, *_: object) -> None:
        self.stacks = self.dropped = 0

    def bench_with(self, _: object) -> SimpleNamespace:
        self.stacks += 1
        return SimpleNamespace(record_path=Path("record.json"), restore=lambda: self.stacks > 1)

    def drop(self) -> None:
        self.dropped += 1


def test_healthy_runs_go_on_where_the_last_call_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another suite do not count; a stack that is not healthy any more is replaced."""
    path, lanes, asked = tmp_path / "healthy.jsonl", list[FakeLane](), list[str]()
    monkeypatch.setattr(healthy_runs, "Lane", lambda *_: lanes.append(FakeLane()) or lanes[-1])
    monkeypatch.setattr(healthy_runs, "BESIDE", dict.fromkeys(healthy_runs.BESIDE, contextlib.nullcontext))
    found = Verdicts({"LAT-09": "why"}, frozenset({"LAT-01", "LAT-09"}), {"LAT-04": "noisy"}, {})
    monkeypatch.setattr(healthy_runs, "judge", lambda *_, cases, **__: asked.append(cases) or found)
    json_lines.keep(path, dataclasses.replace(RUN, suite="another"))
    json_lines.keep(path, RUN)
    runner: Any = FakeRunner(tmp_path)
    runs = healthy_runs.repeat(runner, 3, path)
    assert [one.beside for one in runs] == list(healthy_runs.BESIDE)[:3]
    assert asked == ["slow", "slow"]
    assert (runs[-1].fired, runs[-1].judged, runs[-1].not_judged) == (("LAT-09",), 2, ("LAT-04",))
    assert json_lines.read(path, HealthyRun)[1:] == runs
    assert lanes[0].dropped == 2, "after the first run, and at the end"
    assert healthy_runs.repeat(runner, 3, path) == runs
    assert len(asked) == 2
    assert healthy_runs.repeat(runner, 9, path, minutes=0.0) == runs


# --- mutants ----------------------------------------------------------------------------------------------------------


MEANT = """from __future__ import annotations
if TYPE_CHECKING:
    import a
PAUSE_S, LONG_S = 2.0, 60 * 5.0
HALF = 0.5
def f(x: int | None = 1) -> int:
    assert x == "a" or x is not y, f"{x[:300]} {x[:3]}"
    return x
if __name__ == "__main__":
    f(7)
"""


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("int | None", "int & None"),
        ("-> int", "-> str"),
        ('== "a"', 'is "a"'),
        ("2.0", "3.0"),
        ("60 *", "60 +"),
        ("300", "301"),
        ("300", "~300"),
        ("f(7)", "f(8)"),
    ],
)
def test_a_change_that_no_run_shows_or_without_a_right_value_is_none(was: str, becomes: str) -> None:
    assert was in MEANT
    assert mutants.meaning(MEANT) == mutants.meaning(MEANT.replace(was, becomes))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("= 1", "= 2"),
        ("0.5", "0.6"),
        ("[:3]", "[:4]"),
        ("is not y", "!= y"),
        ('== "a"', '!= "a"'),
        ('== "a"', '<= "a"'),
    ],
)
def test_any_other_change_is_one(was: str, becomes: str) -> None:
    assert was in MEANT
    assert mutants.meaning(MEANT) != mutants.meaning(MEANT.replace(was, becomes))


def test_a_change_is_tried_with_the_tests_that_import_the_module_then_with_those_of_its_importers() -> None:
    first, second = mutants.tests_of("fixtures/instruments/shares.py")
    assert "tests/test_instruments_shares.py" in first
    assert "tests/test_experiments_router_cost.py" not in first
    assert {*first, "tests/test_experiments_router_cost.py"} <= set(second)


@pytest.mark.parametrize(("passes", "outcome"), [(True, "survived"), (False, "noticed")])
def test_a_mutant_is_what_its_tests_say(
    passes: bool, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a copy of a project of one module and one test."""
    root = tmp_path / "project"
    (root / "fixtures").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "fixtures" / "one.py").write_text("def of(x):\n    return x + 1\n")
    (root / "tests" / "test_one.py").write_text(
        "from fixtures.one import of\n\ndef test_of():\n    assert of(2) == 3\n"
    )
    (root / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(mutants, "ROOT", root)
    mutants._importers.cache_clear()
    try:
        shop = mutants.Workshop(tmp_path / "copy")
        place = Place("fixtures/one.py", "core/ReplaceBinaryOperator_Add_Mul", 0)
        new = "def of(x):\n    return x * 1\n" if not passes else "def of(x):\n    return 1 + x\n"
        found = shop.try_out(place, new, 7)
        assert (found.outcome, found.was, found.seed) == (outcome, "return x + 1", 7)
        assert found.by == ("tests/test_one.py",)
        assert (tmp_path / "copy" / "fixtures" / "one.py").read_text() == (root / "fixtures" / "one.py").read_text()
    finally:
        mutants._importers.cache_clear()


def test_what_survived_is_found_again_until_it_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes are cosmic-ray's (tox -e mutants installs it)."""
    pytest.importorskip("cosmic_ray")
    module = tmp_path / "fixtures" / "evidence" / "one.py"
    module.parent.mkdir(parents=True)
    module.write_text("def of(x: int | None) -> bool:\n    return x == 1\n")
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    drawn = {mutants.key_of(place, new) for place, new in mutants.sample(100, 1)}
    assert ("fixtures/evidence/one.py", "return x == 1", "return x != 1") in drawn
    assert not any("None" in was for _, was, _ in drawn), "annotations mean nothing"
    assert list(mutants.sample(3, 1)) == list(mutants.sample(3, 1))
    open_case = Mutant("fixtures/evidence/one.py", "return x == 1", "return x != 1", "Eq", "survived", (), 1.0, 1)
    gone = dataclasses.replace(open_case, was="return x == 3")
    assert len(list(mutants.survivors([open_case, gone]))) == 1
    assert not list(mutants.survivors([dataclasses.replace(open_case, why="the same")]))
    assert not list(mutants.survivors([open_case, dataclasses.replace(open_case, outcome="noticed")]))


def test_every_survivor_that_is_kept_has_a_reason() -> None:
    kept = {one.key: one for one in mutants.read()}
    assert [one.key for one in kept.values() if one.outcome == "survived" and not one.why] == []
    assert all(isinstance(one, Mutant) for one in kept.values())


# --- power ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "world"), SIMULATED, ids=[f"{verdict.name}-{world.name}" for verdict, world in SIMULATED]
)
def test_no_healthy_subject_fails_and_none_far_beyond_the_gate_passes(verdict: Verdict, world: World) -> None:
    found = simulate.curve(verdict, world, 12, (0.0, 3.0))
    assert found.failed[0] == 0
    assert found.passed[1] == 0


def test_the_same_simulation_gives_the_same_curve() -> None:
    verdict = next(one for one in VERDICTS if one.name == "LAT-06")
    world = next(iter(WORLDS.values()))
    assert simulate.curve(verdict, world, 20) == simulate.curve(verdict, world, 20)


@pytest.mark.parametrize(("raised", "found"), [(AssertionError, "failed"), (NotJudged, "undecided"), (None, "passed")])
def test_what_a_test_raises_is_its_verdict(raised: type[Exception] | None, found: str) -> None:
    def judge(*_: object) -> None:
        if raised is not None:
            raise raised("why")

    verdict = dataclasses.replace(VERDICTS[0], judge=judge)
    assert simulate.judged_once(verdict, next(iter(WORLDS.values())), random.Random(1), 0.0) == found


def test_every_verdict_that_is_wrong_too_often_is_bold_on_the_page() -> None:
    at = simulate.DISTANCES
    good = Curve("LAT-01", "effect", "world", 1000, at, (0, 0, 0, 10, 500, 900, 990, 990, 1000), (1000, *[0] * 8))
    bad = dataclasses.replace(good, failed=(0, 0, 0, 11, *good.failed[4:]), passed=(900, *[0] * 6, 11, 0))
    assert "**" not in "".join(quality._power_row(good))
    assert "".join(quality._power_row(bad)).count("**") == 4


def test_curves_that_are_simulated_anew_replace_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    old = Curve(VERDICTS[1].name, "effect", "w", 10, (0.0,), (1,), (9,))
    other = dataclasses.replace(old, verdict=VERDICTS[0].name)
    simulate.keep([old, dataclasses.replace(old, verdict="no longer a verdict")], path)
    new = dataclasses.replace(old, runs=20)
    simulate.keep([new, other], path)
    assert simulate.read(path) == [other, new]


def test_what_is_simulated_is_kept_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    simulate.simulate(3, ("LAT-06", "MEM-02"), 1, path)
    names = {one.verdict for one in simulate.read(path)}
    assert names == {"LAT-06", "MEM-02"}
    assert all(one.runs == 3 and len(one.failed) == len(simulate.DISTANCES) for one in simulate.read(path))
