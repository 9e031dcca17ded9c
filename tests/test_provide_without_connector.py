"""The engine without its connector: made, measured and removed before the stack, and left out where it cannot be had."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.core.baseline_record import Baseline
from fixtures.core.errors import NotJudged, StackError
from fixtures.provide import without_connector
from fixtures.provide.kube.helm import Layers
from fixtures.provide.release import plan

FOUND = Baseline(pool_tokens=1000, prompt_tokens=512)
MP = '{"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both"}'


class Attempt:
    """One measurement, with what becomes of it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, starts: bool = True, connector: Any = None, answers: bool = True
    ) -> None:
        self.lines: list[str] = []
        self.made: list[str] = []
        engine = SimpleNamespace(name="engine-0", connector=lambda: connector)
        stack = SimpleNamespace(engine=engine, chunk_tokens=256, max_model_len=4096, vocabulary=32000)

        def stand_up() -> Any:
            if not starts:
                raise StackError("no room")
            self.made.append("up")
            return "record"

        def measured(*_: Any) -> Baseline:
            if not answers:
                raise NotJudged("too noisy")
            return FOUND

        monkeypatch.setattr(without_connector, "measure_baseline", measured)
        progress: Any = SimpleNamespace(line=self.lines.append, phase=lambda *_, **__: nullcontext())
        self.baseline = without_connector.measure(
            "cpu-offload",
            stand_up,
            lambda _: nullcontext(stack),  # type: ignore[arg-type]
            lambda _: self.made.append("down"),
            progress=progress,
            seed=1,
            compared={"LAT-04"},
        )


def test_it_is_measured_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Attempt(monkeypatch)
    assert (tried.baseline, tried.made, tried.lines) == (FOUND, ["up", "down"], [])


@pytest.mark.parametrize(
    ("options", "made", "said"),
    [
        ({"starts": False}, [], "cannot be measured: no room"),
        ({"answers": False}, ["up", "down"], "was not measured: too noisy"),
        (
            {"connector": SimpleNamespace(name="LMCacheMPConnector")},
            ["up", "down"],
            "still has the connector LMCacheMPConnector",
        ),
    ],
    ids=["not-started", "not-measured", "connector-left"],
)
def test_nothing_is_compared_where_it_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], made: list[str], said: str
) -> None:
    tried = Attempt(monkeypatch, **options)
    assert (tried.baseline, tried.made) == (None, made)
    assert said in tried.lines[0]


def test_a_release_loses_every_connector_and_keeps_the_rest() -> None:
    models = [
        {"name": "a", "replicaCount": 2, "lmcacheConfig": {"enabled": True, "cpuOffloadingBufferSize": "20"}},
        {
            "name": "b",
            "vllmConfig": {"extraArgs": ["--enforce-eager", "--kv-transfer-config", MP, "--kv-offloading-size=4"]},
        },
    ]
    values = {"servingEngineSpec": {"modelSpec": models}}
    found = plan.layers_without_connector(Layers(sets=("servingEngineSpec.modelSpec[0].replicaCount=3",)), values)
    assert found.sets == (
        "servingEngineSpec.modelSpec[0].replicaCount=3",
        "servingEngineSpec.modelSpec[0].lmcacheConfig.enabled=false",
        "servingEngineSpec.modelSpec[0].replicaCount=1",
        "servingEngineSpec.modelSpec[1].lmcacheConfig.enabled=false",
        "servingEngineSpec.modelSpec[1].replicaCount=1",
    )
    assert found.jsons == ('servingEngineSpec.modelSpec[1].vllmConfig.extraArgs=["--enforce-eager"]',)
    assert found.args[:2] == ["--set-json", found.jsons[0]]
