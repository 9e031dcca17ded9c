"""Waiting for a release: what cannot come fails within seconds."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from fixtures.core.errors import StackError
from fixtures.provide.release import readiness
from fixtures.provide.release.snapshot import take_snapshot
from tests import release_site

if TYPE_CHECKING:
    from tests.release_site import Site

pytest.importorskip("kubernetes")

site4 = release_site.site4


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("crash", "its log says: ValueError: boom"),
        ("pull", "no-such-image"),
        ("gpu", "Insufficient nvidia.com/gpu"),
        ("runtime", 'RuntimeClass "no-such-class" not found'),
        ("secret", 'secret "nobody" not found'),
        ("quota", "exceeded quota"),
    ],
)
def test_what_cannot_come_fails_within_seconds(site4: Site, fate: str, words: str) -> None:
    site4.cluster.fates["vllm"] = fate
    site4.cluster.young_s = 60.0
    site4.install()
    began = time.monotonic()
    with pytest.raises(readiness.BlockedError, match=r"; |its log says") as failure:
        site4.wait()
    assert words in str(failure.value)
    assert time.monotonic() - began < 5


@pytest.mark.long
def test_a_deadline_says_what_was_last_seen(site4: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "SLACK_S", -18.5)  # the stand-in's probe allows 20 s
    site4.cluster.fates["vllm"] = "never"
    site4.install()
    with pytest.raises(StackError, match=r"start-up did not end within 2 s; last seen: .*vllm.* Running"):
        site4.wait()


@pytest.mark.long
def test_a_restart_of_the_api_server_is_waited_out(site4: Site) -> None:
    site4.cluster.fates["vllm"] = "never"
    site4.install()
    site4.kube.patience_s = 10.0
    with site4.cluster.away():
        threading.Timer(1.0, site4.cluster.start).start()
        seen = take_snapshot(site4.kube, "mine", [])
        site4.cluster.stop()
    assert seen.found == []


def test_a_container_may_take_until_its_readiness_probe_asks() -> None:
    """The router of chart 0.1.12 has 20 s to start, and is asked whether it is ready after 30 s."""
    startup, probe = {"periodSeconds": 5, "failureThreshold": 4}, {"initialDelaySeconds": 30, "periodSeconds": 5}
    router = {"name": "router", "startupProbe": startup, "readinessProbe": probe}
    manifest = [{"kind": "Pod", "spec": {"containers": [container]}} for container in ({"name": "other"}, router)]
    assert readiness.budget_s(manifest) == 36.0
    assert readiness.budget_s(manifest[:1]) == readiness.WITHOUT_PROBE_S
