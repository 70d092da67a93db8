"""McNemar and Holm against statsmodels and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests

from btrm.metrics.significance import holm, mcnemar


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 1), (3, 3), (10, 4), (1, 30), (520, 480), (4300, 4252)])
def test_exact_p_is_that_of_statsmodels_and_scipy(wins: int, losses: int) -> None:
    exact, mid = mcnemar(wins, losses)
    theirs = their_mcnemar([[50, wins], [losses, 70]], exact=True).pvalue
    assert exact == pytest.approx(theirs if wins + losses else 1.0, rel=1e-9)
    if wins + losses:
        assert exact == pytest.approx(binomtest(wins, wins + losses).pvalue, rel=1e-9)
        lower = min(wins, losses)
        expected = 2 * binom.cdf(lower, wins + losses, 0.5) - binom.pmf(lower, wins + losses, 0.5)
        assert mid == pytest.approx(min(1.0, expected) if wins != losses else 1.0, rel=1e-9)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mid_p_lies_below_exact_and_sides_may_be_swapped(wins: int, losses: int) -> None:
    exact, mid = mcnemar(wins, losses)
    assert 0 < mid <= exact <= 1
    assert mcnemar(losses, wins) == (exact, mid)


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_holm_is_that_of_statsmodels(n: int) -> None:
    p_values = np.round(np.random.default_rng(n).beta(0.5, 5, n), 3).tolist()  # rounded: some are equal
    assert np.allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_what_is_not_defined_counts_for_no_comparison() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)
    assert holm([]) == []
