"""Keys of the values without effect (CFG-04), with a real Helm and a stand-in chart."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.core.errors import NotJudged, StackError
from fixtures.provide.kube.helm import Helm, HelmError
from fixtures.provide.release.idle_keys import leaves, switched_off
from fixtures.provide.values.layers import path_text
from tests import release_site
from tests.release_site import Site, changed
from tests.stand_in_chart import VALUES

pytest.importorskip("kubernetes")

site4 = release_site.site4


@pytest.mark.parametrize(
    ("model", "idle"),
    [
        ({}, []),
        ({"cpuOffloadBufferSize": "20"}, ["cpuOffloadBufferSize"]),
        ({"lmcacheConfig": {"cpuOffloadingBufferSize": "0.5"}}, ["lmcacheConfig.cpuOffloadingBufferSize"]),
        pytest.param(
            {"lmcacheConfig": {"cpuOffloadingBufferSize": "20GB"}},
            ["lmcacheConfig.cpuOffloadingBufferSize"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"lmcacheConfig": {"diskOffloadingBufferSize": "10"}},
            ["lmcacheConfig.diskOffloadingBufferSize"],
            marks=pytest.mark.long,
        ),
        pytest.param({"hf_token": ""}, ["hf_token"], marks=pytest.mark.long),
        pytest.param({"env": [{"name": "LMCACHE_NONSENSE", "value": "1"}]}, ["env[0].value"], marks=pytest.mark.long),
        (
            {"env": [{"name": "LMCACHE_MAX_LOCAL_CPU_SIZE", "value": "5"}]},
            ["env[0].value"],
        ),
        ({"pvcStorage": "50Gi", "storageClass": "standard"}, []),
    ],
)
def test_keys_without_effect_are_found(site4: Site, model: dict[str, Any], idle: list[str]) -> None:
    release = site4.install(changed(**model))
    known = {"LMCACHE_LOCAL_CPU", "LMCACHE_MAX_LOCAL_CPU_SIZE", "LMCACHE_MAX_LOCAL_DISK_SIZE"}
    assert release.keys_without_effect(known) == [f"servingEngineSpec.modelSpec[0].{path}" for path in idle]


@pytest.mark.long
def test_a_value_that_is_the_charts_own_has_an_effect(site4: Site) -> None:
    values = {**VALUES, "routerSpec": {"replicaCount": 1, "nonsense": 1}, "monitoring": {"enabled": False}}
    found = site4.install(values).keys_without_effect(None)
    assert found == ["routerSpec.nonsense"]  # the stub of a dependency renders nothing, and is not asked about


def test_what_a_switched_off_section_holds_is_no_mistake(site4: Site) -> None:
    scaled = {"enabled": False, "minReplicaCount": 3}
    values = changed(keda=scaled)
    found = site4.install(values).keys_without_effect(None)
    assert found == ["servingEngineSpec.modelSpec[0].keda.enabled"], "this chart does not read the section at all"
    assert switched_off(("a", "b"), {"a": {"b": 1}}, {"a": {"enabled": False}}), "the chart's own default counts"
    example = {"models": [{"enabled": False, "b": 2}]}
    assert not switched_off(("models", 0, "b"), {"models": [{"b": 1}]}, example), "Helm replaces lists as a whole"
    assert not switched_off(("a", "enabled"), {"a": {"enabled": False}}, {})
    assert not switched_off(("a", "b"), {"a": {"enabled": True, "b": 1}}, {"a": {"enabled": False}})


def test_a_helm_that_cannot_render_is_no_effect_of_a_key(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    release = site4.install(changed(cpuOffloadBufferSize="20"))
    real, calls = Helm.run, iter(range(1000))

    def flaky(self: Helm, *args: str, **options: Any) -> str:
        if args[0] == "template" and next(calls) > 2:
            raise HelmError("helm template failed: dial tcp: lookup example.com: no such host")
        return real(self, *args, **options)

    monkeypatch.setattr(Helm, "run", flaky)
    with pytest.raises(StackError, match="no such host"):
        release.keys_without_effect(None)


def test_leaves_and_their_names() -> None:
    tree = {"a": {"b": [1, {"c": None}]}, "d": {}, "e": []}
    assert [path_text(path) for path in leaves(tree)] == ["a.b[0]", "a.b[1].c", "d", "e"]


def test_without_a_chart_it_is_not_judged(site4: Site) -> None:
    release = site4.install()
    release.facts.chart_args = ()
    with pytest.raises(NotJudged, match="name it with --chart"):
        release.keys_without_effect(None)
