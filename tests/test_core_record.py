"""Records of stacks, and the end of process trees; every process here is real."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.processes import Maker, ProcessRef
from fixtures.core.progress import Progress
from fixtures.core.record import EngineServer, RequestedConfig, Server, StackRecord
from fixtures.core.registry import foreign, orphans, read_all, unregister
from fixtures.provide.orphans import remove_orphans
from fixtures.provide.release import kind
from tests.process_trees import gone, other

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., ProcessRef]


def make(folder: Path, **changes: object) -> StackRecord:
    known = {"id": "c-1", "kind": "process", "config": "c", "folder": folder / "run", "model": "m"}
    return StackRecord.model_validate(known | changes)


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    record = make(
        tmp_path,
        owner=ProcessRef.of(os.getpid()),
        engines=[EngineServer(name="e-0", url="http://h:1", process=gone(), log=tmp_path / "e.log", cache_server="s")],
        cache_servers=[Server(name="s", url="http://h:2", argv=("lmcache", "server"), env={"A": "1"}, tmp=tmp_path)],
        requested=RequestedConfig(connector={"kv_role": "kv_both"}, duplicate_env=("X",)),
        seeds=[1, 2],
    )
    path = record.save(tmp_path / "registry")
    assert path == tmp_path / "run" / "record.json"
    assert StackRecord.load(path) == StackRecord.load(tmp_path / "registry" / "c-1.json") == record
    assert [server.name for server in record.servers] == ["e-0", "s"]
    unregister(record, tmp_path / "registry")
    unregister(record, tmp_path / "registry")
    assert path.exists(), "the record beside the logs stays"
    assert not list((tmp_path / "registry").iterdir())


def test_a_record_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make(tmp_path)
    path = record.save(tmp_path / "registry")

    def full(*_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", full)
        with pytest.raises(OSError, match="No space left"):
            make(tmp_path, model="another").save(tmp_path / "registry")
    assert StackRecord.load(path) == record
    assert [entry.name for entry in (tmp_path / "registry").iterdir()] == ["c-1.json"], "no scratch file is left"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no stack record at .*give --record"),
        ("not JSON", "is not a stack record of this version .*--keep-stack"),
        ("{}", "is not a stack record of this version"),
        ({"schema_version": 2}, "is not a stack record of this version"),
        ({"colour": "red"}, "is not a stack record of this version"),
        ({"owner": {"pid": -1, "started": 0.0}}, "is not a stack record of this version .*owner.pid"),
        ({"owner": {"pid": 0, "started": 0.0}}, "is not a stack record of this version .*owner.pid"),
    ],
)
def test_a_wrong_record_is_one_sentence(tmp_path: Path, text: object, says: str) -> None:
    path = tmp_path / "record.json"
    if isinstance(text, dict):
        path.write_text(json.dumps(json.loads(make(tmp_path).model_dump_json()) | text))
    elif text is not None:
        path.write_text(str(text))
    with pytest.raises(ConfigurationError, match=says) as caught:
        StackRecord.load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a stack record"):
        StackRecord.load(tmp_path)


def test_stacks_of_other_hosts_users_and_versions_are_left_alone(tmp_path: Path) -> None:
    here, registry = Maker.here(), tmp_path / "registry"
    assert here.is_here
    for name, maker in (
        ("host", here.model_copy(update={"host": "elsewhere"})),
        ("user", here.model_copy(update={"user": "another"})),
        ("container", here.model_copy(update={"pid_namespace": "pid:[1]"})),
        ("before-reboot", here.model_copy(update={"boot": "earlier", "pid_namespace": "pid:[1]"})),
        ("old-version", None),
        ("mine", here),
    ):
        make(tmp_path, id=name, owner=gone(), maker=maker).save(registry)
    records, _ = read_all(registry, StackRecord)
    assert [record.id for record in orphans(records)] == ["before-reboot", "mine"]
    assert [record.id for record in foreign(records)] == ["container", "host", "old-version", "user"]


def test_orphans_are_the_stacks_of_dead_owners_that_are_not_kept(tmp_path: Path) -> None:
    me, registry = ProcessRef.of(os.getpid()), tmp_path / "registry"
    for name, owner, keep in (
        ("dead", gone(), False),
        ("live", me, False),
        ("kept", gone(), True),
        ("reused", other(me), False),
        ("others", None, False),
    ):
        make(tmp_path, id=name, owner=owner, keep=keep, maker=Maker.here()).save(registry)
    (registry / "torn.json").write_text("{")
    assert [record.id for record in orphans(read_all(registry, StackRecord)[0])] == ["dead", "reused"]
    assert read_all(tmp_path / "nowhere", StackRecord) == ([], [])


def test_a_record_that_cannot_be_read_is_kept_and_named_once(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for name in ("newer", "torn"):
        make(tmp_path, id=name, owner=gone(), maker=Maker.here()).save(registry)
    newer, torn = registry / "newer.json", registry / "torn.json"
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"new_field": {"password": "not-to-be-shown"}}))
    torn.write_text(torn.read_text()[:100])
    before = {path: path.read_bytes() for path in registry.iterdir()}
    assert [path for path, _ in read_all(registry, StackRecord)[1]] == [newer, torn]
    said = io.StringIO()
    progress = Progress(said, live=False)
    for _ in range(2):
        remove_orphans(registry, progress)
    lines = said.getvalue().splitlines()
    assert len(lines) == 2
    assert f"{newer} cannot be read (new_field: Extra inputs are not permitted)" in lines[0]
    assert f"{torn} cannot be read (Invalid JSON: EOF while parsing" in lines[1]
    assert all(f"python -m fixtures stop {registry}" in line and "may still be running" in line for line in lines)
    assert "not-to-be-shown" not in said.getvalue()
    assert {path: path.read_bytes() for path in registry.iterdir()} == before


def test_a_cluster_record_that_cannot_be_read_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path))
    torn = kind.records() / "kv-offload-0123456789.json"
    torn.parent.mkdir(parents=True)
    torn.write_text('{"name"')
    for only_name in (True, False):
        said: list[str] = []
        kind.remove_orphans(said.append, only_name=only_name)
        (line,) = said
        assert f"the cluster record {torn} cannot be read (Invalid JSON: EOF while parsing" in line
        assert "kind delete cluster --name kv-offload-0123456789, then delete the file" in line
    assert torn.exists()


def test_a_clock_that_is_set_does_not_make_an_owner_dead() -> None:
    me = ProcessRef.of(os.getpid())
    assert ProcessRef(pid=me.pid, started=me.started + 1.0).alive
    assert not ProcessRef(pid=me.pid, started=me.started + 10.0).alive
