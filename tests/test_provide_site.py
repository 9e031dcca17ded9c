"""A report names the machine of local processes, the cluster of a release, and neither where only URLs are known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.core.processes import ProcessRef
from fixtures.core.record import EngineServer, Release, StackRecord
from fixtures.provide.site import site_of

RELEASE = {
    "name": "r", "namespace": "n", "kubeconfig": None, "context": None, "helm": ("helm",),
    "chart": "vllm-stack-0.1.12", "kubernetes": "v1.36.2",
    "images": {"vllm:b": "sha256:2", "vllm@sha256:1": "docker.io/vllm@sha256:1"},
}  # fmt: skip


def record(kind: str, **facts: Any) -> StackRecord:
    engine = EngineServer(name="e", url="http://e", **facts.pop("engine", {}))
    return StackRecord.model_validate(
        {"id": "i", "kind": kind, "config": "c", "folder": Path("/f"), "model": "m", "engines": [engine]} | facts
    )


@pytest.mark.parametrize("kind", ["process", "attach"])
def test_of_processes_the_machine(kind: str) -> None:
    site = site_of(record(kind, engine={"process": ProcessRef.of(os.getpid())}))
    assert site.pop("stack") == kind
    assert set(site) == {"host"}
    assert set(site["host"]) == {"processor", "cores", "memory", "kernel"}


@pytest.mark.parametrize("kind", ["chart", "attach"])
def test_of_a_release_the_cluster(kind: str) -> None:
    site = site_of(record(kind, release=Release.model_validate(RELEASE)))
    images = ["vllm:b = sha256:2", "vllm@sha256:1"]
    assert site == {"stack": kind, "chart": "vllm-stack-0.1.12", "kubernetes": "v1.36.2", "images": images}


def test_of_urls_nothing() -> None:
    assert site_of(record("attach")) == {"stack": "attach"}
