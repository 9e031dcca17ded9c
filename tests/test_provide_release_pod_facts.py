"""Facts of a container."""

from __future__ import annotations

import pytest

from fixtures.core.errors import NotJudged
from fixtures.provide.release.pod_facts import resident_of

pytest.importorskip("kubernetes")


def test_memory_of_a_container_by_either_cgroup() -> None:
    assert resident_of("anon 100\nfile 50\nshmem 7\n", "x") == 107
    assert resident_of("cache 1\nrss 2\ntotal_rss 100\ntotal_shmem 5\n", "x") == 105
    with pytest.raises(NotJudged, match="shows no memory"):
        resident_of("", "x")
