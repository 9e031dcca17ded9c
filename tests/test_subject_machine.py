"""The link and the load of the machine where an engine runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotJudged, StackError
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, RequestedConfig
from fixtures.provide.release.pod_access import PodAccess
from fixtures.subject.stack import Stack
from tests.fakes import engine_server
from tests.fakes.engine_server import record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


engine = engine_server.engine


def test_the_link_is_measured_where_the_engine_runs_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixtures.instruments.bounds.host_copy_bytes_per_s", lambda: 5e9)
    assert Stack(record(tmp_path, link_bytes_per_s=3e9)).link_bytes_per_s == 3e9
    here = EngineServer(name="engine-0", url="http://127.0.0.1:9", process=ProcessRef.of(os.getpid()))
    assert Stack(record(tmp_path, engines=[here])).link_bytes_per_s == 5e9
    for elsewhere in (record(tmp_path), record(tmp_path, engines=[here], device="cuda")):
        with pytest.raises(NotJudged, match="between host and GPU cannot be measured"):
            _ = Stack(elsewhere).link_bytes_per_s


class FakeAccess(PodAccess):
    """The way to pods in which a script prints what is chosen here."""

    api_key = None

    def __init__(self, python: Callable[..., str]) -> None:
        self.python = python  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize(
    ("device", "workers", "out", "expected"),
    [("cuda", 1, "2.5e10\n", 2.5e10), ("cuda", 4, "warning\n2.5e10\n", 1e11), ("cpu", 4, "1e10", 1e10)],
)
def test_in_a_pod_a_script_measures_it(tmp_path: Path, device: str, workers: int, out: str, expected: float) -> None:
    access: Any = FakeAccess(lambda *_, **__: out)
    stack = Stack(record(tmp_path, device=device, requested=RequestedConfig(workers=workers)), access)
    assert stack.link_bytes_per_s == expected


def test_a_pod_in_which_no_script_runs_has_no_link(tmp_path: Path) -> None:
    def python(*_: Any, **__: Any) -> str:
        raise StackError("no module named torch")

    access: Any = FakeAccess(python)
    stack = Stack(record(tmp_path, device="cuda"), access)
    with pytest.raises(NotJudged, match=r"could not be measured in the pod .* no module named torch"):
        _ = stack.link_bytes_per_s
    assert stack.load_per_core() is None


def test_the_load_of_this_machine_is_a_number(tmp_path: Path) -> None:
    here = EngineServer(name="engine-0", url="http://127.0.0.1:9", process=ProcessRef.of(os.getpid()))
    load = Stack(record(tmp_path, engines=[here])).load_per_core()
    assert load is not None
    assert load > 0
    assert Stack(record(tmp_path)).load_per_core() is None
