"""The 95 % intervals of a cell's ratios, by resampling whole contexts, many cells at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from btrm.metrics.bootstrap import Interval, edge_interval, percentile_interval, resampled_sums
from btrm.metrics.coin import COINS, gains
from btrm.metrics.measured import SUBSET, Column, Measured
from btrm.metrics.pairwise import Floats, ratio

WITH_INTERVAL = ("accuracy", "strict_accuracy", "nontie_accuracy", "bt_log_loss", *COINS)
_RATES = frozenset({"accuracy", "strict_accuracy"})
_CELLS_AT_ONCE = 64


def intervals(cells: Sequence[Measured], n_bootstrap: int, seed: int) -> list[dict[str, Interval]]:
    """Return the 95 % intervals of each cell's ratios; whole clusters (pairs of one context) are drawn.

    Cells about the same pairs see the same resamples, so that they are drawn once for many cells. A rate that is 0 or 1
    everywhere has its exact interval (bootstrap.edge_interval), and losses at fitted temperatures have theirs by the
    root of what they gain on a coin (coin.Gains).
    """
    alike: dict[bytes, list[int]] = {}
    for number, cell in enumerate(cells):
        alike.setdefault(cell.cell.cluster_P.tobytes(), []).append(number)
    found: dict[int, dict[str, Interval]] = {}
    for numbers in alike.values():
        for start in range(0, len(numbers), _CELLS_AT_ONCE):
            together = numbers[start : start + _CELLS_AT_ONCE]
            found |= zip(together, _intervals([cells[n] for n in together], n_bootstrap, seed), strict=True)
    return [found[number] for number in range(len(cells))]


def _intervals(cells: Sequence[Measured], n_bootstrap: int, seed: int) -> Iterator[dict[str, Interval]]:
    clusters, cluster_P = np.unique(cells[0].cell.cluster_P, return_inverse=True)
    cluster_P = cluster_P.ravel()
    places: dict[bytes, int] = {}
    sums: list[Floats] = []

    def place(column_P: Floats) -> int:
        """Columns that are the same (what is divided by, as a rule) are resampled once."""
        summed: Floats = np.bincount(cluster_P, column_P, len(clusters)).astype(np.float64)
        found = places.setdefault(summed.tobytes(), len(sums))
        if found == len(sums):
            sums.append(summed)
        return found

    asked = [
        {name: (place(top_P), place(bottom_P)) for name, (top_P, bottom_P) in _with_interval(cell).items()}
        for cell in cells
    ]
    sums_BM = resampled_sums(np.stack(sums, 1), n_bootstrap, seed)
    for cell, of_cell in zip(cells, asked, strict=True):
        found = {
            name: _interval(name, cell.value(name), ratio(sums_BM[:, top], sums_BM[:, bottom]), sums[bottom])
            for name, (top, bottom) in of_cell.items()
        }
        gained = gains(cell.fitted, cluster_P)
        yield found | {name: gained.interval(name, cell.value(name), found[name]) for name in COINS}


def _with_interval(cell: Measured) -> dict[str, Column]:
    return {n: column for n, column in cell.columns.items() if n in WITH_INTERVAL or n.startswith(SUBSET)}


def _interval(name: str, value: float, value_B: Floats, counts: Floats) -> Interval:
    n_drawn = int(np.count_nonzero(counts))
    if value in (0.0, 1.0) and (name in _RATES or name.startswith(SUBSET)):
        return edge_interval(value, n_drawn)
    return percentile_interval(value_B, n_drawn=n_drawn)
