"""A cache server among the extra objects of the values."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from fixtures.core.errors import ConfigurationError
from fixtures.provide.values.loading import load_values
from fixtures.provide.values.tiers import cache_servers
from tests import values_files
from tests.values_files import DATA, LAUGH

if TYPE_CHECKING:
    from collections.abc import Callable

    from fixtures.provide.values.engine_command import EngineCommand
    from fixtures.provide.values.sections import Values

    Load = Callable[..., Values]
    Render = Callable[..., EngineCommand]

load = values_files.load


# ---- cache servers and what is left out


def test_a_cache_server_among_the_extra_objects_is_found() -> None:
    (server,) = cache_servers(load_values(DATA / "multi-process.yaml"), release="rel")
    assert (server.name, server.service, server.port) == ("rel-kv-server", "rel-kv-server", 5555)
    assert (server.l1_size_gb, server.chunk_tokens, server.replicas) == (2.0, 256, 1)
    assert dict(server.env)["LMCACHE_TRACK_USAGE"] == "false"


def test_extra_objects_may_be_text(load: Load) -> None:
    objects = "extraObjects:\n- |\n  kind: Deployment\n  metadata: {name: '{{ .Release.Name }}-kv'}\n"
    objects += "  spec: {template: {spec: {containers: [{command: [lmcache], args: [server, --port, '1']}]}}}\n"
    (server,) = cache_servers(load(tail=objects))
    assert (server.name, server.service, server.port, server.l1_size_gb) == ("vllm-kv", None, 1, None)
    assert cache_servers(load(tail="extraObjects: [5, {kind: ConfigMap}]\n")) == ()


@pytest.mark.parametrize(
    "container",
    ["env: [null]", "env: x", "ports: [null, {name: null}, {name: [a]}]", "resources: null", "args: [server, null]"],
)
@pytest.mark.parametrize(
    "service",
    ["spec: null", "spec: {selector: x}", "spec: {selector: {a: b}, ports: [null, {port: null, targetPort: [a]}]}"],
)
def test_nulls_in_extra_objects_are_read_as_nothing(load: Load, container: Any, service: Any) -> None:
    text = (
        f"extraObjects:\n- {{kind: Service, {service}}}\n- kind: Deployment\n  metadata: null\n  spec:\n    replicas: null\n"
        "    template:\n      metadata: {labels: {a: b}}\n      spec:\n        containers:\n        - null\n        - text\n"
        f"        - {{command: [lmcache, server], {container}}}\n"
        "- {kind: Deployment, spec: {template: {spec: {containers: null}}}}\n- null\n"
    )
    found = cache_servers(load(tail=text))
    assert [(one.service, one.port, one.env) for one in found] == [(None, 5555, ())]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGH, "contains more than 50000 values after expansion of its aliases"),
        ("x: [" + "1," * 110_000 + "]", "contains more than 50000 values; write"),
        ("[" * 200 + "]" * 200, "is nested"),
        ("- " * 5000, "is nested"),
        ("a: &a [*a]", "contains an anchor that refers to itself"),
        ("a: b: c", "is not YAML; correct it, or write a mapping"),
    ],
)
def test_an_extra_object_that_is_no_text_of_yaml_says_why(load: Load, text: str, says: str) -> None:
    values = load(tail=f"extraObjects: [{json.dumps(text)}]\n" if text.count(",") < 1000 else "")
    values.extra_objects = [text]
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=rf"extraObjects\[0\] is a string that {says}"):
        cache_servers(values)
    assert time.process_time() - began < 1.0
