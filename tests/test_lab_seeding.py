"""A fault is there for a while, and one that never acted is an error of the lab."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest
import requests

from fixtures.core.record import StackRecord
from lab import seeding
from lab.bench import Bench
from lab.catalogue.model import Hook, Process, Proxy
from lab.hook_control import copy_hooks
from lab.seeding_subject import LabError
from tests.fakes import engine_server
from tests.fakes.engine_server import record

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.engine_server import FakeServer

engine = engine_server.engine


@pytest.fixture
def bench(tmp_path: Path, engine: FakeServer) -> Bench:
    (tmp_path / "stack").mkdir()
    (tmp_path / "stacks").mkdir()
    made = Bench(tmp_path, record(tmp_path / "stack", engine.url), tmp_path / "stacks")
    copy_hooks(made.hooks)
    made.record.save(made.registry)
    return made


def acts(hooks: Path) -> None:
    control = json.loads((hooks / "control.json").read_text())
    (hooks / "fired.jsonl").write_text(json.dumps({"id": control["id"], "what": control["hook"]}) + "\n")


def test_a_hook_is_switched_on_and_off(bench: Bench) -> None:
    with seeding.seeded(bench, "a-fault", Hook("drop-store")) as (path, meanwhile):
        acts(bench.hooks)
    assert (path, meanwhile) == (bench.record_path, None)
    assert (bench.hooks / "control.json").read_text() == ""
    with (
        pytest.raises(LabError, match="hook drop-store never acted"),
        seeding.seeded(bench, "a-fault", Hook("drop-store")),
    ):
        pass


def test_hooks_of_a_stack_that_the_suite_starts(tmp_path: Path) -> None:
    with seeding.hooks_of_its_own(tmp_path / "hooks", "a-fault", Hook("ignore-sigterm")) as hooks:
        acts(hooks)
    with (
        pytest.raises(LabError, match="hook ignore-sigterm never acted"),
        seeding.hooks_of_its_own(tmp_path / "hooks", "a-fault", Hook("ignore-sigterm")),
    ):
        pass


def test_a_proxy_stands_in_front_of_the_engine(bench: Bench) -> None:
    fault = Proxy("metrics", {"after": 0, "body": "Internal Server Error"})
    with seeding.seeded(bench, "a-fault", fault) as (path, _):
        (through,) = StackRecord.load(path).engines
        assert through.url != bench.record.engines[0].url
        assert requests.get(f"{through.url}/metrics", timeout=10).status_code == 500
    with pytest.raises(LabError, match="proxy fault metrics never acted"), seeding.seeded(bench, "a-fault", fault):
        pass


def test_every_action_has_its_time(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Before the suite runs, while it runs, or once its first test is over."""
    done: list[str] = []
    for action in seeding.BEFORE:
        monkeypatch.setitem(seeding.BEFORE, action, lambda _: done.append("before"))
    monkeypatch.setattr(seeding, "process_faults", SimpleNamespace(act=lambda _, what: done.append(what.action)))
    later = set(get_args(get_type_hints(Process)["action"])) - set(seeding.DURING) - set(seeding.BEFORE)
    assert {"kill-cache-server", "kill-engine"} <= later
    for action in sorted(later | set(seeding.BEFORE)):
        what: Any = action
        done.clear()
        with seeding.seeded(bench, "a-fault", Process(what)) as (_, meanwhile):
            assert (meanwhile is None) == (action in seeding.BEFORE) == (done == ["before"])
            if meanwhile is not None:
                meanwhile()
                assert done == [action]
