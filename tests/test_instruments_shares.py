"""Exact intervals of shares, against values that are known by hand or from tables."""

from __future__ import annotations

import math

import pytest

from fixtures.instruments.shares import share_interval


def test_of_none_and_of_all_the_interval_is_known_in_closed_form() -> None:
    """One of 1 - (a/2) ** (1/n) at the most, where nothing was found."""
    most = 1 - 0.025 ** (1 / 9)
    assert share_interval(0, 9) == pytest.approx((0.0, most))
    assert share_interval(9, 9) == pytest.approx((1 - most, 1.0))


def test_a_half_is_as_in_the_tables_of_clopper_and_pearson() -> None:
    assert share_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=5e-5)
    assert share_interval(162, 164) == pytest.approx((0.9566, 0.9985), abs=5e-5)


@pytest.mark.parametrize(("found", "of"), [(3, 20), (17, 20), (1, 100)])
def test_each_end_leaves_half_of_the_rest_outside(found: int, of: int) -> None:
    low, high = share_interval(found, of, 0.99)

    def at_most(number: int, share: float) -> float:
        return sum(math.comb(of, one) * share**one * (1 - share) ** (of - one) for one in range(number + 1))

    assert 1 - at_most(found - 1, low) == pytest.approx(0.005)
    assert at_most(found, high) == pytest.approx(0.005)


@pytest.mark.parametrize(("found", "of"), [(-1, 3), (4, 3), (0, 0)])
def test_what_is_no_share_is_refused(found: int, of: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        share_interval(found, of)
