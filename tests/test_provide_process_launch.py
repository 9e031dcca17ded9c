"""Standing a stack up, with stand-ins for engine and cache server."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from werkzeug import Request, Response

from fixtures.core.deadlines import Deadlines
from fixtures.core.processes import ProcessRef
from fixtures.core.progress import Progress
from fixtures.core.record import EngineServer, Server, StackRecord
from fixtures.instruments.client import Client
from fixtures.instruments.prompts import Prompts
from fixtures.provide.process.launch import stand_up
from fixtures.provide.process.process_teardown import tear_down
from fixtures.provide.serving import first_completion
from fixtures.provide.values.config import load_config
from fixtures.subject.stack import Stack
from tests import fakes, process_place
from tests.process_place import NOTHING, Place, shared_memory_of

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer


place = process_place.place


def test_a_stack_comes_up_whole_and_goes_whole(place: Place) -> None:
    record = place.up()
    assert StackRecord.load(place.folder / "run" / "record.json") == record
    assert StackRecord.load(place.registry / f"{record.id}.json") == record
    assert record.owner == ProcessRef.of(os.getpid())
    assert [server.name for server in record.servers] == ["fake-0", "fake-0-tier"]
    assert record.engines[0].cache_server == "fake-0-tier"
    assert record.versions == {"vllm": fakes.VLLM, "lmcache": fakes.LMCACHE, "torch": fakes.TORCH}
    assert record.model == str(place.config / "model")
    assert record.kv_bytes_per_token == 2 * 2 * 2 * 32 * 2
    assert record.ready_after_s is not None
    assert len({server.url for server in record.servers}) == 2
    for server in record.servers:
        assert server.process is not None
        assert server.process.alive
        assert server.log is not None
        assert server.log.stat().st_size > 0
        assert server.tmp is not None
        assert server.tmp.is_dir()
        assert (server.resident_at_ready_bytes or 0) > 1_000_000
        assert os.getpgid(server.process.pid) == server.process.pid
    engine = record.engines[0]
    assert engine.tmp is not None
    assert engine.env["PROMETHEUS_MULTIPROC_DIR"] == str(engine.tmp / "prometheus")
    assert len(place.running()) == 3, "API server, engine core, cache server"
    assert all(path.exists() for path in shared_memory_of(record))

    stack = Stack(record)
    prompt = Prompts(1, "test", stack.chunk_tokens, stack.max_model_len).unique(chunks=2)
    first, second = stack.complete(prompt, logprobs=1), stack.complete(prompt)
    assert (first.sources.computed, second.sources.gpu_hit) == (513, 512)
    stack.clear_prefix_cache()
    assert stack.complete(prompt).sources.loaded == 512

    report = tear_down(record, place.registry)
    assert report.left_running == report.left_in_shared_memory == ()
    assert report.resident_before_bytes > 0
    assert report.resident_after_bytes == 0
    assert place.left() == NOTHING
    assert not any(path.exists() for path in shared_memory_of(record))
    assert (place.folder / "run" / "record.json").exists()
    again = tear_down(record, place.registry)
    assert (again.resident_before_bytes, again.left_running) == (0, ())
    assert again.seconds < 1


def test_several_engines_have_nothing_in_common(place: Place) -> None:
    fakes.make_config(place.folder / "two" / "fakes", replicas=2)
    place.config = place.folder / "two" / "fakes"
    record = place.up()
    try:
        assert [server.name for server in record.servers] == ["fake-0", "fake-1", "fake-0-tier", "fake-1-tier"]
        assert len({server.url for server in record.servers}) == len({server.tmp for server in record.servers}) == 4
        assert len({engine.env["PROMETHEUS_MULTIPROC_DIR"] for engine in record.engines}) == 2
    finally:
        tear_down(record, place.registry)
    assert place.left() == NOTHING


def test_two_stacks_at_once_do_not_disturb_each_other(place: Place) -> None:
    first, second = place.up("one"), place.up("two")
    assert first.id != second.id
    assert len(place.running()) == 6
    tear_down(first, place.registry)
    assert len(place.running()) == 3
    assert all(server.process is not None and server.process.alive for server in second.servers)
    assert Stack(second).engine.counters().requests_finished == 2
    tear_down(second, place.registry)
    assert place.left() == NOTHING


def test_without_offload_there_is_no_cache_server(place: Place) -> None:
    fakes.make_config(place.folder / "plain" / "fakes", cache_server=False)
    place.config = place.folder / "plain" / "fakes"
    record = place.up()
    assert [server.name for server in record.servers] == ["fake-0"]
    tear_down(record, place.registry)
    assert place.left() == NOTHING


def test_hooks_come_first_on_the_path_of_every_process(place: Place) -> None:
    hook = place.folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("print('seeded', flush=True)\n")
    env = replace(place.env)
    record = stand_up(
        load_config(str(place.config), place.folder),
        env,
        folder=place.folder / "run",
        cache=place.folder / "cache",
        progress=Progress(place.said, live=False),
        deadlines=place.deadlines,
        device="cpu",
        hooks=(hook,),
    )
    tear_down(record, place.registry)
    for server in record.servers:
        assert server.log is not None
        assert server.log.read_text().startswith("seeded\n")


def test_a_short_context_and_a_small_vocabulary_are_served(tmp_path: Path, httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        prompt = request.get_json()["prompt"]
        good = len(prompt) <= 512 and max(prompt) < 16
        return Response("{}", status=200 if good else 400, content_type="application/json")

    httpserver.expect_request("/v1/completions").respond_with_handler(answer)
    engine = EngineServer(name="e", url=httpserver.url_for(""))
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m", engines=[engine])
    first_completion(record, engine, Client(engine.url))
    assert len(httpserver.log) == 2


def test_no_engine_is_asked_first_what_another_has_stored(tmp_path: Path, httpserver: HTTPServer) -> None:
    """The second of two engines of different data types ended at its first completion, and the stack was never ready (seen)."""
    prompts: list[tuple[int, ...]] = []

    def answer(request: Request) -> Response:
        prompts.append(tuple(request.get_json()["prompt"]))
        return Response("{}", content_type="application/json")

    httpserver.expect_request("/v1/completions").respond_with_handler(answer)
    engines = [EngineServer(name=name, url=httpserver.url_for("")) for name in ("e-0", "e-1")]
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m", engines=engines)
    for engine in engines:
        first_completion(record, engine, Client(engine.url))
    assert len({prompt[:256] for prompt in prompts if len(prompt) > 256}) == 2


def test_a_router_is_asked_with_text(tmp_path: Path, httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        is_text = isinstance(request.get_json()["prompt"], str)
        return Response("{}", status=200 if is_text else 500, content_type="application/json")

    httpserver.expect_request("/v1/completions").respond_with_handler(answer)
    router = Server(name="router-0", url=httpserver.url_for(""))
    record = StackRecord(id="s", kind="process", config="c", folder=tmp_path, model="m", routers=[router])
    first_completion(record, router, Client(router.url))
    assert len(httpserver.log) == 2


def test_weights_and_buffers_have_their_time() -> None:
    """70B weights, and a tier of hundreds of GiB, take longer to start than a tiny model."""
    assert Deadlines().engine_ready(0) == 240
    assert Deadlines().engine_ready(140 + 500) > 2000
    assert Deadlines(server_ready_s=10.0).server_ready(100) == 410
