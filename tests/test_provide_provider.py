"""What the ways to a stack say of themselves before it stands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.core.processes import Maker
from fixtures.core.record import EngineServer, StackRecord
from fixtures.provide.attach_provider import AttachProvider
from fixtures.provide.process_provider import ProcessProvider
from fixtures.provide.release_provider import ReleaseProvider
from fixtures.provide.target import Target

if TYPE_CHECKING:
    from fixtures.provide.provider import Provider

CPU: Any = SimpleNamespace(configs=(), device="cpu")
CUDA: Any = SimpleNamespace(configs=(), device="cuda")


def test_a_kept_stack_of_another_host_is_refused_in_one_sentence(tmp_path: Path) -> None:
    maker = Maker.here().model_copy(update={"host": "elsewhere", "user": "somebody"})
    record = StackRecord(
        id="s",
        kind="process",
        config="c",
        folder=tmp_path,
        model="m",
        maker=maker,
        engines=[EngineServer(name="engine-0", url="http://[::1]:8000")],
    )
    run: Any = SimpleNamespace(model=None, engine=None)
    with pytest.raises(ConfigurationError, match="stack s runs as user somebody on host elsewhere; judge it there"):
        AttachProvider(run, record.save(None)).validate()
    AttachProvider(run, record.model_copy(update={"maker": Maker.here()}).save(None)).validate()


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (None, "it lists no engine"),
        ({"url": "http://[::1"}, "'http://[::1' of engine-0 is not a URL"),
        ({"url": "nonsense"}, "'nonsense' of engine-0 is not a URL"),
        ({"url": "http://127.0.0.1:99999"}, "of engine-0 is not a URL"),
        ({"cache_server": "kv-0"}, "engine engine-0 uses the cache server 'kv-0', which it does not list"),
    ],
)
def test_a_record_by_which_nothing_can_be_judged_is_refused_in_one_sentence(
    tmp_path: Path, engine: dict[str, Any] | None, says: str
) -> None:
    engines = [] if engine is None else [EngineServer(**{"name": "engine-0", "url": "http://127.0.0.1:8000"} | engine)]
    record = StackRecord(id="s", kind="attach", config="c", folder=tmp_path, model="m", engines=engines)
    run: Any = SimpleNamespace(model=None, engine=None)
    with pytest.raises(ConfigurationError) as caught:
        AttachProvider(run, record.save(None)).validate()
    assert says in str(caught.value)
    assert "--keep-stack" in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "absent"),
    [
        (ProcessProvider(CPU, Target()), {"gpu", "release", "router"}),
        (ProcessProvider(CUDA, Target()), {"release", "router"}),
        (ReleaseProvider(CPU, Target()), {"gpu"}),
        (ReleaseProvider(CUDA, Target()), set()),
        (AttachProvider(CPU, Path("record.json")), {"own"}),
    ],
)
def test_what_a_kind_of_stack_cannot_have(provider: Provider, absent: set[str]) -> None:
    assert provider.unsupported == absent
