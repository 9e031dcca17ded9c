"""Whose fault it is when a pod does not answer: never the pod's while the way to it was broken."""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotJudged, StackError, SubjectFault
from fixtures.core.record import EngineServer, PodRef
from fixtures.core.redaction.redact import redact
from fixtures.core.units import MIB
from fixtures.core.waiting import poll
from fixtures.evidence.pods.containers import role_of
from fixtures.evidence.pods.objects import is_ready, name_of, uid_of
from fixtures.instruments.client import Client
from fixtures.provide.kube import port_forward
from fixtures.provide.release import cluster_session
from fixtures.provide.release.adopt import adopt
from fixtures.provide.release.cluster_session import ClusterSession
from fixtures.provide.release.open_sessions import metrics_of
from fixtures.provide.target import Target
from fixtures.subject.addresses import look_at_addresses
from fixtures.subject.stack import Stack
from tests.test_provide_kube_helm import VALUES
from tests.test_provide_release import Site, changed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("kubernetes")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(4, tmp_path)
    yield made
    made.cluster.stop()


@pytest.fixture
def access(site: Site, tmp_path: Path, httpserver: object) -> Iterator[ClusterSession]:
    values = json.loads(json.dumps(VALUES))
    values["servingEngineSpec"]["modelSpec"][0]["hf_token"] = "word-that-nobody-knows"
    record = site.install(values).record
    (pod,) = [one for one in site.cluster.pods("mine") if role_of(one) == "engine"]
    reference = PodRef(namespace="mine", name=name_of(pod), uid=uid_of(pod), container="vllm", port=8000, restarts=0)
    status = pod["status"]["containerStatuses"][0]
    status["restartCount"] = 0
    record.engines = [
        EngineServer(name="engine", url="http://10.0.0.1:8000", pod=reference, argv=("vllm", "serve", "m"))
    ]
    site.cluster.targets["vllm", 8000] = ("127.0.0.1", httpserver.port)  # type: ignore[attr-defined]
    httpserver.expect_request("/metrics").respond_with_data("x 1\n")  # type: ignore[attr-defined]
    with ClusterSession(record, tmp_path / "access") as opened:
        yield opened


def engine(access: ClusterSession) -> EngineServer:
    return access.record.engines[0]


def test_addresses_and_logs_are_of_this_machine(access: ClusterSession) -> None:
    assert engine(access).url.startswith("http://127.0.0.1:")
    assert requests.get(f"{engine(access).url}/metrics", timeout=5).text == "x 1\n"
    log = engine(access).log
    assert log is not None
    assert "starting" in log.read_text()
    assert metrics_of(access) == {"engine": "x 1\n"}


def test_secrets_of_the_values_are_masked_from_then_on(access: ClusterSession) -> None:
    assert redact("said word-that-nobody-knows aloud") == "said [redacted] aloud"


def test_a_pod_that_runs_is_not_blamed(access: ClusterSession) -> None:
    access.check(engine(access))


def test_a_restart_is_the_subjects_fault(site: Site, access: ClusterSession) -> None:
    site.cluster.restart(engine(access).pod.name, why="OOMKilled", code=137)  # type: ignore[union-attr]
    with pytest.raises(
        SubjectFault, match=r"engine ended during the run \(1 restarts\): container vllm was OOMKilled: its"
    ):
        access.check(engine(access))


def test_another_end_is_told_with_its_code(site: Site, access: ClusterSession) -> None:
    site.cluster.restart(engine(access).pod.name, why="Error", code=1)  # type: ignore[union-attr]
    with pytest.raises(SubjectFault, match=r"engine ended during the run \(Error \(exit code 1\), 1 restarts\)"):
        access.check(engine(access))


@pytest.mark.parametrize("why", ["Unknown", "ContainerStatusUnknown", "definition changed", "resize requires restart"])
def test_an_end_that_others_brought_about_is_not_judged(site: Site, access: ClusterSession, why: str) -> None:
    pod = pod_of(site, access)
    words = "the node of pod .* was restarted"
    if " " in why:
        words = f"Container vllm {why}"
        about = {"kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
        told = {"reason": "Killing", "message": f"Container vllm {why}, will be restarted", "involvedObject": about}
        site.cluster.put("api/v1/events", "mine", {**told, "metadata": {"name": "e"}, "lastTimestamp": in_an_hour()})
    site.cluster.restart(name_of(pod), why="Error" if " " in why else why, code=255)
    with pytest.raises(NotJudged, match=f"the release was changed meanwhile: .*{words}"):
        access.check(engine(access))
    access.release.facts.restarts_before = {uid_of(one): 0 for one in site.cluster.pods("mine")}
    with pytest.raises(NotJudged, match=f"the release was changed meanwhile: .*{words}"):
        access.release.starts()
    other = next(one for one in site.cluster.pods("mine") if uid_of(one) != uid_of(pod))
    site.cluster.restart(name_of(other), why="Error", code=1)
    assert [one.restarts for one in access.release.starts()] == [1], "one that ended by itself is judged"


def pod_of(site: Site, access: ClusterSession) -> dict[str, Any]:
    return next(one for one in site.cluster.pods("mine") if uid_of(one) == engine(access).pod.uid)  # type: ignore[union-attr]


def test_a_pod_that_is_deleted_is_a_change_of_the_release(site: Site, access: ClusterSession) -> None:
    name = engine(access).pod.name  # type: ignore[union-attr]
    about = {"kind": "ReplicaSet", "name": "rs", "uid": "2"}
    told = {"reason": "SuccessfulDelete", "message": f"Deleted pod: {name}", "involvedObject": about}
    site.cluster.put("api/v1/events", "mine", {**told, "metadata": {"name": "e"}, "lastTimestamp": in_an_hour()})
    pod_of(site, access)["metadata"]["deletionTimestamp"] = "2026-11-25T14:00:00Z"
    with pytest.raises(
        NotJudged, match=rf"the release was changed meanwhile: pod {name} is being deleted \(SuccessfulDelete"
    ):
        access.check(engine(access))
    site.cluster._drop("api/v1/pods", "mine", name)
    with pytest.raises(NotJudged, match=rf"pod {name} was deleted \(SuccessfulDelete: Deleted pod: {name}\)"):
        access.check(engine(access))
    with pytest.raises(NotJudged, match="the release was changed meanwhile"):
        access.resident_bytes(engine(access))


def in_an_hour() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))


def test_a_drained_node_is_told_by_the_pod_and_by_the_one_in_its_place(site: Site, access: ClusterSession) -> None:
    """Recorded on a node that was drained: no event says so, and that of the installation is an old story."""
    pod = pod_of(site, access)
    name = name_of(pod)
    made = {"reason": "ScalingReplicaSet", "involvedObject": {"kind": "Deployment", "name": name.rsplit("-", 2)[0]}}
    for number, (message, when) in enumerate(
        [
            (f"Scaled up replica set {name.rpartition('-')[0]} from 0 to 1", in_an_hour()),
            (f"Scaled down replica set {name.rpartition('-')[0]} from 1 to 0", "2026-11-25T14:00:00Z"),
        ]
    ):
        event = {**made, "message": message, "metadata": {"name": f"e{number}"}, "lastTimestamp": when}
        site.cluster.put("api/v1/events", "mine", event)
    pod["metadata"]["deletionTimestamp"] = "2026-11-29T02:24:16Z"
    evicted = {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}
    pod["status"]["conditions"].append(evicted)
    with pytest.raises(NotJudged, match=rf"pod {name} is being deleted \(Eviction API: evicting\); do not scale down"):
        access.check(engine(access))
    site.cluster._drop("api/v1/pods", "mine", name)
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 fit"}
    other = f"{name.rpartition('-')[0]}-other"
    site.cluster.put(
        "api/v1/pods", "mine", {"metadata": {"name": other, "uid": "o"}, "status": {"conditions": [waits]}}
    )
    with pytest.raises(
        NotJudged,
        match=rf"pod {name} was deleted \(Eviction API: evicting; in its place {other} is Unschedulable: 0/1 fit\)",
    ):
        access.check(engine(access))


def test_an_evicted_pod_is_a_change_unless_it_broke_its_own_limit(site: Site, access: ClusterSession) -> None:
    status = pod_of(site, access)["status"]
    status |= {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    with pytest.raises(NotJudged, match="is Evicted: The node was low on resource: memory"):
        access.check(engine(access))
    status["message"] = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
    with pytest.raises(SubjectFault, match="was evicted: Pod ephemeral local storage"):
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


def test_a_log_that_is_never_quiet_holds_nobody_up(site: Site, access: ClusterSession, tmp_path: Path) -> None:
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
def test_a_death_that_cuts_a_connection_is_still_a_death(site: Site, access: ClusterSession) -> None:
    access._endpoints._forwards["engine"]._note("cut")
    name = engine(access).pod.name  # type: ignore[union-attr]
    threading.Timer(0.5, lambda: site.cluster.restart(name)).start()
    with pytest.raises(SubjectFault, match="ended during the run"):
        access.check(engine(access))


def test_a_cut_alone_is_an_error_of_the_run(access: ClusterSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_session, "END_SHOWS_S", 0.2)
    access._endpoints._forwards["engine"]._note("cut")
    with pytest.raises(StackError, match="does not prove a fault of the pod"):
        access.check(engine(access))


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
    target = Target(
        helm=str(site.helm.command[0]),
        context="fake",
        kubeconfig=site.kube.context.kubeconfig,
        namespace="mine",
        release="rel",
    )
    began = time.monotonic()
    record = adopt(target, folder=tmp_path / "run", device="cpu")
    assert len(record.engines) == count
    with ClusterSession(record, tmp_path / "many") as access:
        assert time.monotonic() - began < 15 * busy(), f"{time.monotonic() - began:.1f} s to adopt {count} engines"
        assert all(one.log is not None and "starting" in one.log.read_text() for one in access.record.engines)
        quiet = poll(lambda: connections_to(site.cluster.port), lambda now: now <= count + 16, 10.0)
    assert quiet <= count + 16, "a log each, and a few to ask with; a port takes none until it is used"


def busy() -> float:
    """How much longer things take on this machine now than on an idle one: its load per core, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def connections_to(port: int) -> int:
    found = psutil.Process().net_connections("tcp")
    return sum(1 for one in found if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED)


def test_names_that_nobody_tells_are_not_judged(access: ClusterSession) -> None:
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
    assert look_at_addresses(stack).unserved == []
    seen["fault"] = "does not resolve"  # type: ignore[assignment]
    (found,) = look_at_addresses(stack).unserved
    assert found == (
        "engine: LMCACHE_REMOTE_URL names kv-store:65432, which does not resolve: there is no Service kv-store in namespace "
        "mine; start what is meant to serve it, or correct the address"
    )
