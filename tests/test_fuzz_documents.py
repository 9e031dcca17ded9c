"""Documents that the suite reads: whatever is in them, the answer is a value or one sentence, never a traceback.

Objects of Kubernetes are real ones in which anything that an API server may leave out is left out, null, empty, doubled or
another text of the same type. Records, waivers and reports are files that a person may have edited: there anything may stand
anywhere. 500 inputs of each kind (100 reports); ``KV_OFFLOAD_FUZZ=1000000`` sets another number. A failure
names the seed.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.core.errors import ConfigurationError, StackError
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, Server, StackRecord
from fixtures.evidence.pods.containers import (
    argv_of,
    env_of,
    images,
    main_container,
    out_of_memory,
    requests_of,
    role_of,
)
from fixtures.evidence.pods.objects import (
    by_object,
    is_over,
    is_ready,
    last_end,
    restarts,
    started_in_s,
    startup_budget_s,
    state_of,
)
from fixtures.provide.release import discover
from fixtures.provide.release.snapshot import ReleaseSnapshot
from fixtures.report import report, waivers
from tests.fuzzing import BATCH, FEW, INPUTS, for_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
FATES: list[dict[str, Any]] = list(json.loads((ROOT / "tests/data/cluster/fates.json").read_text()).values())
RECORD = StackRecord(
    id="one-12345678",
    kind="process",
    config="one",
    folder=Path("/tmp/x"),
    model="org/m",
    owner=ProcessRef(pid=1, started=1.0),
    engines=[EngineServer(name="one-0", url="http://127.0.0.1:1", argv=("vllm", "serve", "m"), env={"A": "b"})],
    cache_servers=[Server(name="kv", url="http://127.0.0.1:2", process=ProcessRef(pid=2, started=1.0))],
)
WAIVERS = yaml.safe_load((ROOT / "configs/cpu-cluster/waivers.yaml").read_text()) * 2


def short(value: Any) -> Any:
    """The same with one entry in every list: a schema validates each alike, and takes its time."""
    if isinstance(value, dict):
        return {key: short(one) for key, one in value.items()}
    return [short(one) for one in value[:1]] if isinstance(value, list) else value


REPORT = short(json.loads((ROOT / "docs/evidence/h200-multi-process.json").read_text()))
ODD: list[Any] = [
    None,
    "",
    "x",
    "0",
    "-1",
    "\0",
    "é\u2028",
    "9" * 400,
    0,
    -1,
    2**70,
    1e308,
    True,
    [],
    [None],
    {},
    {"a": 1},
]
TEXTS = [
    "",
    "x",
    "0",
    "é\u2028",
    "a b: c",
    "2026-11-25T04:25:21Z",
    "2026",
    "10Gi",
    "vllm",
    "-",
    "python -m x",
    "9" * 400,
]
TIMES = ["2026-11-25T04:25:21Z", "2026-11-25T04:25:21.123456Z", "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"]
AMOUNTS = ["0", "1", "100m", "10Gi", "1e3", "9E", "0.5", "5k"]


def spots(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def copied(document: Any) -> Any:
    """A copy of its own; ``copy.deepcopy`` takes four times as long."""
    return pickle.loads(pickle.dumps(document))


def has(holder: Any, key: Any) -> bool:
    """Whether a place is still there: the places are listed once, before the first change."""
    return key in holder if isinstance(holder, dict) else key < len(holder)


def edited(dice: random.Random, document: Any) -> Any:
    """Anything anywhere."""
    document = copied(document)
    found = spots(document)
    for _ in range(dice.choice((1, 1, 2, 5))):
        holder, key = dice.choice(found)
        if not has(holder, key):
            continue
        if dice.random() < 0.3:
            del holder[key]
        elif dice.random() < 0.1 and isinstance(holder, dict):
            holder[dice.choice(TEXTS)] = holder.pop(key)
        else:
            holder[key] = copied(dice.choice(ODD))
    return document if dice.random() < 0.98 else copied(dice.choice(ODD))


def left_out(dice: random.Random, thing: dict[str, Any]) -> dict[str, Any]:
    """As an API server may show it: every object keeps its name, and every value its type."""
    thing = copied(thing)
    found = spots(thing)
    for _ in range(dice.choice((1, 2, 4, 8))):
        holder, key = dice.choice(found)
        if not has(holder, key):
            continue
        value = holder[key]
        if key in {"metadata", "name", "uid", "kind", "containers", "spec", "containerPort", "type", "status"}:
            continue
        if isinstance(holder, list):
            holder[:] = dice.choice((holder[::-1], [*holder, copied(value)], holder[:key] + holder[key + 1 :]))
        elif isinstance(value, str):
            of_type = TIMES if re.match(r"\d{4}-\d\d-\d\dT", value) else AMOUNTS if re.match(r"\d", value) else TEXTS
            holder[key] = dice.choice(of_type)
        elif isinstance(value, bool):
            holder[key] = not value
        elif isinstance(value, int):
            holder[key] = dice.choice((0, 1, -1, 2**31 - 1, 137))
        elif dice.random() < 0.5:
            holder[key] = None
        else:
            del holder[key]
    return thing


def read_objects(dice: random.Random, _: Path) -> None:
    fate = dice.choice(FATES)

    def some(kind: str) -> list[Any]:
        return [left_out(dice, one) for one in fate[kind]]

    seen = ReleaseSnapshot(
        [left_out(dice, fate["deployment"])], some("replica_sets"), some("pods"), some("claims"),
        by_object(some("events")), [],
    )  # fmt: skip
    for autoscaled in (False, True):
        assert all(str(one) for one in seen.blocked(dice.choice((0.0, 1.8e9, 4e9)), autoscaled=autoscaled))
    seen.alive(), seen.wanted()
    for pod in seen.found:
        role = role_of(pod)
        container = main_container(pod, role)
        name = str(container.get("name"))
        state_of(pod), restarts(pod), is_ready(pod), is_over(pod), images(pod)
        last_end(pod, name), out_of_memory(pod, name), started_in_s(pod, name)
        env_of(container), argv_of(container), startup_budget_s(container)
        discover.port_of(pod, "engine" if role == "other" else role)
        discover.served_models(pod)
        requests_of(pod["spec"])


def read_record(dice: random.Random, folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(changed_text(dice, json.dumps(edited(dice, json.loads(RECORD.model_dump_json())))))
    read_or_refuse(lambda: StackRecord.load(path))


def read_waivers(dice: random.Random, folder: Path) -> None:
    path = folder / "waivers.yaml"
    path.write_text(changed_text(dice, yaml.safe_dump(edited(dice, WAIVERS), allow_unicode=True)))
    read_or_refuse(lambda: waivers.load(path))


def read_report(dice: random.Random, folder: Path) -> None:
    path = folder / "conformance.json"
    path.write_text(changed_text(dice, json.dumps(edited(dice, REPORT))))
    with contextlib.suppress(OSError, ValueError):
        report.judged_anything(report.load(path))
    report.last_judged(folder)


def changed_text(dice: random.Random, text: str) -> str:
    """Sometimes the file itself is damaged: cut, or nested without an end."""
    if dice.random() < 0.1:
        return text[: dice.randint(0, len(text))]
    return dice.choice(("[", "{a: ", '{"a": ')) * 20_000 if dice.random() < 0.0005 else text


def read_or_refuse(read: Callable[[], object]) -> None:
    with contextlib.suppress(ConfigurationError, StackError):
        read()


CASES: dict[str, Callable[[random.Random, Path], None]] = {
    "objects of a cluster": read_objects,
    "records": read_record,
    "waivers": read_waivers,
    "reports": read_report,
}


@pytest.mark.fuzz
@pytest.mark.parametrize("what", CASES)
def test_no_document_breaks_its_reader(what: str, tmp_path: Path) -> None:
    def run(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(BATCH):
            CASES[what](dice, tmp_path)

    for_seeds((FEW if what == "reports" else INPUTS) // BATCH, run)
