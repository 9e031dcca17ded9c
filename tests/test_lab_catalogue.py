"""The catalogue: complete, consistent, and every injection refers to something that exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from fixtures.catalogue.requirements import REQUIREMENTS
from lab.catalogue import FAULTS, GPU_FAULTS, GPU_HEALTHY, HEALTHY, SAMPLE
from lab.catalogue.model import Fault, Hook, Kind, Process, Proxy, Values
from lab.proxy.faults import FAULTS as PROXY_FAULTS

ROOT = Path(__file__).parents[1]


def implemented() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "suite").glob("test_*.py"):
        for ids in re.findall(r"^@requirement\(([^)]*)\)", path.read_text(), re.MULTILINE):
            found |= set(re.findall(r'"([A-Z]+-\d+)"', ids))
    return found


def hook_names() -> frozenset[str]:
    script = "import seeded; print(*seeded.HOOKS)"  # as an engine imports it, with no site of its own
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT / "lab" / "hooks", capture_output=True, text=True, check=True
    )
    return frozenset(done.stdout.split())


def test_ids_are_unique() -> None:
    ids = [one.id for one in (*FAULTS, *GPU_FAULTS)] + [one.id for one in (*HEALTHY, *GPU_HEALTHY)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_) for id_ in ids)


def test_there_are_enough_of_every_kind() -> None:
    assert len(FAULTS) >= 30
    assert len(HEALTHY) >= 8
    assert {type(fault.injection) for fault in FAULTS} == {Values, Hook, Proxy, Process}
    assert {fault.kind for fault in FAULTS} == set(get_args(Kind))


def test_every_implemented_requirement_has_a_fault_that_must_turn_it() -> None:
    expected = {id_ for fault in (*FAULTS, *GPU_FAULTS) for id_ in fault.expected}
    # The lab's stacks are not releases, and their router breaks API-09 itself: test_provide_release.py and
    # test_instruments_openai_api.py show that those checks fail.
    judged = {id_ for id_ in implemented() if "release" not in REQUIREMENTS[id_].needs} - {"API-09"}
    assert judged <= expected, f"no fault must turn {sorted(judged - expected)}"
    assert expected <= implemented(), f"no test judges {sorted(expected - implemented())}"


@pytest.mark.parametrize("fault", [*FAULTS, *GPU_FAULTS], ids=lambda fault: fault.id)
def test_a_fault_is_complete(fault: Fault) -> None:
    assert fault.title
    assert fault.source
    assert fault.expected or fault.not_judged
    named = fault.expected | fault.allowed | fault.not_judged | set(fault.tests)
    areas = {id_.partition("-")[0] for id_ in REQUIREMENTS}
    assert named <= set(REQUIREMENTS) | areas
    if fault.tests:
        run = {id_ for id_ in REQUIREMENTS if {id_, id_.partition("-")[0]} & set(fault.tests)}
        assert fault.expected | fault.not_judged <= run, "it can only turn what is run"
        assert len(set(fault.tests) - fault.expected) >= 2, "something has to stay silent"


@pytest.mark.parametrize("entry", [*FAULTS, *HEALTHY, *GPU_FAULTS], ids=lambda entry: entry.id)
def test_an_injection_exists_and_can_be_proven(entry: object) -> None:
    injection = getattr(entry, "injection", getattr(entry, "setting", None))
    if isinstance(injection, Hook):
        assert injection.name in hook_names()
    elif isinstance(injection, Proxy):
        PROXY_FAULTS[injection.name](**injection.params)
    elif isinstance(injection, Values):
        assert injection.shows
        re.compile(injection.shows)


def test_every_hook_and_proxy_fault_is_used() -> None:
    injections = [fault.injection for fault in (*FAULTS, *GPU_FAULTS)] + [variant.setting for variant in HEALTHY]
    assert hook_names() == {one.name for one in injections if isinstance(one, Hook)}
    assert set(PROXY_FAULTS) == {one.name for one in injections if isinstance(one, Proxy)}


def test_the_sample_is_of_the_catalogue() -> None:
    assert set(SAMPLE) <= {fault.id for fault in FAULTS}
    assert len({fault.kind for fault in FAULTS if fault.id in SAMPLE}) >= 3
