"""Tiers: do the tiers below the CPU tier keep their content, within their size?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import look_at_addresses, requirement

if TYPE_CHECKING:
    from fixtures.plugin.recording import AddEvidence
    from fixtures.subject.stack import Stack


@requirement("TIR-06")
@pytest.mark.shared_stack
def test_every_configured_address_and_path_is_served(stack: Stack, evidence: AddEvidence) -> None:
    """Every address and path of a tier, cache server or controller in the configuration leads somewhere."""
    addresses = look_at_addresses(stack)
    evidence("addresses and paths", "\n".join(addresses.looked_at))
    wrong = "; ".join(addresses.unserved)
    assert not wrong, f"expected every configured address and path to be served, got {wrong}"
