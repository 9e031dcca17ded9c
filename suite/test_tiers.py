"""Tiers: do the tiers below the CPU tier keep their content, within their size?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import requirement, unserved_addresses

if TYPE_CHECKING:
    from fixtures.subject.stack import Stack


@requirement("TIR-06")
@pytest.mark.shared_stack
def test_every_configured_address_and_path_is_served(stack: Stack) -> None:
    """Every address and path of a tier, cache server or controller in the configuration leads somewhere."""
    unserved = unserved_addresses(stack)
    assert not unserved, f"expected every configured address and path to be served, got {'; '.join(unserved)}"
