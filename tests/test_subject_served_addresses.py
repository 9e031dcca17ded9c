"""TIR-06: what the configuration names is looked at from where the server runs, and every fault is one sentence."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.deadlines import Deadlines
from fixtures.core.errors import NotApplicable, NotJudged, StackError
from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, PodRef, Server, StackRecord
from fixtures.core.redaction.redact import redact
from fixtures.instruments import reach
from fixtures.provide.release.pod_access import PodAccess
from fixtures.subject import served_addresses
from fixtures.subject.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = ProcessRef.of(os.getpid())
QUICK = Deadlines(connect_s=0.05)
SERVER = ("lmcache", "server")


@pytest.fixture(autouse=True)
def _command_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are this process, whose own command line is another."""
    monkeypatch.setattr(ProcessRef, "process", lambda self: SimpleNamespace(cmdline=list, cwd=os.getcwd))


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        number: int = one.getsockname()[1]
        return number


def unserved(one: Stack) -> list[str]:
    return served_addresses.check_addresses(one).unserved


def engine(env: dict[str, str] | None = None, **more: Any) -> EngineServer:
    """An engine with LMCache in process, in this process."""
    argv = ("vllm", "serve", "m", "--kv-transfer-config", '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}')
    given: dict[str, Any] = {"name": "engine-0", "process": HERE, "argv": argv, "env": env or {}}
    return EngineServer(url="http://127.0.0.1:9", **given | more)


def served_by(server: str, number: int) -> EngineServer:
    extra = {"lmcache.mp.host": f"tcp://{server}", "lmcache.mp.port": number}
    text = json.dumps({"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra})
    return engine(argv=("vllm", "serve", "m", "--kv-transfer-config", text))


def cache_server(*words: str) -> Server:
    return Server(name="kv-server", url="http://127.0.0.1:9", process=HERE, argv=(*SERVER, *words))


def adapter(**spec: Any) -> tuple[str, str]:
    return "--l2-adapter", json.dumps(spec)


def stack(folder: Path, *engines: EngineServer, access: Any = None, **more: Any) -> Stack:
    record = StackRecord(
        id="x", kind="process", config="c", folder=folder, model="m", engines=list(engines or [engine()]), **more
    )
    return Stack(record, access, QUICK)


def test_a_healthy_configuration_raises_nothing(tmp_path: Path, port: int) -> None:
    words = (
        *adapter(type="fs", base_path=str(tmp_path)),
        *adapter(type="resp", host="localhost", port=port, password="se-cret-1"),
        "--coordinator-url",
        f"http://0.0.0.0:{port}",
    )
    routers = [
        Server(
            name="router-0",
            url="http://127.0.0.1:9",
            process=HERE,
            argv=("r", "--worker-urls", f"http://127.0.0.1:{port}"),
        )
    ]
    found = stack(tmp_path, served_by("127.0.0.1", port), cache_servers=[cache_server(*words)], routers=routers)
    seen = served_addresses.check_addresses(found)
    assert (seen.unserved, seen.unknown) == ([], [])
    assert seen.looked_at == [
        f"engine-0: lmcache.mp.host names 127.0.0.1:{port}",
        f"kv-server: --l2-adapter (fs) names {tmp_path}",
        f"kv-server: --l2-adapter (resp) names localhost:{port}",
        f"kv-server: --coordinator-url names 0.0.0.0:{port}",
        f"router-0: --worker-urls names 127.0.0.1:{port}",
    ]


def test_every_wrong_address_is_one_sentence(tmp_path: Path, port: int, closed: int) -> None:
    words = (
        *adapter(type="fs", base_path=str(tmp_path / "none")),
        *adapter(type="resp", host="127.0.0.1", port=closed, username="u", password="se-cret-2"),
        *("--coordinator-url", "http://kv-coordinator.invalid:9300"),
    )
    found = unserved(stack(tmp_path, served_by("127.0.0.1", port), cache_servers=[cache_server(*words)]))
    folder, store, host = found
    assert folder == (
        f"kv-server: --l2-adapter (fs) names {tmp_path}/none, which does not exist; create the folder or mount a volume "
        "there, and give the server write permission"
    )
    assert store == (
        f"kv-server: --l2-adapter (resp) names 127.0.0.1:{closed}, which has no listener (connection refused); start "
        "what is meant to serve it, or correct the address"
    )
    assert host.startswith("kv-server: --coordinator-url names kv-coordinator.invalid:9300, which does not resolve (")
    assert "se-cret-2" not in " ".join(found)


def test_the_controller_of_an_engine(tmp_path: Path, port: int, closed: int) -> None:
    env = {
        "LMCACHE_ENABLE_CONTROLLER": "True",
        "LMCACHE_CONTROLLER_PULL_URL": f"127.0.0.1:{port}",
        "LMCACHE_CONTROLLER_REPLY_URL": f"127.0.0.1:{closed}",
    }
    (found,) = unserved(stack(tmp_path, engine(env)))
    assert found.startswith(f"engine-0: LMCACHE_CONTROLLER_REPLY_URL names 127.0.0.1:{closed}, which has no listener")


def test_what_opens_a_moment_later_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    seen = iter([[{"fault": "has no listener", "mounted": None}], [{"fault": None, "mounted": None}]])
    monkeypatch.setattr(reach, "probe", lambda _: next(seen))
    assert unserved(stack(tmp_path, served_by("127.0.0.1", port))) == []


def test_a_relative_path_is_that_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kv").mkdir()
    (tmp_path / "lmcache.yaml").write_text("local_disk: kv\nmax_local_disk_size: 1\n")
    assert unserved(stack(tmp_path, engine({"LMCACHE_CONFIG_FILE": "lmcache.yaml"}))) == []
    (found,) = unserved(stack(tmp_path, engine({"LMCACHE_CONFIG_FILE": "none.yaml"})))
    assert (
        found
        == "engine-0: LMCACHE_CONFIG_FILE names none.yaml, which does not exist; mount it there, or correct the path"
    )


def test_the_password_in_the_file_of_lmcache_is_masked(tmp_path: Path, port: int) -> None:
    file = tmp_path / "lmcache.yaml"
    file.write_text(f"remote_url: redis://u:se+cret+4@127.0.0.1:{port}\nextra_config: {{password: se+cret+5}}\n")
    assert unserved(stack(tmp_path, engine({"LMCACHE_CONFIG_FILE": str(file)}))) == []
    assert redact("refused se+cret+4 and se+cret+5") == "refused [redacted] and [redacted]"


def test_where_nothing_is_named_it_does_not_apply(tmp_path: Path) -> None:
    env = {"LMCACHE_REMOTE_URL": "", "LMCACHE_MAX_LOCAL_DISK_SIZE": "10", "LMCACHE_CONTROLLER_PULL_URL": "x:1"}
    with pytest.raises(NotApplicable, match="names no address and no path"):
        unserved(stack(tmp_path, engine(env)))


def test_by_url_alone_it_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="command line of engine engine-0 is not known") as reason:
        unserved(stack(tmp_path, engine(argv=(), process=None)))
    assert not isinstance(reason.value, NotApplicable)


def test_a_server_of_another_machine_is_not_judged(tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="is not a process of this machine"):
        unserved(stack(tmp_path, engine({"LMCACHE_REMOTE_URL": "lm://x:1"}, process=None)))


def test_after_a_server_has_ended_it_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: int
) -> None:
    one = stack(tmp_path, served_by("127.0.0.1", closed))
    monkeypatch.setattr(one.health, "gone", lambda: {"kv-server": "it ended"})
    with pytest.raises(NotJudged, match="kv-server has ended"):
        unserved(one)


class Pod(PodAccess):
    """A container in which scripts run, with an environment of its own, and a cluster that explains."""

    api_key = None

    def __init__(self, why: str | None = None, **env: str) -> None:
        self.why, self.env, self.asked = why, env, []  # type: tuple[str | None, dict[str, str], list[Any]]

    def python(self, _: Server, script: str, *args: str, deadline_s: float = 30.0) -> str:
        command = [sys.executable, "-I", "-S", "-c", script, *args]
        return subprocess.run(
            command, env=self.env, capture_output=True, check=True, text=True, timeout=deadline_s
        ).stdout

    @property
    def release(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(why_unserved=self.explain)

    def explain(self, namespace: str, host: str, number: int, *, connected: bool) -> str | None:
        self.asked.append((namespace, host, number, connected))
        return self.why if not connected or self.certain else None

    certain = False
    """Whether the cluster is sure without a connection that fails."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


IN_POD = PodRef(namespace="n", name="engine-0", uid="u", container="vllm", port=8000)


def in_pod(folder: Path, access: Any, env: dict[str, str]) -> Stack:
    return stack(folder, engine(env, process=None, pod=IN_POD), access=access)


def test_in_a_pod_the_address_comes_out_of_its_secret(tmp_path: Path, port: int, closed: int) -> None:
    access = Pod("there is no Service store in namespace n", LMCACHE_REMOTE_URL=f"redis://u:se-cret-3@127.0.0.1:{port}")
    one = in_pod(tmp_path, access, {})
    assert unserved(one) == []
    access.env = {"LMCACHE_REMOTE_URL": f"redis://u:se-cret-3@127.0.0.1:{closed}"}
    (found,) = unserved(one)
    assert "which has no listener (connection refused): there is no Service store in namespace n; start" in found
    assert access.asked == [("n", "127.0.0.1", port, True), ("n", "127.0.0.1", closed, False)]
    assert "se-cret-3" not in redact("a text with se-cret-3"), "what was read is masked from now on"


def test_a_connection_that_a_proxy_opens_to_no_server_is_no_proof(tmp_path: Path, port: int) -> None:
    access = Pod("Service kv selects no pod (app=kv)")
    access.certain = True
    (found,) = unserved(in_pod(tmp_path, access, {"LMCACHE_REMOTE_URL": f"lm://127.0.0.1:{port}"}))
    assert f"names 127.0.0.1:{port}, and Service kv selects no pod (app=kv); start" in found


def test_a_variable_of_the_pod_is_filled_in_there(tmp_path: Path, port: int) -> None:
    access = Pod(HOST_IP="127.0.0.1")
    assert unserved(in_pod(tmp_path, access, {"LMCACHE_REMOTE_URL": f"lm://$(HOST_IP):{port}"})) == []
    with pytest.raises(NotJudged, match="a variable that only the running process knows"):
        unserved(in_pod(tmp_path, Pod(), {"LMCACHE_REMOTE_URL": "lm://$(HOST_IP):1"}))


def test_a_folder_without_a_volume_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"LMCACHE_LOCAL_DISK": str(tmp_path), "LMCACHE_MAX_LOCAL_DISK_SIZE": "1"}
    for mounted, faults in ((True, 0), (None, 0), (False, 1)):
        monkeypatch.setattr(Pod, "probe_addresses", lambda *_, m=mounted: [{"fault": None, "mounted": m}])
        found = unserved(in_pod(tmp_path, Pod(), env))
        assert len(found) == faults
    assert f"names {tmp_path}, which is in the container's own layer, because no volume is mounted there" in found[0]
    assert found[0].endswith("; mount a volume there: a PersistentVolumeClaim, or an emptyDir with a size")


def test_without_a_way_into_the_pod_the_cluster_decides(tmp_path: Path) -> None:
    class Closed(Pod):
        def python(self, *_: Any, **__: Any) -> str:
            raise StackError("exec is forbidden")

    env = {"LMCACHE_REMOTE_URL": "lm://store:1"}
    (found,) = unserved(in_pod(tmp_path, Closed("there is no Service store in namespace n"), env))
    assert "names store:1, and there is no Service store in namespace n; start" in found
    with pytest.raises(NotJudged, match="cannot be checked: exec is forbidden"):
        unserved(in_pod(tmp_path, Closed(), env))


def test_a_release_that_is_changed_meanwhile_is_no_fault_of_an_address(tmp_path: Path) -> None:
    class Changing(Pod):
        def python(self, *_: Any, **__: Any) -> str:
            self.changed = True
            raise StackError("the pod is not there")

        def check(self, *_: Any) -> None:
            if getattr(self, "changed", False):
                raise NotJudged("the release was changed meanwhile")

    env = {"LMCACHE_REMOTE_URL": "lm://store:1"}
    with pytest.raises(NotJudged, match="the release was changed meanwhile"):
        unserved(in_pod(tmp_path, Changing("there is no Service store in namespace n"), env))
