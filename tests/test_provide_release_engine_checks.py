"""Engines, models and tokens of the values, checked before anything is made."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from fixtures.core.tree import get_path
from fixtures.evidence.manifest import unresolved
from fixtures.provide.kube.api import ApiError, Kube
from fixtures.provide.release import engine_checks
from tests import release_site
from tests.release_site import Site, engine, missing
from tests.stand_in_chart import VALUES

pytest.importorskip("kubernetes")

site4 = release_site.site4


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ({"args": ["--k8s-label-selector", " "]}, "an empty selector: it would treat every pod"),
        ({"args": ["--k8s-label-selector="]}, "an empty selector"),
        ({"args": ["--k8s-label-selector", ","]}, "the selector ',': it names no label"),
        ({"args": ["--k8s-label-selector", "="]}, "the selector '=': it names no label"),
        ({"command": ["vllm-router", "--k8s-label-selector", ""]}, "an empty selector"),
        ({"command": ["vllm-router", "--k8s-label-selector"], "args": [None]}, "an empty selector"),
        ({"command": ["vllm-router"], "args": ["--k8s-label-selector", "a=b"]}, None),
        ({"command": ["vllm-router"]}, None),
    ],
)
def test_selectors_that_name_no_label_are_refused(site4: Site, container: dict[str, Any], says: str | None) -> None:
    found = list(engine_checks.check_labels([engine(**container)]))
    assert len(found) == (says is not None)
    assert says is None or says in found[0].text
    assert [
        one.name for one in engine_checks.check_neighbours(site4.kube, site4.helm, [engine(**container)], "mine", "rel")
    ] == []


def test_a_selector_that_the_server_refuses_is_named(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise ApiError(400, "unable to parse requirement", "list pods")

    monkeypatch.setattr(Kube, "list", refuse)
    one = engine(args=["--k8s-label-selector", "a=b,"])
    (found,) = engine_checks.check_neighbours(site4.kube, site4.helm, [one], "mine", "rel")
    assert (found.name, found.state) == ("selectors", "not checked")
    assert "'a=b,'" in found.text


def test_labels_that_would_adopt_strangers_are_refused(site4: Site) -> None:
    objects = site4.helm.render_values(site4.chart, "rel", "mine", VALUES)
    for one in objects:
        for container in get_path(one, "spec", "template", "spec", "containers", default=[]):
            if "--k8s-label-selector" in (container.get("args") or []):
                container["args"][container["args"].index("--k8s-label-selector") + 1] = None
    (found,) = engine_checks.check_labels(objects)
    assert found.state == "missing"
    assert "servingEngineSpec.labels" in found.remedy
    assert any("empty selector" in one for one in unresolved(objects))


def test_values_without_an_engine_are_refused(site4: Site) -> None:
    assert "renders no engine" in missing(site4.check({"servingEngineSpec": {"modelSpec": []}}))["engines"]


@pytest.mark.parametrize("words", [("vllm", "serve"), ("vllm", "serve", "--port=a/b"), ("sh", "-c", "vllm serve")])
def test_an_engine_without_a_model_asks_no_hub(words: tuple[str, ...]) -> None:
    assert list(engine_checks.check_models([engine(command=list(words))])) == []


def test_replicas_that_are_no_number_are_refused(site4: Site) -> None:
    objects = [engine() | {"spec": engine()["spec"] | {"replicas": "abc"}}]
    (found,) = engine_checks.check_replicas(objects)
    assert found.text == "Deployment engine asks for 'abc' replicas"


@pytest.mark.parametrize("env", [{"HF_ENDPOINT": "https://mirror"}, {"VLLM_USE_MODELSCOPE": "True"}])
def test_a_model_of_another_place_is_not_asked_of_the_hub(env: dict[str, str]) -> None:
    entries = [{"name": name, "value": value} for name, value in env.items()]
    assert list(engine_checks.check_models([engine(command=["vllm", "serve", "org/m"], env=entries)])) == []


def test_the_hub_is_asked_once_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(url: str, **_: Any) -> Any:
        asked.append(url)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    checks = list(engine_checks.check_models([engine(command=["vllm", "serve", "org/m"])] * 3))
    assert [one.state for one in checks] == ["not checked"]
    assert len(asked) == 1


def test_a_token_by_env_from_is_a_token() -> None:
    one = engine(command=["vllm", "serve", "org/gated"], envFrom=[{"secretRef": {"name": "hf"}}])
    assert list(engine_checks.check_models([one])) == []
