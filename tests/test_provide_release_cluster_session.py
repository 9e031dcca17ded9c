"""Whose fault it is when a pod does not answer: never the pod's while the way to it was broken."""

from __future__ import annotations

import datetime
import json
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged, StackError
from fixtures.core.redaction.redact import redact
from fixtures.core.units import MIB
from fixtures.core.waiting import poll
from fixtures.evidence.pods.objects import is_ready
from fixtures.instruments.client import Client
from fixtures.provide.kube import port_forward
from fixtures.provide.release import cluster_session
from fixtures.provide.release.adopt import adopt
from fixtures.provide.release.cluster_session import ClusterSession
from fixtures.provide.release.open_sessions import metrics_of
from fixtures.subject.served_addresses import check_addresses
from fixtures.subject.stack import Stack
from tests import release_access
from tests.release_access import engine, pod_of
from tests.release_site import Site, busy, changed

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("kubernetes")

access = release_access.access
site = release_access.site


def test_addresses_and_logs_are_of_this_machine(access: ClusterSession) -> None:
    assert engine(access).url.startswith("http://127.0.0.1:")
    assert requests.get(f"{engine(access).url}/metrics", timeout=5).text == "x 1\n"
    log = engine(access).log
    assert log is not None
    assert "starting" in log.read_text()
    assert metrics_of(access) == {"engine": "x 1\n"}


def test_secrets_of_the_values_are_masked_from_then_on(access: ClusterSession) -> None:
    assert redact("said word-of-a-secret aloud") == "said [redacted] aloud"


def test_a_pod_that_runs_is_not_blamed(access: ClusterSession) -> None:
    access.check(engine(access))


def test_the_state_of_a_pod_explains_an_answer(site: Site, access: ClusterSession) -> None:
    assert access.state(engine(access)).endswith(": Ready")
    for condition in pod_of(site, access)["status"]["conditions"]:
        if condition["type"] == "Ready":
            condition |= {"status": "False", "reason": "ContainersNotReady"}
    assert "not Ready" in access.state(engine(access))


def test_what_was_logged_before_the_run_is_history(site: Site, access: ClusterSession, tmp_path: Path) -> None:
    name = engine(access).pod.name  # type: ignore[union-attr]
    site.cluster.logs[name][:0] = [("2026-01-01T00:00:00.000000001Z", "LMCache ERROR: Put task failed for key x")]
    record = access._saved.model_copy(update={"kind": "attach", "created": time.time() - 60})
    with ClusterSession(record, tmp_path / "attached") as attached:
        one = engine(attached)
        assert one.log is not None
        assert attached.history_bytes(one) == len(b"LMCache ERROR: Put task failed for key x\n")
        assert "Put task failed" in one.log.read_text()
        assert "Put task failed" not in attached._log_since(one)
    assert access.history_bytes(engine(access)) == 0, "a stack of this run's own has no history"


def test_a_log_that_is_never_quiet_delays_nothing(site: Site, access: ClusterSession, tmp_path: Path) -> None:
    lines = site.cluster.logs[engine(access).pod.name]  # type: ignore[union-attr]
    over = threading.Event()

    def chatter() -> None:
        while not over.wait(0.005):
            moment = datetime.datetime.now(datetime.UTC)
            lines.append((f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond * 1000:09}Z", "GET /health"))

    talker = threading.Thread(target=chatter, daemon=True)
    talker.start()
    try:
        last, began = len(lines), time.monotonic()
        with ClusterSession(access._saved, tmp_path / "busy") as busy:
            assert time.monotonic() - began < 3.0
            log = engine(busy).log
            assert log is not None
            assert log.read_text().count("\n") >= last, "what was logged before is there"
    finally:
        over.set()
        talker.join()


def test_what_only_looks_inside_follows_nothing(access: ClusterSession, tmp_path: Path) -> None:
    with ClusterSession(access._saved, tmp_path / "inside", inside_only=True) as inside:
        assert engine(inside).log is None
        assert engine(inside).url == access._saved.engines[0].url
    assert not (tmp_path / "inside").exists() or not list((tmp_path / "inside").glob("*.log"))


@pytest.mark.long
def test_a_long_absence_is_not_forgotten_over_the_wait(
    site: Site, access: ClusterSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_session, "END_SHOWS_S", 0.2)
    monkeypatch.setattr(cluster_session, "AWAY_S", 0.5)
    monkeypatch.setattr(port_forward, "RECENT_S", 0.1)
    client = Client(engine(access).url)
    client.on_trouble = lambda: access.check(engine(access))
    assert client.get("/metrics").status == 200
    with site.cluster.away():
        back = threading.Timer(1.5, site.cluster.start)
        back.start()
        with pytest.raises(StackError, match="does not prove a fault of the pod"):
            client.get("/metrics")
        back.join()
        assert client.get("/metrics").status == 200  # what follows goes on
        site.cluster.stop()


def test_memory_is_read_in_the_container(site: Site, access: ClusterSession) -> None:
    site.cluster.programs["memory.stat"] = "anon 100\nshmem 7\n"
    assert access.resident_bytes(engine(access)) == 107
    site.cluster.programs = {}
    with pytest.raises(NotJudged, match=r"the memory of pod .* cannot be read"):
        access.resident_bytes(engine(access))


@pytest.mark.long
def test_gpu_memory_is_read_in_the_container(site: Site, access: ClusterSession) -> None:
    stack = Stack(access.record, access)
    with pytest.raises(NotJudged, match="run on the CPU"):
        stack.gpu_memory()
    stack.record.device = "cuda"
    with (
        pytest.raises(NotJudged, match=r"has no nvidia-smi, so .*NVIDIA's container runtime"),
        stack.gpu_memory(),
    ):
        pass
    query = "nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used --format=csv,noheader,nounits"
    site.cluster.programs[query] = "0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 40000\n1, GPU-b, NVIDIA H100, 81559, 1000\n"
    seen: list[object] = []
    stack.context.on_gpu_memory = seen.append
    with stack.gpu_memory() as memory:
        use = memory.read()
    assert (use.cards[0].engine, use.cards[1].engine, use.engine) == (40000 * MIB, 1000 * MIB, 41000 * MIB)
    assert seen == [memory]
    site.cluster.forbidden.add(("create", "pods/exec"))
    site.cluster.forbidden.add(("get", "pods/exec"))
    with pytest.raises(NotJudged, match=r"cannot be read: .*forbidden"), stack.gpu_memory():
        pass
    access.kube.patience_s = 0.5
    with site.cluster.away(), pytest.raises(StackError, match="does not answer"), stack.gpu_memory():
        pass


@pytest.mark.long
def test_sixty_four_engines_take_one_connection_each(site: Site, tmp_path: Path) -> None:
    count = 64
    site.cluster.programs["memory.stat"] = "anon 100\nshmem 7\n"
    site.install(changed(replicaCount=count))
    poll(lambda: sum(map(is_ready, site.cluster.pods("mine"))), lambda ready: ready > count, 30.0)
    began = time.monotonic()
    record = adopt(site.target, folder=tmp_path / "run", device="cpu")
    assert len(record.engines) == count
    with ClusterSession(record, tmp_path / "many") as access:
        assert time.monotonic() - began < 15 * busy(), f"{time.monotonic() - began:.1f} s to adopt {count} engines"
        assert all(one.log is not None and "starting" in one.log.read_text() for one in access.record.engines)
        quiet = poll(lambda: connections_to(site.cluster.port), lambda now: now <= count + 16, 10.0)
    assert quiet <= count + 16, "a log each, and a few to ask with; a port takes none until it is used"


def connections_to(port: int) -> int:
    found = psutil.Process().net_connections("tcp")
    return sum(1 for one in found if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED)


def test_names_that_are_not_known_are_not_judged(access: ClusterSession) -> None:
    with pytest.raises(NotJudged, match="cannot determine which LMCACHE_"):
        _ = access.lmcache_names
    stack = Stack(access.record, access)
    with pytest.raises(NotJudged, match="has no router"):
        _ = stack.router
    with pytest.raises(NotJudged, match="has no API key"):
        _ = stack.clients_without_key()


def test_an_address_is_looked_at_from_inside_the_container(site: Site, access: ClusterSession) -> None:
    text = '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'
    access.record.engines[0].argv = ("vllm", "serve", "m", "--kv-transfer-config", text)
    access.record.engines[0].env = {"LMCACHE_REMOTE_URL": "lm://kv-store:65432"}
    stack = Stack(access.record, access, Deadlines(connect_s=0.05))
    seen = {"fault": None, "mounted": None}
    site.cluster.programs["names = set(sys.argv"] = "{}"
    site.cluster.programs["getaddrinfo"] = lambda: json.dumps([seen])
    assert check_addresses(stack).unserved == []
    seen["fault"] = "does not resolve"  # type: ignore[assignment]
    (found,) = check_addresses(stack).unserved
    assert found == (
        "engine: LMCACHE_REMOTE_URL names kv-store:65432, which does not resolve: there is no Service kv-store in namespace "
        "mine; start what is meant to serve it, or correct the address"
    )
