"""Which tests run for a fault."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lab import case_selection


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
    monkeypatch.setenv(case_selection.ENV_CASES, cases)
    monkeypatch.setenv(case_selection.ENV_TESTS, tests)
    dropped: list[Any] = []
    config = SimpleNamespace(hook=SimpleNamespace(pytest_deselected=lambda items: dropped.extend(items)))
    before = len(found)
    case_selection.pytest_collection_modifyitems(config, found)  # type: ignore[arg-type]
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
    case_selection.pytest_collection_finish(SimpleNamespace(items=found))  # type: ignore[arg-type]
    assert [marker.name for marker in found[0].own_markers] == (["exclusive_host"] if alone else []) + ["run_late"]


def test_one_case_of_a_requirement_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(case_selection.ENV_WITHOUT, "RES-01:load MEM-03")
    found = items(("a", "RES-01", {"phase": "load"}), ("a", "RES-01", {"phase": "stream"}), ("b", "MEM-03", {}))
    assert select(monkeypatch, "full", "", found) == ["a[1]"]


def test_chat_is_asked_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Any]:
        return items(*[("a", "API-02", {"endpoint": name}) for name in ("completions", "chat")])

    assert select(monkeypatch, "fast", "COR-01 API-02", found()) == ["a[0]"]
    assert select(monkeypatch, "fast", "API API-02 chat", found()) == ["a[0]", "a[1]"]
    assert select(monkeypatch, "fast", "", found()) == ["a[0]"]
    assert select(monkeypatch, "full", "", found()) == ["a[0]", "a[1]"]
