"""The 95 % intervals of a cell's ratios, by resampling whole contexts, many cells at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from btrm.metrics.bootstrap import Interval, resampled_sums
from btrm.metrics.coin import COINS, Gains, gains
from btrm.metrics.few_contexts import linear_interval, loss_interval, ratio_error, share_interval, with_upper_tail
from btrm.metrics.measured import SUBSET, Column, Measured
from btrm.metrics.pairwise import Floats, ratio

_RATES = ("tie_rate", "coverage", "unparsed_rate", "truncated_rate")
WITH_INTERVAL = ("accuracy", "strict_accuracy", "nontie_accuracy", *_RATES, "bt_log_loss", *COINS)
_LOSSES = frozenset({"bt_log_loss"})
_CELLS_AT_ONCE = 64


def intervals(cells: Sequence[Measured], n_bootstrap: int, seed: int) -> list[dict[str, Interval]]:
    """Return the 95 % intervals of each cell's ratios; whole clusters (pairs of one context) are drawn.

    Cells about the same pairs see the same resamples, so that they are drawn once for many cells. Few contexts, and
    those that are all alike, have intervals of their own (few_contexts; undefined with one); losses at fitted
    temperatures have theirs by the root of what they gain on a coin (coin.Gains).
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
            name: _interval(name, sums[top], sums[bottom], ratio(sums_BM[:, top], sums_BM[:, bottom]))
            for name, (top, bottom) in of_cell.items()
        }
        gained = gains(cell.fitted, cluster_P)
        yield found | {
            name: _of_coin(name, gained, sums[of_cell[name][0]], sums[of_cell[name][1]], found[name]) for name in COINS
        }


def _of_coin(name: str, gained: Gains, top_C: Floats, bottom_C: Floats, linear: Interval) -> Interval:
    value, error = float(ratio(top_C.sum(), bottom_C.sum())), ratio_error(top_C, bottom_C)
    found = gained.interval(name, value, linear)
    return with_upper_tail(found, value, error, int(np.count_nonzero(bottom_C)), COINS[name])


def _with_interval(cell: Measured) -> dict[str, Column]:
    return {n: column for n, column in cell.columns.items() if n in WITH_INTERVAL or n.startswith(SUBSET)}


def _interval(name: str, top_C: Floats, bottom_C: Floats, value_B: Floats) -> Interval:
    of_kind = linear_interval if name in COINS else loss_interval if name in _LOSSES else share_interval
    value, error = float(ratio(top_C.sum(), bottom_C.sum())), ratio_error(top_C, bottom_C)
    return of_kind(value, error, value_B, int(np.count_nonzero(bottom_C)))
