"""Values over values: overlays, and ``--set`` as Helm reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fixtures.provide.values.ignored import ignored
from fixtures.provide.values.layers import merged, parse_set
from fixtures.provide.values.render import render_engine
from tests import values_refused
from tests.values_refused import refusal, values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]

load = values_refused.load


# ---- holders of anchors


def test_a_holder_of_anchors_at_the_top_is_ignored_as_helm_does(load: Load) -> None:
    text = yaml.safe_dump(values())
    found = load(f"x-env: &env [{{name: A, value: b}}]\nx-more: 1\n{text}  env: *env\n")
    assert found.serving_engine_spec.env is not None
    assert ignored(found) == [line for line in ignored(load(values())) if "x-" not in line]
    load(f"common: &env [{{name: A, value: b}}]\n{text}  env: *env\n")
    assert "common is not a key of the chart" in refusal(load, f"common: [{{name: A, value: b}}]\n{text}")


# ---- layers


def test_an_overlay_is_checked_like_the_file(load: Load, tmp_path: Path) -> None:
    overlay = tmp_path / "over.yaml"
    overlay.write_text("routerSpec: {routingLogc: x}\nservingEngineSpec: {labels: null}\n", encoding="utf-8")
    message = refusal(load, values({"zzz": 1}), overlays=(overlay,))
    assert "over.yaml: routerSpec.routingLogc is not a key of the chart; did you mean routingLogic?" in message
    assert "over.yaml: servingEngineSpec.labels leaves no label" in message
    assert "/values.yaml: servingEngineSpec.modelSpec[0].zzz is not a key" in message


def test_values_lie_over_each_other() -> None:
    below, above = {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "d": {"e": 2}}
    assert merged([below, above]) == {"a": {"b": 1, "c": [3]}, "d": {"e": 2}}


def test_an_overlay_is_merged_as_helm_does_it(load: Load, tmp_path: Path) -> None:
    overlay = tmp_path / "over.yaml"
    overlay.write_text(yaml.safe_dump(values({"name": "other"})), encoding="utf-8")
    found = load(
        values(cacheserverSpec={"servicePort": 81}), overlays=(overlay,), sets=("cacheserverSpec.enabled=true",)
    )
    assert render_engine(found).name == "other"
    assert found.cacheserver_spec.enabled is True
    assert found.cacheserver_spec.service_port == 81
    assert found.data["cacheserverSpec"] == {"servicePort": 81, "enabled": True}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "servingEngineSpec.modelSpec[0].replicaCount=abc",
            "--set servingEngineSpec.modelSpec[0].replicaCount: servingEngineSpec.modelSpec[0].replicaCount holds the text "
            "'abc'; write a whole number from 0 to 10000.",
        ),
        (
            "routerSpec.routingLogc=a",
            "--set routerSpec.routingLogc: routerSpec.routingLogc is not a key of the chart; did you",
        ),
        ("servingEngineSpec.labels=null", "--set servingEngineSpec.labels: servingEngineSpec.labels leaves no label"),
        (
            "servingEngineSpec.modelSpec=7",
            "--set servingEngineSpec.modelSpec: servingEngineSpec.modelSpec holds the number 7",
        ),
        ("servingEngineSpec.modelSpec[0].name.x=7", "name.x: expected a mapping, got the text 'm'; correct the path."),
        ("servingEngineSpec[0]=7", "--set servingEngineSpec[0]: expected a list, got a mapping; correct the path."),
        ("nonsense", "--set nonsense: this is not in Helm's notation; write KEY=VALUE, such as a.b[0].c=1."),
        ("a,b=1", "this is not in Helm's notation"),
        ("a[x]=1", "this is not in Helm's notation"),
        ("a[99999999]=1", "this is not in Helm's notation"),
        ("=1", "--set '=1': this is not in Helm's notation"),
        ("[0]=1", "this is not in Helm's notation"),
        ("a..b=1", "this is not in Helm's notation"),
        ("routerSpec.extraArgs={a", "--set routerSpec.extraArgs: the list is not closed; close it with a brace."),
        ("", "--set is empty; write KEY=VALUE."),
    ],
)
def test_nonsense_by_set_is_one_sentence(load: Load, text: str, sentence: str) -> None:
    message = refusal(load, values(), sets=(text,))
    assert sentence in message
    assert "\n" not in message


def test_a_secret_by_set_is_not_shown(load: Load) -> None:
    message = refusal(
        load, values(), sets=("servingEngineSpec.vllmApiKey[0]=sk-1234", "servingEngineSpec.vllmApiKy=sk-1234")
    )
    assert "sk-1234" not in message


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=b", [(("a",), "b")]),
        ("a.b[1].c=1,d=true", [(("a", "b", 1, "c"), 1), (("d",), True)]),
        ("a={x,1,null}", [(("a",), ["x", 1, None])]),
        ("a={}", [(("a",), [])]),
        ("a=", [(("a",), "")]),
        (r"a\.b=c\,d", [(("a.b",), "c,d")]),
        ("a=007,b=-3,c=1.5,d=null", [(("a",), "007"), (("b",), -3), (("c",), "1.5"), (("d",), None)]),
        ("a[0][1]=x", [(("a", 0, 1), "x")]),
        ("a=b=c", [(("a",), "b=c")]),
    ],
)
def test_set_is_read_as_helm_reads_it(text: str, parsed: Any) -> None:
    assert parse_set(text) == parsed
