"""Local processes behind a KV-aware router: its controller, what the engines tell it, and where they are."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.record import EngineServer
from fixtures.evidence.flags import flag_value
from fixtures.provide.process import routers
from fixtures.provide.process.host_copies import CACHE_FOLDER, host_copy, stays_in_process
from fixtures.provide.process.local_servers import new_engine
from fixtures.provide.process.local_stores import Stores
from fixtures.provide.process.router_environment import RouterEnv
from fixtures.provide.values.config import load_config
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.router_command import router_of

CONFIGS = Path(__file__).parents[1] / "configs"
PYPI = RouterEnv(Path("/env/bin/python"), "vllm-router", "0.1.17")
OWN = RouterEnv(Path("/env/bin/python"), "production-stack", "0.1.12")


def test_a_local_router_is_kv_aware_only_where_the_engines_can_tell_it_what_they_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = OWN
    monkeypatch.setattr(routers, "router_environment", lambda python, *, report: PYPI if python is None else env)
    config = load_config("router-kv", CONFIGS)
    engine = render_engine(config.values)
    plain = routers.Routers.of(config, None, print, "cpu")
    assert plain is not None
    assert (plain.reported_to(engine), plain.variables_of_engine(engine.effective_env)) == (engine, {})
    assert not stays_in_process(engine)
    with pytest.raises(
        ConfigurationError, match=r"LMCache is not installed beside it: install lmcache there, .*--stack chart"
    ):
        routers.Routers.of(config, OWN.python, print, "cpu")
    env = dataclasses.replace(OWN, lmcache=True)
    with pytest.raises(ConfigurationError, match=r"two engines on a CPU .*replicaCount to 1, omit --router-python"):
        routers.Routers.of(config, OWN.python, print, "cuda")


def test_engines_report_to_the_controller_of_a_kv_aware_router(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = dataclasses.replace(OWN, lmcache=True)
    monkeypatch.setattr(routers, "router_environment", lambda python, *, report: env)
    config = load_config("router-kv", CONFIGS)
    made = routers.Routers.of(config, OWN.python, print, "cpu")
    assert made is not None
    assert list(made.controller) == [9000, 9001, 9002]
    engine = made.reported_to(render_engine(config.values))
    variables = engine.effective_env
    assert variables["LMCACHE_CONTROLLER_PULL_URL"] == f"127.0.0.1:{made.controller[9000]}"
    assert variables["LMCACHE_CONTROLLER_REPLY_URL"] == f"127.0.0.1:{made.controller[9001]}"
    assert stays_in_process(engine)
    assert host_copy(engine, "cpu") == (CACHE_FOLDER,)
    ports = [made.variables_of_engine(variables)["LMCACHE_LMCACHE_WORKER_PORTS"] for _ in range(2)]
    assert ports[0] != ports[1] != "8001"
    servers = [EngineServer(name=url, url=url, log=None) for url in ("http://127.0.0.1:1", "http://127.0.0.1:2")]
    words = routers.router_argv(
        made.command, env, servers, "m", host="h", port=9, metrics_port=10, controller=made.controller
    )
    for name, asked in (("port", 9000), ("reply-port", 9001), ("heartbeat-port", 9002)):
        assert words[words.index(f"--lmcache-controller-{name}") + 1] == str(made.controller[asked])


def test_engines_of_a_kv_aware_router_have_addresses_of_their_own(tmp_path: Path) -> None:
    config = load_config("router-kv", CONFIGS)
    command = router_of(config.values)
    assert command is not None
    record = SimpleNamespace(model_folder=None, device="cpu", gpu_indices=(), folder=tmp_path)
    plain = render_engine(config.values)
    reports = routers.Routers(command, OWN, {port: 1000 + port for _, port in command.controller}).reported_to(plain)
    stores = Stores((), ())
    made = [new_engine(record, reports, config, OWN.python, index, None, stores)[0] for index in (0, 1)]  # type: ignore[arg-type]
    assert [one.url.rpartition(":")[0] for one in made] == ["http://127.0.0.2", "http://127.0.0.3"]
    assert [one.env["POD_IP"] for one in made] == ["127.0.0.2", "127.0.0.3"]
    assert [one.env["LMCACHE_LMCACHE_INSTANCE_ID"] for one in made] == ["mistral-0", "mistral-1"]
    assert [flag_value(one.argv, "--host") for one in made] == ["127.0.0.2", "127.0.0.3"]
    server = EngineServer(name="kv", url="http://127.0.0.1:1", log=None)
    usual, _ = new_engine(record, plain, config, OWN.python, 1, (server, 7), stores)  # type: ignore[arg-type]
    assert usual.url.startswith("http://127.0.0.1:")
    for one in (*made, usual):
        assert one.tmp is not None
        shutil.rmtree(one.tmp)


def test_a_controller_that_the_values_do_not_name_correctly_stays_unreachable(tmp_path: Path) -> None:
    """The router's controller listens at another port than the engines are told: TIR-06 has to find that here, too."""
    path = tmp_path / "values.yaml"
    text = (CONFIGS / "router-kv" / "values.yaml").read_text()
    path.write_text(text.replace(" controllerReplyPort: 9001", " controllerReplyPort: 9"))
    values = load_values(path)
    command = router_of(values)
    assert command is not None
    made = routers.Routers(command, OWN, {port: 1000 + port for _, port in command.controller})
    env = made.reported_to(render_engine(values)).effective_env
    assert env["LMCACHE_CONTROLLER_PULL_URL"] == "127.0.0.1:10000"
    assert env["LMCACHE_CONTROLLER_REPLY_URL"] == "127.0.0.1:9"
