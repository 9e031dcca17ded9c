"""pytest plugin (``-p lab.case_selection``): which cases of the suite the lab runs for one fault.

Without it a fault would take as long as the whole suite. Left out are the small sizes of tests that run in several (what a
small prompt shows, a long one shows too), most of the bad requests, chat, and, unless asked for, the tests that measure time or
memory over many requests.

Nor does a test wait to have the machine alone: what is seeded is far above what another stack beside it does, and a healthy
variant that measures time or memory over many requests runs when nothing else does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ENV_CASES, ENV_TESTS, ENV_WITHOUT = "KV_OFFLOAD_LAB_CASES", "KV_OFFLOAD_LAB_TESTS", "KV_OFFLOAD_LAB_WITHOUT"
SLOW = {
    *("LAT-01", "LAT-02", "LAT-03", "LAT-04", "LAT-06"),
    *("THR-01", "THR-02", "THR-03"),
    *("MEM-01", "MEM-02", "MEM-04"),
    *("CAP-01", "CAP-02", "CAP-03"),
    *("TIR-01", "TIR-02", "TIR-05"),
}
SLOW_TESTS = {
    "test_reloads_are_right_once_the_tier_has_evicted",
    "test_the_router_lists_nothing_when_no_engine_lives",
    "test_without_an_engine_the_router_answers_with_an_error_object",
    "test_the_router_lists_the_models_of_the_engines_that_are_left",
    "test_a_stream_that_breaks_off_says_so",
    "test_conversations_stay_once_an_engine_has_come_back",
}
"""Others that send as much as the tier holds, or that start engines again."""
SIZES = ("chunks", "clients")
FIRST_ENDPOINT, CHAT = "completions", "chat"
"""The endpoint that is always asked, and what asks for the other one, too, beside the requirements."""
BAD = {"malformed-json", "negative-max-tokens", "prompt-too-long", "chat-negative-max-tokens"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what ``KV_OFFLOAD_LAB_CASES`` (fast, slow, full) and ``KV_OFFLOAD_LAB_TESTS`` ask for.

    The latter are requirement ids, the first parts of ids for all of an area, and ``chat``. ``KV_OFFLOAD_LAB_WITHOUT`` leaves
    some out: the same, or one case of a requirement, such as ``RES-01:load``.
    """
    cases, wanted = os.environ.get(ENV_CASES, "full"), set(os.environ.get(ENV_TESTS, "").split())
    without = set(os.environ.get(ENV_WITHOUT, "").split())
    largest: dict[tuple[str, str], int] = {}
    for item in items:
        for name in SIZES:
            size = _params(item).get(name)
            if isinstance(size, int):
                key = (_function(item), name)
                largest[key] = max(size, largest.get(key, 0))

    def left_out(item: pytest.Item, judged: set[str], areas: set[str]) -> bool:
        words = {f"{id_}:{getattr(value, 'name', value)}" for id_ in judged for value in _params(item).values()}
        return bool((judged | areas | words) & without)

    def keep(item: pytest.Item) -> bool:
        judged = {name for marker in item.iter_markers("requirement") for name in marker.args}
        areas = {id_.partition("-")[0] for id_ in judged}
        if left_out(item, judged, areas):
            return False
        if wanted and not (judged | areas) & wanted:
            return False
        if cases == "full":
            return True
        name = _function(item).rpartition("::")[2]
        if cases == "fast" and ((judged & SLOW and not judged & wanted) or name in SLOW_TESTS):
            return False
        params = _params(item)
        if "bad" in params and getattr(params["bad"], "name", "") not in BAD:
            return False
        if CHAT not in wanted and params.get("endpoint", FIRST_ENDPOINT) != FIRST_ENDPOINT:
            return False
        sizes = {name: params[name] for name in SIZES if name in params}
        if cases == "fast" and "longest" in sizes.values():
            return False
        return all(size in ("longest", largest[_function(item), name]) for name, size in sizes.items())

    kept = [item for item in items if keep(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """Nothing has the machine alone beside another stack; only now: the plugin has sorted by it, as in the suite."""
    shared = os.environ.get(ENV_TESTS) or os.environ.get(ENV_CASES) == "fast"
    for item in session.items if shared else ():
        for node in item.listchain():
            node.own_markers = [marker for marker in node.own_markers if marker.name != "exclusive_host"]


def _params(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return {} if callspec is None else dict(callspec.params)


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
