"""A benchmark's responses, put together again from the pairs in which they stand: what official scores are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.judged import JudgedCell
from btrm.metrics.pair_facts import PairFacts
from btrm.metrics.pairwise import Floats, Ints, SideScores

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of one kind of responses (chosen, rejected) to G prompts, shape (G, places).

    A score is the mean over all scored answers about the response, in whatever pairs it stands; NaN where it has none.
    `there` says at which places there is a response: prompts have different numbers of them.
    """

    score: Floats
    there: Bools

    def filled(self, value: float) -> Floats:
        """Return the scores with `value` for responses without one; NaN where there is no response."""
        return np.where(self.there & np.isnan(self.score), value, self.score)

    def highest_G(self) -> Floats:
        """Return the highest score of each prompt's responses; NaN where one of them has none."""
        return self._extreme(np.where(self.there, self.score, -np.inf).max(1))

    def lowest_G(self) -> Floats:
        """Return the lowest score of each prompt's responses; NaN where one of them has none."""
        return self._extreme(np.where(self.there, self.score, np.inf).min(1))

    def _extreme(self, score_G: Floats) -> Floats:
        return np.where(self.there.any(1), score_G, np.nan)

    def rows(self, kept: Ints) -> Scored:
        """Return the prompts of these numbers."""
        return Scored(self.score[kept], self.there[kept])


@dataclass(frozen=True, eq=False)
class Groups:
    """G prompts of a benchmark, every pair of which was judged.

    `meta_G` is that of each prompt's first pair; prompts of one `cluster_G` have the same context.
    """

    name_G: list[str]
    subset_G: list[str]
    meta_G: list[Mapping[str, Any]]
    cluster_G: Ints
    chosen: Scored
    rejected: Scored

    def __len__(self) -> int:
        """Return G."""
        return len(self.name_G)

    def where(self, keep_G: Any) -> Groups:
        """Return the groups for which `keep_G` holds."""
        kept = np.flatnonzero(keep_G)
        names, subsets, meta = ([of[g] for g in kept] for of in (self.name_G, self.subset_G, self.meta_G))
        return Groups(names, subsets, meta, self.cluster_G[kept], self.chosen.rows(kept), self.rejected.rows(kept))

    def of_subset(self, subset: str) -> Bools:
        """Say which groups are of a subset."""
        return np.array([name == subset for name in self.subset_G], dtype=np.bool_)

    def of_kind(self, start: str) -> Bools:
        """Say which groups are of a subset whose name begins so."""
        return np.array([name.startswith(start) for name in self.subset_G], dtype=np.bool_)

    def won_G(self) -> Floats:
        """Return 1 where every chosen response scores above every rejected one, else 0: a tie, and no score, is 0."""
        return (self.chosen.lowest_G() > self.rejected.highest_G()).astype(np.float64)


def read_groups(cell: JudgedCell) -> Groups:
    """Return a cell's whole groups, in the order of the pairs; a prompt of which pairs are missing is left out.

    So are all pairs whose metadata lack what a source of a benchmark writes there (btrm.data.groups).
    """
    assert cell.facts is not None, "official scores need the pairs' facts"
    layout = _layout(cell.facts)
    chosen = layout.chosen.scored(cell, cell.preferred_P)
    rejected = layout.rejected.scored(cell, 1 - cell.preferred_P)
    cluster_G = cell.cluster_P[layout.first_G]
    groups = Groups(layout.name_G, layout.subset_G, layout.meta_G, cluster_G, chosen, rejected)
    return groups if layout.whole_G.all() else groups.where(layout.whole_G)


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the responses of one kind stand: `place_P` is each pair's in an array of the shape of `there`, flat."""

    place_P: Ints
    there: Bools

    def scored(self, cell: JudgedCell, side_P: Ints) -> Scored:
        """Bring together what was said of each response; sums are exact, so that equal means are equal floats."""
        sides, row_P = cell.sides, np.arange(len(self.place_P))
        counts = (count[row_P, side_P] for count in (sides.units_P2, sides.parsed_P2, sides.asked_P2))
        return Scored(SideScores(*map(self._total, counts)).means().reshape(self.there.shape), self.there)

    def _total(self, count_P: Ints) -> Ints:
        total = np.zeros(self.there.size, dtype=np.int64)
        np.add.at(total, self.place_P, count_P)
        return total


@dataclass(frozen=True, eq=False)
class _Layout:
    """A data set's groups: the first pair of each, and whether all its pairs are there."""

    first_G: Ints
    name_G: list[str]
    subset_G: list[str]
    meta_G: list[Mapping[str, Any]]
    whole_G: Bools
    chosen: _Places
    rejected: _Places


@lru_cache(maxsize=8)
def _layout(facts: PairFacts) -> _Layout:
    """Number a data set's groups and responses; the cells of a grid share one PairFacts, so this is done once."""
    number: dict[str, int] = {}
    names = (str(meta.get("group")) for meta in facts.meta_P)
    group_P = np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
    _, first_G = np.unique(group_P, return_index=True)
    size_P = _column(facts, "group_size")
    return _Layout(
        first_G=first_G.astype(np.int64),
        name_G=list(number),
        subset_G=[facts.subset_P[p] for p in first_G],
        meta_G=[facts.meta_P[p] for p in first_G],
        whole_G=np.bincount(group_P, minlength=len(number)) == size_P[first_G],
        chosen=_places(group_P, _column(facts, "chosen_index"), len(number)),
        rejected=_places(group_P, _column(facts, "rejected_index"), len(number)),
    )


def _column(facts: PairFacts, key: str) -> Ints:
    return np.array([int(meta.get(key, 0)) for meta in facts.meta_P], dtype=np.int64)


def _places(group_P: Ints, index_P: Ints, n_groups: int) -> _Places:
    width = 1 + int(index_P.max(initial=0))
    there = np.zeros((n_groups, width), dtype=np.bool_)
    there[group_P, index_P] = True
    return _Places(group_P * width + index_P, there)
