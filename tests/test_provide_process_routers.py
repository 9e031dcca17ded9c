"""Local routers: what the values ask for, their environment, their command, and that they come and go with their stack."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import yaml

from fixtures.core.errors import ConfigurationError, NotJudged, StackError
from fixtures.core.record import EngineServer, StackRecord
from fixtures.provide.process import launch, router_environment, routers
from fixtures.provide.process.process_teardown import tear_down
from fixtures.provide.process.router_environment import RouterEnv, adopt, ensure
from fixtures.provide.process.routers import POLICY_OF, router_argv, substitutions
from fixtures.provide.values.config import load_config
from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.render import render_engine
from fixtures.provide.values.router_command import POLICIES, RouterCommand, router_of
from fixtures.subject.stack import Stack
from tests import fakes, process_place

if TYPE_CHECKING:
    from tests.process_place import Place

place = process_place.place

ENGINES = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
PYPI = RouterEnv(Path("/env/bin/python"), "vllm-router", "0.1.17")
OWN = RouterEnv(Path("/env/bin/python"), "production-stack", "0.1.12")
CONFIG = Path(__file__).parents[1] / "configs" / "two-engines" / "values.yaml"


def asked(tmp_path: Path, text: str) -> RouterCommand | None:
    path = tmp_path / "values.yaml"
    path.write_text(CONFIG.read_text().split("routerSpec:")[0] + text)
    return router_of(load_values(path))


def argv(command: RouterCommand, env: RouterEnv) -> list[str]:
    servers = [EngineServer(name=url, url=url, log=None) for url in ENGINES]
    return list(router_argv(command, env, servers, "m", host="127.0.0.1", port=9, metrics_port=10))


# --- what the values ask for ------------------------------------------------------------------------------------------


def test_a_router_is_what_router_spec_asks_for(tmp_path: Path) -> None:
    assert asked(tmp_path, "") is None, "the chart would start one, but it was not asked for"
    assert asked(tmp_path, "routerSpec: {enableRouter: false, routingLogic: session}") is None
    assert asked(tmp_path, "routerSpec: {replicaCount: 2}") == RouterCommand("roundrobin", None, 2)
    assert asked(tmp_path, "routerSpec: {routingLogic: session}") == RouterCommand("session", "x-user-id", 1)
    assert asked(tmp_path, "routerSpec: {routingLogic: session, sessionKey: who, extraArgs: [--log-stats]}") == (
        RouterCommand("session", "who", 1, ("--log-stats",))
    )


def test_a_policy_without_a_local_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"disaggregated_prefill.*enableRouter to false"):
        asked(tmp_path, "routerSpec: {routingLogic: disaggregated_prefill}")
    assert set(POLICY_OF) == set(POLICIES)


def test_keys_of_the_router_that_mean_nothing_here_are_named(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(CONFIG.read_text().replace("  replicaCount: 1\n  routing", "  tag: v1\n  routing"))
    assert "routerSpec.tag: no image is pulled; a local Python environment takes its place" in ignored(
        load_values(path)
    )
    path.write_text(CONFIG.read_text().replace("enableRouter: true", "enableRouter: false"))
    assert "routerSpec: no router is started" in ignored(load_values(path))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_of_the_router_from_pypi() -> None:
    words = argv(RouterCommand("session", "x-user-id", 1), PYPI)
    assert words[:3] == ["/env/bin/python", "-m", "vllm_router.launch_router"]
    assert words[words.index("--worker-urls") + 1 :][:2] == ENGINES
    assert words[words.index("--policy") + 1] == "consistent_hash"
    said = "\n".join(substitutions(RouterCommand("session", "x-user-id", 1), PYPI))
    assert "routing logic: session -> consistent_hash" in said
    assert "session key" not in said
    said = "\n".join(substitutions(RouterCommand("session", "who", 1, ("--log-stats",)), PYPI))
    assert "session key: who -> x-session-id, x-user-id, x-tenant-id" in said
    assert "options of the router: --log-stats -> (none)" in said


def test_what_stands_for_a_kv_aware_router_is_declared() -> None:
    command = RouterCommand("kvaware", None, 1)
    words = argv(command, PYPI)
    assert words[words.index("--policy") + 1] == "cache_aware"
    said = "\n".join(substitutions(command, PYPI))
    assert "registry of the router: LMCache's controller -> a tree of prefixes" in said


@pytest.mark.parametrize(
    ("policy", "env", "vllm", "words"),
    [
        ("prefixaware", PYPI, "0.32.0+cpu", ("--enable-scale-out",)),
        ("kvaware", PYPI, "1.0.0", ("--enable-scale-out",)),
        ("prefixaware", PYPI, "0.31.0", ()),
        ("session", PYPI, "0.32.0", ()),
        ("prefixaware", OWN, "0.32.0", ()),
    ],
)
def test_engines_turn_prompts_into_tokens_for_a_router_that_goes_by_them(
    policy: str, env: RouterEnv, vllm: str, words: tuple[str, ...]
) -> None:
    assert routers.Routers(RouterCommand(policy, None, 1), env).words_of_engines(vllm) == words


def test_requests_are_sent_again_as_often_as_production_stack_would() -> None:
    none, twice = RouterCommand("session", "x-user-id", 1), ("--max-instance-failover-reroute-attempts", "2")
    assert "--disable-retries" in argv(none, PYPI)
    words = argv(dataclasses.replace(none, extra_args=twice), PYPI)
    assert words[words.index("--retry-max-retries") + 1] == "2"
    said = "\n".join(substitutions(dataclasses.replace(none, extra_args=twice), PYPI))
    assert f"options of the router: {' '.join(twice)} -> --retry-max-retries 2" in said


def test_the_command_of_production_stacks_own_router() -> None:
    words = argv(RouterCommand("session", "who", 1, ("--log-stats",)), OWN)
    assert words[:3] == ["/env/bin/python", "-m", "vllm_router.app"]
    assert words[words.index("--static-backends") + 1] == ",".join(ENGINES)
    assert words[words.index("--static-models") + 1] == "m,m"
    assert words[words.index("--routing-logic") + 1] == "session"
    assert words[words.index("--session-key") + 1] == "who"
    assert "--log-stats" in words
    assert "routing logic" not in "\n".join(substitutions(RouterCommand("session", "who", 1), OWN))


def test_production_stacks_router_is_told_every_name_of_an_engine() -> None:
    names = ("vllm", "serve", "m", "--served-model-name", "m", "alias", "--lora-modules", "a=/a", "--port", "1")
    servers = [EngineServer(name=url, url=url, log=None, argv=names) for url in ENGINES]
    command = RouterCommand("session", "who", 1)
    words = list(router_argv(command, OWN, servers, "m", host="127.0.0.1", port=9, metrics_port=10))
    assert words[words.index("--static-models") + 1] == "m,alias,a,m,alias,a"
    assert words[words.index("--static-backends") + 1] == ",".join([ENGINES[0]] * 3 + [ENGINES[1]] * 3)


def test_the_controller_is_started_before_the_engines_that_look_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    for module in (routers, launch):
        monkeypatch.setattr(module, "spawn", lambda server, *_: started.append(server.name))
    config = load_config("router-kv", Path(__file__).parents[1] / "configs")
    command = router_of(config.values)
    assert command is not None
    made = routers.Routers(command, OWN, {port: 1000 + port for _, port in command.controller})
    engine = made.reported_to(render_engine(config.values))
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m")
    env = SimpleNamespace(python=Path("/env/bin/python"), vllm="0.32.0")
    launch._Launch(record, engine, None, made, config, env, tmp_path, (), None, lambda: None)._start(None)  # type: ignore[arg-type]
    assert started == ["router-0", "mistral-0", "mistral-1"]


@pytest.mark.parametrize("env", [PYPI, OWN])
def test_what_a_router_with_a_fixed_list_does_once_an_engine_ends_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: RouterEnv
) -> None:
    monkeypatch.setattr("fixtures.provide.process.routers.spawn", lambda *_: None)
    engines = [EngineServer(name=url, url=url, argv=("vllm", "serve")) for url in ENGINES]
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m", engines=engines)
    routers.Routers(RouterCommand("session", "x-user-id", 1), env).start(record, tmp_path)
    (router,) = Stack(record).routers
    if env is PYPI:
        router.check_watches()
        return
    looks = RouterCommand("session", "x-user-id", 1, ("--static-backend-health-checks",))
    record.routers.clear()
    routers.Routers(looks, env).start(record, tmp_path)
    Stack(record).routers[0].check_watches()
    record.routers[:] = [router.server]
    with pytest.raises(
        NotJudged, match=r"fixed list of engines .*: judge a release \(--stack chart\), or omit --router-python"
    ):
        router.check_watches()


# --- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["vllm-router", "production-stack"])
def test_a_router_of_the_user_is_recognised(tmp_path: Path, program: str) -> None:
    python = fakes.make_router(tmp_path / "router", program=program)
    assert adopt(python) == RouterEnv(python, program, "0.1.17")  # type: ignore[arg-type]


def test_an_interpreter_without_a_router_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no router.*--router-python"):
        adopt(fakes.make(tmp_path / "env").python)
    with pytest.raises(ConfigurationError, match="does not run as a Python interpreter"):
        adopt(tmp_path / "nowhere" / "python")


def test_the_environment_is_made_once_and_made_again_where_it_is_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))
    calls: list[list[str]] = []

    def run(step: list[str], **_: object) -> None:
        calls.append(step)
        if step[1] == "venv":
            fakes.make_router(Path(step[-1]))

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(router_environment, "for_uv", lambda _: ({}, []))
    monkeypatch.setattr(router_environment, "adopt", lambda python: RouterEnv(python, "vllm-router", "0.1.17"))
    said: list[str] = []
    env = ensure(report=said.append)
    assert (env.program, env.version, len(calls), len(said)) == ("vllm-router", "0.1.17", 2, 1)
    assert "--require-hashes" in calls[1]
    assert ensure(report=said.append) == env
    assert len(calls) == 2, "it is there already"
    (env.python.parents[1] / router_environment.MARKER).unlink()
    assert ensure(report=said.append) == env
    assert len(calls) == 4


def test_an_installation_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KV_OFFLOAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("uv.find_uv_bin", lambda: sys.executable)
    monkeypatch.setattr(router_environment, "for_uv", lambda _: ({}, []))
    with pytest.raises(StackError, match=r"router's environment could not be made: .*--router-python"):
        ensure(report=lambda _: None)


# --- its processes ----------------------------------------------------------------------------------------------------


@pytest.fixture
def router_python(place: Place) -> Path:
    """The interpreter of routers, two of which stand in front of two engines."""
    place.config = fakes.make_config(place.folder / "two-engines", replicas=2)
    values = yaml.safe_load((place.config / "values.yaml").read_text())
    values["routerSpec"] = {"routingLogic": "roundrobin", "replicaCount": 2}
    (place.config / "values.yaml").write_text(yaml.safe_dump(values))
    return fakes.make_router(place.folder / "router")


def test_routers_come_and_go_with_their_stack(place: Place, router_python: Path) -> None:
    record = place.up(router_python=router_python)
    try:
        assert [one.name for one in record.routers] == ["router-0", "router-1"]
        assert StackRecord.load(place.registry / f"{record.id}.json") == record
        assert record.versions["vllm-router"] == "0.1.17"
        assert any(text.startswith("routing logic: roundrobin -> round_robin") for text in record.substitutions)
        assert [one.name for one in record.everything] == [
            "fake-0",
            "fake-1",
            "fake-0-tier",
            "fake-1-tier",
            "router-0",
            "router-1",
        ]
        processes = [one.process for one in record.routers]
        assert all(one is not None and one.alive for one in processes)
        stack = Stack(record)
        assert [one.models() for one in stack.routers] == [frozenset({record.model})] * 2
        assert stack.routers[0].log is not None
    finally:
        report = tear_down(record, place.registry)
    assert report.left_running == ()
    assert not any(one is not None and one.alive for one in processes)
    assert not any(one.tmp is not None and one.tmp.exists() for one in record.routers)


def test_a_router_that_dies_says_why_and_takes_everything_with_it(place: Place, router_python: Path) -> None:
    (router_python.parents[1] / "behaviour.json").write_text(json.dumps({"router": ["dies"]}))
    with pytest.raises(StackError, match=r"router-[01] ended while it was starting: .*no policy of that name"):
        place.up(router_python=router_python)
    assert not list(place.registry.glob("*"))
