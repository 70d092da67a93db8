"""Judges on the same pairs, resampled together: what each is worth, and what lies between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.bootstrap import Interval, resampled_sums
from btrm.metrics.few_contexts import ratio_error, share_interval
from btrm.metrics.pairwise import Floats, Ints, ratio
from btrm.metrics.power import seed_variance


@dataclass(frozen=True, eq=False)
class PairMean:
    """A mean over the pairs that have a value: which pairs those are, and by cluster the values' sums and their number.

    A cluster without such a pair holds zeros.
    """

    told_P: NDArray[np.bool_]
    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, value_P: Floats, cluster_P: Ints) -> PairMean:
        """Bring the pairs' values together by cluster (0..C-1); NaN is no value."""
        told_P = ~np.isnan(value_P)
        clusters = int(cluster_P.max(initial=-1)) + 1
        columns = np.where(told_P, value_P, 0.0), told_P.astype(np.float64)
        sums, counts = (np.bincount(cluster_P, column, clusters).astype(np.float64) for column in columns)
        return cls(told_P, sums, counts)

    @property
    def value(self) -> float:
        """The mean; NaN without pairs."""
        return float(self.sums.sum() / self.counts.sum()) if self.n_pairs else math.nan

    @property
    def n_pairs(self) -> int:
        """How many pairs have a value."""
        return int(self.told_P.sum())

    @property
    def n_clusters(self) -> int:
        """In how many clusters these pairs lie."""
        return int(np.count_nonzero(self.counts))

    @property
    def error(self) -> float:
        """The mean's standard error by the jackknife over clusters; NaN with fewer than two."""
        return ratio_error(self.sums, self.counts)

    def variance(self) -> float:
        """Return the cluster-robust variance of the mean (a ratio of sums, linearised; Cochran 1977, ch. 6)."""
        clusters = self.n_clusters
        if clusters < 2:
            return math.nan
        residuals = self.sums - self.value * self.counts
        return clusters / (clusters - 1) * float(residuals @ residuals) / float(self.counts.sum()) ** 2


class Panel:
    """Judges and the differences of some, in the same resamples of the pairs (whole clusters are drawn).

    `credits` are (P, S) a judge, S its seeds, NaN no credit; a judge's value for a pair is its mean over the seeds.
    `wanted` are the places (a, b) of judges to compare.
    """

    def __init__(
        self,
        credits: Sequence[Floats],
        wanted: Iterable[tuple[int, int]],
        cluster_P: Ints | None,
        n_bootstrap: int,
        seed: int,
    ) -> None:
        """Resample once."""
        means = [mean_over_seeds(credit_PS) for credit_PS in credits]
        n_pairs = len(means[0]) if means else 0
        numbers_P = np.arange(n_pairs) if cluster_P is None else np.unique(cluster_P, return_inverse=True)[1].ravel()
        self.judges = [PairMean.of(mean_P, numbers_P) for mean_P in means]
        self.differences = {(a, b): PairMean.of(means[a] - means[b], numbers_P) for a, b in wanted}
        self._seed_variances = [seed_variance(credit_PS, numbers_P) for credit_PS in credits]
        self._columns = _Columns()
        for mean in (*self.judges, *(self.differences[ab] for ab in self.differences if not self._alike(*ab))):
            self._columns.add(mean)
        self._columns.resample(n_bootstrap, seed)

    def seeds(self, judge: int) -> tuple[float, int]:
        """Return (the variance that one seed adds to a judge's mean, how many seeds there are)."""
        return self._seed_variances[judge]

    def resampled(self, a: int, b: int) -> Floats:
        """Return difference_B, a wanted difference in each resample."""
        if not self._alike(a, b):
            return self._columns.ratio(self.differences[a, b])
        return self._columns.ratio(self.judges[a]) - self._columns.ratio(self.judges[b])

    def accuracy_interval(self, judge: int) -> Interval:
        """Return the 95 % interval of a judge's mean credit; NaN, NaN where all pairs lie in one cluster."""
        mean = self.judges[judge]
        return share_interval(mean.value, mean.error, self._columns.ratio(mean), mean.n_clusters)

    def _alike(self, a: int, b: int) -> bool:
        """Whether two judges have credits for the same pairs: then their difference needs no columns of its own."""
        return np.array_equal(self.judges[a].told_P, self.judges[b].told_P)


class _Columns:
    """Columns to resample, each but once: what means are divided by is the same for most."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._columns: list[Floats] = []
        self._sums_BM = np.zeros((0, 0))

    def add(self, mean: PairMean) -> None:
        for column in (mean.sums, mean.counts):
            if self._places.setdefault(column.tobytes(), len(self._columns)) == len(self._columns):
                self._columns.append(column)

    def resample(self, n_bootstrap: int, seed: int) -> None:
        if self._columns:
            self._sums_BM = resampled_sums(np.stack(self._columns, 1), n_bootstrap, seed)

    def ratio(self, mean: PairMean) -> Floats:
        top, bottom = (self._sums_BM[:, self._places[column.tobytes()]] for column in (mean.sums, mean.counts))
        return ratio(top, bottom)


def mean_over_seeds(credit_PS: Floats) -> Floats:
    """Return each pair's mean over the seeds that have a credit for it; NaN where none has."""
    told_PS = ~np.isnan(credit_PS)
    return ratio(np.where(told_PS, credit_PS, 0.0).sum(axis=1), told_PS.sum(axis=1).astype(np.float64))
