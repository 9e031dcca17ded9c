"""Which tiers are below the CPU tier, and which tokens are told to come from them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged, SubjectFault
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, Server, StackRecord
from fixtures.evidence.connector import connector_of
from fixtures.evidence.metrics import CacheCounters
from fixtures.evidence.vllm_options import parse_options
from fixtures.instruments import disk
from fixtures.instruments.store import PASSWORD, StoreClient
from fixtures.subject.contents import RedisKeys, below
from fixtures.subject.exchange import TokenSources
from fixtures.subject.host_access import HostAccess
from fixtures.subject.lower_tiers import LowerTiers

CONNECTOR = json.dumps({"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"})
SERVED: Any = SimpleNamespace(cache_server=object())
"""An engine that a cache server serves."""
BEFORE = CacheCounters(hit_tokens=100, below_hit_tokens=50, below_loaded_tokens=50)
PROCESS = ProcessRef(pid=1, started=0.0)


def tiers(
    *specs: dict[str, Any],
    counters: tuple[CacheCounters, ...] = (),
    server: bool = True,
    argv: tuple[str, ...] | None = None,
    env: dict[str, str] | None = None,
    stores: tuple[Server, ...] = (),
) -> LowerTiers:
    words = ("lmcache", "server", *(word for spec in specs for word in ("--l2-adapter", json.dumps(spec))))
    own = Server(name="kv", url="http://kv", argv=words if argv is None else argv, env=env or {}, process=PROCESS)
    engine = EngineServer(
        name="e",
        url="http://e",
        argv=("vllm", "--kv-transfer-config", CONNECTOR),
        cache_server="kv" if server else None,
        env={} if server else env or {"LMCACHE_LOCAL_DISK": "file:///d", "LMCACHE_MAX_LOCAL_DISK_SIZE": "2"},
    )
    record = StackRecord(
        id="x",
        kind="process",
        config="c",
        folder=Path(),
        model="m",
        engines=[engine],
        cache_servers=[own],
        stores=list(stores),
    )
    left = list(counters)
    subject = SimpleNamespace(
        record=record,
        access=HostAccess(record),
        engine=SimpleNamespace(
            server=engine,
            cache_server=SimpleNamespace(server=own) if server else None,
            options=lambda: parse_options(engine.argv),
            connector=lambda: connector_of(engine.argv),
        ),
        context=SimpleNamespace(deadlines=Deadlines(counted_s=0.05)),
    )
    cache = SimpleNamespace(counters=lambda _=None: left.pop(0) if len(left) > 1 else left[0], before=lambda _: BEFORE)
    return LowerTiers(subject, cache)  # type: ignore[arg-type]


FS, RESP = {"type": "fs", "base_path": "/kv"}, {"type": "resp", "host": "127.0.0.1", "port": 7}


def test_tiers_are_those_of_the_cache_server() -> None:
    assert [one.type for one in tiers(FS, RESP).required()] == ["fs", "resp"]
    with pytest.raises(NotApplicable, match="no tier below"):
        tiers().required()
    with pytest.raises(NotJudged, match="not known here"):
        tiers(argv=("sh", "-c", "lmcache server")).required()
    assert [str(one) for one in tiers(server=False).required()] == ["local_disk /d, at most 2 GiB"]
    assert tiers(argv=("lmcache", "server", "--l2-adapter", "{")).adapters == ()


@pytest.mark.parametrize(
    ("sources", "hits", "below", "loads", "expected"),
    [
        (TokenSources(100, 0, 0), 0, 0, 0, 0),
        (TokenSources(1, 0, 1024), 1024, 0, 0, 0),
        (TokenSources(1, 0, 1024), 1024, 1024, 1024, 1024),
        (TokenSources(1, 0, 1024), 1024, 512, 512, 512),
        (TokenSources(1, 0, 1024), 1024, None, 768, 768),  # before 0.5.5
        (TokenSources(1, 0, 1023), 1024, 1024, 1024, 1023),  # of a prompt of whole chunks the last token is computed
        (TokenSources(1, 512, 512), 1024, 1024, 1024, 512),
        (TokenSources(1, 512, 512), 1024, 0, 0, 0),
        (TokenSources(1, 512, 512), 1024, 512, 512, None),  # of the part on the GPU, or of the other one
        (TokenSources(1, 0, 1024), 512, 512, 512, None),  # not counted in time
    ],
)
def test_tokens_come_from_below_where_the_counters_say_so(
    sources: TokenSources, hits: int, below: int | None, loads: int, expected: int | None
) -> None:
    after = CacheCounters(
        hit_tokens=100 + hits,
        below_hit_tokens=None if below is None else 50 + below,
        below_loaded_tokens=50 + loads,
    )
    before = CacheCounters(hit_tokens=100, below_hit_tokens=None if below is None else 50, below_loaded_tokens=50)
    assert tiers(FS, counters=(before, after)).of(sources, SERVED, before) == expected


def test_without_tiers_or_counters_nothing_is_reported() -> None:
    loaded = TokenSources(1, 0, 1024)
    engine = SERVED
    assert tiers().of(loaded, engine, BEFORE) is None
    assert tiers().before(engine) is None
    assert tiers(FS).before(engine) is BEFORE
    assert tiers(FS).of(loaded, engine, None) is None
    assert tiers(FS).of(loaded, engine, NotJudged("no counters")) is None
    assert tiers(FS, counters=(CacheCounters(hit_tokens=0),)).of(loaded, engine, BEFORE) is None, "it restarted"


IN_PROCESS = {"LMCACHE_LOCAL_DISK": "file:///d", "LMCACHE_MAX_LOCAL_DISK_SIZE": "2"}


@pytest.mark.parametrize(("local_cpu", "expected"), [("False", 512), ("True", None), ("'no'", 512)])
def test_in_process_everything_comes_from_below_where_the_cpu_tier_is_a_buffer(
    local_cpu: str, expected: int | None
) -> None:
    found = tiers(server=False, env=IN_PROCESS | {"LMCACHE_LOCAL_CPU": local_cpu})
    engine = found._subject.engine
    assert found.before(engine) is None
    assert found.of(TokenSources(1, 0, 512), engine, None) == expected
    assert found.of(TokenSources(1, 512, 0), engine, None) == 0


def test_in_process_what_was_stored_is_known_by_the_bytes_that_came(tmp_path: Path) -> None:
    found = tiers(server=False, env=IN_PROCESS | {"LMCACHE_LOCAL_DISK": f"file://{tmp_path}/"})
    subject: Any = found._subject
    subject.engine.name, subject.kv_bytes_per_token = "e", 10
    subject.context = SimpleNamespace(deadlines=Deadlines(stored_s=0.0, tokens_per_s=1e9))
    subject.engine.server.process = PROCESS
    (tmp_path / "old.pt").write_bytes(bytes(5000))
    before = found.written()
    (tmp_path / "new.pt").write_bytes(bytes(2560))
    (tmp_path / "other.data").write_bytes(bytes(2560))
    assert found.await_stored(256, before) == 256
    assert found.await_stored(512, before) == 256, "no more than that came"
    subject.kv_bytes_per_token = None
    with pytest.raises(NotJudged, match="bytes per token"):
        found.await_stored(256, before)


def test_what_lmcaches_own_store_holds_is_known_by_what_was_sent() -> None:
    sent = CacheCounters(flavour="in-process", below_stored_tokens=512)
    found = tiers(server=False, env={"LMCACHE_REMOTE_URL": "lm://127.0.0.1:7"}, counters=(sent,))
    assert found.written() is sent, "its content cannot be listed"
    found._cache.since = lambda *_: CacheCounters(below_stored_tokens=256)  # type: ignore[method-assign]
    assert found.await_stored(256, sent) == 256
    engine: Any = found._subject.engine
    engine.name, engine.server.process = "e", PROCESS
    with pytest.raises(NotJudged, match="LMCache's own"):
        below(found._subject)
    with pytest.raises(NotJudged, match="cannot be measured from here"):
        found.read_s(1)


def test_of_a_store_that_lmcache_compresses_for_bytes_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be listed is not judged; what can is counted by chunks."""
    env = {"LMCACHE_REMOTE_URL": "lm://127.0.0.1:7", "LMCACHE_REMOTE_SERDE": "cachegen"}
    sent = CacheCounters(flavour="in-process", below_stored_tokens=17)
    with pytest.raises(NotJudged, match=r"compresses what it sends .*cachegen.* remote_serde: naive"):
        tiers(server=False, env=env, counters=(sent,)).await_stored(256, sent)

    store = Server(name="s", url="redis://127.0.0.1:7", process=PROCESS)
    found = tiers(server=False, env=env | {"LMCACHE_REMOTE_URL": "redis://127.0.0.1:7"}, stores=(store,))
    subject: Any = found._subject
    subject.engine.name, subject.engine.server.process = "e", PROCESS
    subject.kv_bytes_per_token, subject.chunk_tokens = 10, 256
    subject.kv_shape = lambda _: SimpleNamespace(keys_per_chunk=2)
    subject.context = SimpleNamespace(deadlines=Deadlines(stored_s=0.0, tokens_per_s=1e9))
    names = [f"{at}kv_bytes" for at in range(4)]
    monkeypatch.setattr(RedisKeys, "sizes", lambda _: dict.fromkeys(["old", *names], 3))
    assert found.await_stored(512, frozenset({"old"})) == 512
    subject.engine.server.env["LMCACHE_REMOTE_SERDE"] = "naive"
    assert found.await_stored(512, frozenset({"old"})) == 1


def test_a_tier_in_files_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"type": "fs", "base_path": str(tmp_path)}
    monkeypatch.setattr(disk, "read_bytes_per_s", lambda folder: 1e6 if folder == tmp_path else None)
    assert tiers(spec).read_s(2_000_000) == 2.0
    monkeypatch.setattr(disk, "read_bytes_per_s", lambda _: None)
    with pytest.raises(NotJudged, match="O_DIRECT"):
        tiers(spec).read_s(1)

    def full(_: Path) -> float:
        raise OSError("no space left")

    monkeypatch.setattr(disk, "read_bytes_per_s", full)
    with pytest.raises(NotJudged, match="no space left"):
        tiers(spec).read_s(1)
    forgotten: list[Path] = []
    monkeypatch.setattr(disk, "forget_pages", forgotten.append)
    tiers(spec, FS).forget_pages()
    assert forgotten == [tmp_path], "what is not here is left alone"


def test_a_store_is_asked_with_its_own_password(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def read_s(client: StoreClient) -> tuple[float, float]:
        asked.append((client.host, client.port, client._credentials))
        return 0.5, 100.0

    monkeypatch.setattr(StoreClient, "read_s", read_s)
    own = Server(name="s", url="redis://127.0.0.1:7", env={PASSWORD: "of-the-stack"})
    assert tiers(RESP, stores=(own,)).read_s(50) == 1.0
    assert tiers(RESP, env={"LMCACHE_RESP_PASSWORD": "of-others"}).read_s(100) == 1.5
    assert asked == [("127.0.0.1", 7, ("of-the-stack",)), ("127.0.0.1", 7, ("of-others",))]

    def refused(_: StoreClient) -> tuple[float, float]:
        raise SubjectFault("NOAUTH")

    monkeypatch.setattr(StoreClient, "read_s", refused)
    with pytest.raises(NotJudged, match="NOAUTH"):
        tiers(RESP).read_s(1)
    with pytest.raises(NotJudged, match="cannot be measured from here"):
        tiers({"type": "s3", "s3_endpoint": "https://x:1"}).read_s(1)


def test_evictions_are_those_of_every_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreClient, "figures", lambda _, section: {"evicted_keys": "7"} if section == "stats" else {})
    assert tiers(FS).evictions() == 0
    assert tiers(FS, RESP, RESP).evictions() == 14
    assert tiers({"type": "resp"}).evictions() is None, "its address is not known"

    def refused(_: StoreClient, section: str) -> dict[str, str]:
        raise NotJudged(f"INFO {section} is not permitted")

    monkeypatch.setattr(StoreClient, "figures", refused)
    assert tiers(RESP).evictions() is None


def test_only_stores_of_this_stack_that_lmcache_asks_anew_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(StoreClient, "ask", lambda _, *words: asked.append(words))
    env = {"LMCACHE_REMOTE_URL": "redis://127.0.0.1:7"}
    own = Server(name="s", url="redis://127.0.0.1:7", process=PROCESS)
    for found, sent in (
        (tiers(server=False, env=env), []),
        (tiers(RESP, stores=(own,)), []),
        (tiers(server=False, env=env, stores=(own,)), [("FLUSHALL",)]),
    ):
        found._subject.engine.server.process = PROCESS
        found.empty()
        assert asked == sent
