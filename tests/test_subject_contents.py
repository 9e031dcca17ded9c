"""What lies in a tier below host memory: files, keys of a real Redis where there is one, and which tier is meant."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import NotApplicable, NotJudged
from fixtures.core.ports import HOST
from fixtures.core.processes import ProcessRef
from fixtures.core.record import Server
from fixtures.evidence.vllm_options import parse_options
from fixtures.instruments.store import PASSWORD
from fixtures.subject.contents import Contents, Folder, LowerTier, RedisKeys, below
from fixtures.subject.host_access import HostAccess
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["folder", "keys"])
def contents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Contents]:
    if request.param == "folder":
        (tmp_path / "half.tmp").write_bytes(b"what is being written is not an entry")
        yield Folder(tmp_path)
        return
    with redis_server(tmp_path, "--requirepass", "pass-word") as port:
        yield RedisKeys(HOST, port, ("pass-word",))


def test_entries_are_listed_read_changed_and_removed(contents: Contents) -> None:
    assert contents.sizes() == {}
    for number in range(3):
        contents.write(f"model@0x01@0@{number}.data", bytes(number + 1))
    assert contents.sizes() == {f"model@0x01@0@{number}.data": number + 1 for number in range(3)}
    contents.write("model@0x01@0@1.data", b"other")
    assert contents.read("model@0x01@0@1.data") == b"other"
    contents.remove("model@0x01@0@0.data")
    contents.remove("model@0x01@0@0.data")
    assert contents.sizes() == {"model@0x01@0@1.data": 5, "model@0x01@0@2.data": 3}


def subject(*adapters: dict[str, Any], stores: tuple[Server, ...] = (), process: Any = True) -> Any:
    argv = ["lmcache", "server", *(word for one in adapters for word in ("--l2-adapter", json.dumps(one)))]
    server = Server(name="kv", url="http://x", argv=tuple(argv))
    server.process = ProcessRef(pid=1, started=0.0) if process else None
    part = SimpleNamespace(name="kv", server=server)
    return of_engine(SimpleNamespace(cache_server=part), *stores)


def of_engine(engine: Any, *stores: Server) -> Any:
    record: Any = SimpleNamespace(stores=list(stores), servers=[])
    return SimpleNamespace(engine=engine, record=record, access=HostAccess(record))


FS = {"type": "fs", "base_path": "/x/below-0"}
RESP = {"type": "resp", "host": HOST, "port": 7001}
STORE = Server(name="kv-store", url=f"redis://{HOST}:7001", env={PASSWORD: "pass-word"})


def test_a_folder_and_a_store_of_the_stack_are_found() -> None:
    assert below(subject(FS)).contents == Folder(Path("/x/below-0"))
    found = below(subject(RESP, stores=(STORE,)))
    assert (found.contents, found.store) == (RedisKeys(HOST, 7001, ("pass-word",)), STORE)
    assert str(found) == "resp tier"


def test_what_cannot_be_reached_is_not_judged_with_the_remedy() -> None:
    with pytest.raises(NotApplicable, match="no tier below host memory"):
        below(subject())
    for one in (subject(RESP), subject({"type": "s3", "s3_endpoint": "https://x"}), subject(FS, process=False)):
        with pytest.raises(NotJudged, match="local processes") as reason:
            below(one)
        assert not isinstance(reason.value, NotApplicable)
    with pytest.raises(NotJudged, match="LMCache's own"):
        below(subject({"type": "lm", "host": HOST, "port": 7001}))
    broken = subject()
    broken.engine.cache_server.server.argv = ("lmcache", "server", "--l2-adapter", "{")
    with pytest.raises(NotJudged, match="not JSON"):
        below(broken)


def test_in_process_the_tiers_are_those_of_the_engine() -> None:
    server = Server(name="e", url="http://x", env={"LMCACHE_REMOTE_URL": f"redis://:pass-word@{HOST}:7001"})
    server.process = ProcessRef(pid=1, started=0.0)
    engine: Any = SimpleNamespace(name="e", server=server, cache_server=None, options=lambda: parse_options(()))
    found = below(of_engine(engine, STORE))
    assert (found.contents, found.server) == (RedisKeys(HOST, 7001, ("pass-word",), "kv_bytes"), engine)
    server.env = {"LMCACHE_LOCAL_DISK": "file:///d/", "LMCACHE_MAX_LOCAL_DISK_SIZE": "0.5"}
    found = below(of_engine(engine))
    assert found.contents == Folder(Path("/d/"), "*.pt")
    assert found.adapter.capacity_bytes == 2**29
    server.env["LMCACHE_MAX_LOCAL_DISK_SIZE"] = "0"
    with pytest.raises(NotApplicable, match="no tier below"):
        below(of_engine(engine))


def test_what_a_tier_holds(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_bytes(bytes(10))
    (tmp_path / "b.data").write_bytes(bytes(20))
    assert LowerTier(SimpleNamespace(type="fs"), SimpleNamespace(), Folder(tmp_path)).used_bytes == 30  # type: ignore[arg-type]
