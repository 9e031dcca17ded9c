"""The configuration of a subject with other values, and whether a running stack shows them."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fixtures.core.tree import get_path
from fixtures.evidence.adapters import with_adapters
from fixtures.plugin.option_table import VARIABLES
from fixtures.provide.values.config import Model, load_config
from lab.seeding_subject import ROOT, LabError

if TYPE_CHECKING:
    from fixtures.core.record import StackRecord
    from fixtures.provide.values.config import Config
    from lab.catalogue.model import Values
    from lab.seeding_subject import Subject


def changed_config(name: str, subject: Subject, values: Values | None, folder: Path) -> Config:
    """The subject's configuration with other values, written in the chart's own format."""
    if values is not None and values.configuration:
        subject = dataclasses.replace(subject, config=values.configuration)
    original = subject.load()
    folder = (folder / name).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    body: dict[str, Any] = copy.deepcopy(original.values.data)
    model = body["servingEngineSpec"]["modelSpec"][0]
    if values is not None:
        for path, value in values.changes.items():
            *parents, last = path.split(".")
            node = model
            for parent in parents:
                node = node.setdefault(parent, {})
            if value is None:
                node.pop(last, None)
            else:
                node[last] = value
        model["env"] += [{"name": key, "value": value.replace("{folder}", str(folder))} for key, value in values.env]
        model["vllmConfig"]["extraArgs"] += list(values.extra_args)
        words = [word.replace("{folder}", str(folder)) for word in values.server]
        for command in _cache_server_commands(body) if words else ():
            command += words
    if values is not None and values.router:
        body["routerSpec"] |= values.router
    if values is not None and values.adapter:
        keys = json.loads(json.dumps(values.adapter).replace("{folder}", str(folder)))
        for command in _cache_server_commands(body):
            command[:] = with_adapters(command, lambda spec: spec | keys)
    for file, text in values.files.items() if values is not None else ():
        (folder / file).write_text(text)
    (folder / "values.yaml").write_text(yaml.safe_dump(body, sort_keys=False))
    changed = load_config(str(folder / "values.yaml"), ROOT / "configs")
    expect = original.expect
    if values is not None and values.recipe is not None:
        expect = expect.model_copy(update={"model": Model(recipe=values.recipe)})
    return dataclasses.replace(changed, expect=expect)


def _cache_server_commands(body: dict[str, Any]) -> Iterator[list[str]]:
    """The command of every ``lmcache server`` in ``extraObjects``."""
    for one in body["extraObjects"]:
        for container in get_path(one, "spec", "template", "spec", "containers", default=[]):
            if container.get("command", [])[:2] == ["lmcache", "server"]:
                yield container["command"]


def check_values(record: StackRecord, values: Values) -> None:
    """Raises LabError when the running stack does not show the change that the values were to bring."""
    if not values.shows:
        return
    servers = list(record.everything)
    text = {
        "command": "\n".join(" ".join(_cmdline(server.process)) for server in (*record.engines, *record.routers)),
        "environment": "\n".join(f"{name}={value}" for server in servers for name, value in _environ(server.process)),
        "log": "\n".join(server.log.read_text(errors="replace") for server in servers if server.log),
        "record": record.model_dump_json(indent=2),
    }[values.where]
    if (re.search(values.shows, text) is None) != values.absent:
        raise LabError(f"the {values.where} of the stack does not show the fault ({values.shows!r})")


def own_router() -> Path:
    """The interpreter with production-stack's router and, for its KV-aware policy, LMCache beside it."""
    if not (python := os.environ.get(VARIABLES["router-python"])):
        raise LabError(
            f"this needs production-stack's own router: set {VARIABLES['router-python']} to an interpreter that has it"
        )
    return Path(python)


def _cmdline(reference: Any) -> list[str]:
    running = reference.process() if reference else None
    return running.cmdline() if running else []


def _environ(reference: Any) -> list[tuple[str, str]]:
    running = reference.process() if reference else None
    return list(running.environ().items()) if running else []
