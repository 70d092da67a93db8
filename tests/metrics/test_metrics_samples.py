from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy, f_oneway, pearsonr, spearmanr
from statsmodels.regression.mixed_linear_model import MixedLM

from btrm.metrics.lengths import length_correlation, longer_wins
from btrm.metrics.samples import spread, variance_components


def grouped(groups: int, samples: int, within: float, between: float, seed: int = 0) -> np.ndarray:
    """Scores of shape (groups / 2, 2, samples) with these standard deviations."""
    rng = np.random.default_rng(seed)
    means = rng.normal(50, between, groups)
    return (means[:, None] + rng.normal(0, within, (groups, samples))).reshape(groups // 2, 2, samples)


def test_spread_is_that_of_the_frequencies() -> None:
    score = np.random.default_rng(0).integers(0, 12, 500).astype(np.float64)
    counts = np.unique(score, return_counts=True)[1]
    assert spread(score).entropy == pytest.approx(entropy(counts, base=2))
    assert spread(score).support == 12
    assert (spread(np.full(9, 50.0)).entropy, spread(np.full(9, 50.0)).support) == (0.0, 1)
    assert math.isnan(spread(np.empty(0)).entropy)


def test_components_are_the_mean_squares_of_an_analysis_of_variance() -> None:
    score = grouped(60, 4, 6.0, 9.0)
    rows = score.reshape(60, 4)
    between_mean_square = 4 * rows.mean(1).var(ddof=1)
    within_mean_square = rows.var(axis=1, ddof=1).mean()
    found = variance_components(score)
    assert found.within == pytest.approx(within_mean_square)
    assert found.between == pytest.approx((between_mean_square - within_mean_square) / 4)
    statistic = f_oneway(*rows).statistic
    assert 1 + 4 * found.between / found.within == pytest.approx(statistic)


def test_components_are_those_of_a_mixed_model() -> None:
    score = grouped(80, 5, 6.0, 9.0, seed=1)
    frame = pd.DataFrame({"score": score.ravel(), "response": np.repeat(np.arange(80), 5)})
    fit = MixedLM.from_formula("score ~ 1", frame, groups="response").fit()
    found = variance_components(score)
    assert found.within == pytest.approx(fit.scale, rel=1e-3)
    assert found.between == pytest.approx(float(fit.cov_re.iloc[0, 0]), rel=1e-3)
    assert found.intraclass == pytest.approx(found.between / (found.between + found.within))


def test_components_are_unbiased_where_scores_are_missing() -> None:
    parts = []
    for seed in range(300):
        score = grouped(40, 4, 6.0, 9.0, seed)
        score[np.random.default_rng(seed).random(score.shape) < 0.3] = np.nan
        parts.append(variance_components(score))
    assert np.mean([part.within for part in parts]) == pytest.approx(36, rel=0.03)
    assert np.mean([part.between for part in parts]) == pytest.approx(81, rel=0.06)


def test_one_answer_a_response_splits_nothing() -> None:
    assert math.isnan(variance_components(grouped(40, 1, 6.0, 9.0)).within)
    assert math.isnan(variance_components(np.full((5, 2, 3), 50.0)).intraclass)


def test_length_correlation_is_spearmans_of_both_orders() -> None:
    rng = np.random.default_rng(0)
    length = rng.integers(10, 900, (300, 2))
    score = np.rint(length / 30 + rng.normal(0, 12, (300, 2)))
    lead, longer = score[:, 0] - score[:, 1], length[:, 0] - length[:, 1]
    both = np.concatenate([lead, -lead]), np.concatenate([longer, -longer])
    assert length_correlation(score, length) == pytest.approx(spearmanr(*both).statistic)
    assert length_correlation(score[:, ::-1], length[:, ::-1]) == pytest.approx(length_correlation(score, length))
    assert length_correlation(-score, length) == pytest.approx(-length_correlation(score, length))
    assert length_correlation(length.astype(np.float64) ** 3, length) > pearsonr(lead, longer).statistic
    holes = np.concatenate([score, [[np.nan, 99.0]]]), np.concatenate([length, [[1, 2]]])
    assert length_correlation(*holes) == pytest.approx(length_correlation(score, length))


def test_the_longer_one_wins_half_where_they_are_equal() -> None:
    length = np.array([[5, 3], [5, 3], [4, 4], [1, 9]])
    assert longer_wins(length, np.array([0, 1, 1, 1])) == (1 + 0 + 0.5 + 1) / 4
    assert math.isnan(longer_wins(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.int64)))
