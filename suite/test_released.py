"""Released: does the Helm release install, upgrade and uninstall cleanly?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import engine_startups_s, limits, requirement

if TYPE_CHECKING:
    from fixtures.experiments.upgrade import Upgraded
    from fixtures.plugin.recording import Figures
    from fixtures.provide.provider import TearDown
    from fixtures.subject.stack import Stack


@requirement("REL-01")
def test_the_release_starts_within_its_own_budget(stack: Stack, figures: Figures) -> None:
    """Every pod becomes ready within the time that its probes allow, and no container is restarted."""
    starts = stack.release.starts()
    if slowest_first := engine_startups_s(starts):
        figures("start-up of an engine", slowest_first[0], "s", n=len(slowest_first), better="lower")
    for start in starts:
        assert start.restarts == 0, (
            f"expected no restart of {start.name}, got {start.restarts}; its previous run ended with: {start.ended}"
        )
        if start.seconds is not None and start.budget_s is not None:
            assert start.seconds <= start.budget_s, (
                f"expected {start.name} to be ready within the {start.budget_s:.0f} s that its probes allow, "
                f"got {start.seconds:.0f} s"
            )
    stack.release.check_own()


@requirement("REL-02")
def test_nothing_in_the_release_is_blocked(stack: Stack) -> None:
    """No pod, claim or workload of the release waits for an image, a GPU, a RuntimeClass, a volume or a secret."""
    blocked = stack.release.blocked()
    assert not blocked, f"expected no blocked pod, claim or workload, got {len(blocked)}: {'; '.join(blocked)}"


@requirement("REL-03")
@pytest.mark.run_late
def test_an_upgrade_to_the_same_values_changes_nothing(stack: Stack) -> None:
    """After ``helm upgrade`` with the same chart and values, every pod and every generation is unchanged."""
    changed = stack.release.upgrade_unchanged()
    assert not changed, f"expected an upgrade to the same values to change nothing, got {'; '.join(changed)}"


@requirement("REL-05")
@pytest.mark.run_replacing
def test_an_upgrade_keeps_the_service_running(stack: Stack, upgraded: Upgraded, figures: Figures) -> None:
    """While ``helm upgrade`` replaces the engines, none of one request a second is lost; afterwards KV is stored and loaded."""
    assert stack.release, "expected a release"
    figures("time until every engine was replaced", upgraded.took_s, "s", better="lower")
    figures("requests lost during an upgrade", len(upgraded.lost), "", n=upgraded.asked, better="lower")
    assert not upgraded.lost, (
        f"expected no lost request during an upgrade ({upgraded.what}), got {len(upgraded.lost)} of {upgraded.asked}, the "
        f"first {upgraded.lost[0]}"
    )
    assert upgraded.reloads, (
        f"expected a reload within {limits.RECOVERED_S:.0f} s after an upgrade ({upgraded.what}), got none"
    )


@requirement("REL-03")
@pytest.mark.run_last
def test_uninstalling_leaves_nothing(stack: Stack, teardown_report: TearDown) -> None:
    """After ``helm uninstall``, only objects that the chart marks as kept remain."""
    assert stack.release, "expected a release"
    assert not teardown_report.left_running, (
        f"expected no remaining pod, got {', '.join(map(str, teardown_report.left_running))}"
    )
    assert not teardown_report.left_objects, (
        f"expected no remaining object, got {', '.join(teardown_report.left_objects)}"
    )


@requirement("REL-04")
def test_images_are_pinned_and_versions_named(stack: Stack) -> None:
    """Every image is pinned by digest, and the report can name chart, images, vLLM, LMCache, driver and GPU."""
    unnamed = stack.release.unnamed()
    assert not unnamed, f"expected the report to name chart, images, vLLM, LMCache and GPU, got no value for {unnamed}"
    unpinned = stack.release.unpinned_images()
    assert not unpinned, (
        f"expected every image to be pinned by digest (@sha256:...), got {', '.join(unpinned)}: image tags are mutable"
    )
