"""Who is better than whom: every checkpoint against its baseline, the one before it, and the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.decisions import Comparison, adjusted, comparison, rough
from btrm.metrics.pairwise import Floats
from btrm.metrics.panel import Panel
from btrm.report.aligned import aligned
from btrm.report.boards import Board
from btrm.report.rows import OPTIMISTIC, JudgeKey, choose_baseline, how_selected, judge_names

Kind = Literal["baseline", "previous", "best"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Judge a less judge b on a data set; `kind` tells what b (for best: a) is to the other.

    `selected` tells by which data the best was selected, where it is one of the two.
    """

    dataset: str
    kind: Kind
    a: JudgeKey
    b: JudgeKey
    name_a: str
    name_b: str
    result: Comparison
    selected: str = ""

    def record(self) -> dict[str, Any]:
        """Return the row of comparisons.csv."""
        whose = {"dataset": self.dataset, "kind": self.kind, "a": self.name_a, "b": self.name_b}
        return {**whose, **asdict(self.result), "selected": self.selected}


@dataclass(frozen=True, slots=True)
class Told:
    """All comparisons, and the 95 % intervals of (strict) accuracies, {data set: {judge: interval}}."""

    comparisons: list[Compared]
    accuracies: dict[str, dict[JudgeKey, Interval]]
    strict: dict[str, dict[JudgeKey, Interval]]


def compare_boards(
    boards: Sequence[Board],
    baseline: str | None,
    best: JudgeKey | None,
    n_bootstrap: int,
    seed: int,
    selected_on: str | None = None,
) -> Told:
    """Compare all judges of each board; Holm's adjustment is over comparisons of one kind on all data sets together.

    The best of `selected_on` was found by looking at all its judges, so there any two of them count as compared.
    """
    found: list[Compared] = []
    accuracies: dict[str, dict[JudgeKey, Interval]] = {}
    strict: dict[str, dict[JudgeKey, Interval]] = {}
    for board in boards:
        wanted = _wanted(board.keys, baseline, best)
        place = {key: i for i, key in enumerate(board.keys)}
        pairs = dict.fromkeys((place[a], place[b]) for _, a, b in wanted)
        credits = [*board.credits.values(), *map(_strictly, board.credits.values())]
        panel = Panel(credits, pairs, board.cluster_P, n_bootstrap, seed)
        accuracies[board.dataset] = {key: panel.accuracy_interval(i) for key, i in place.items()}
        strict[board.dataset] = {key: panel.accuracy_interval(len(place) + i) for key, i in place.items()}
        results = {pair: comparison(panel, *pair) for pair in pairs}
        names = judge_names(board.keys)
        how = how_selected(board.dataset, selected_on)
        found += [
            Compared(
                *(board.dataset, kind, a, b, names[a], names[b], results[place[a], place[b]]),
                selected=how if best in (a, b) else "",
            )
            for kind, a, b in wanted
        ]
    judges = sum(len(board.keys) for board in boards if board.dataset == selected_on and best in board.keys)
    return Told(_adjusted(found, max(0, (judges - 1) * (judges - 2) // 2)), accuracies, strict)


def _strictly(credit_PS: Floats) -> Floats:
    """Return credits where a tie counts nothing; NaN stays."""
    return np.where(np.isnan(credit_PS), np.nan, np.floor(credit_PS))


def _adjusted(found: list[Compared], unseen: int) -> list[Compared]:
    for kind in ("baseline", "previous", "best"):
        family = [i for i, compared in enumerate(found) if compared.kind == kind]
        others = unseen if kind == "best" else 0
        for i, result in zip(family, adjusted([found[i].result for i in family], others), strict=True):
            found[i] = replace(found[i], result=result)
    return found


def _wanted(
    keys: Sequence[JudgeKey], baseline: str | None, best: JudgeKey | None
) -> list[tuple[Kind, JudgeKey, JudgeKey]]:
    return [*_against_baseline(keys, baseline), *_against_previous(keys), *_best(keys, best)]


def _against_baseline(keys: Sequence[JudgeKey], wanted: str | None) -> Iterator[tuple[Kind, JudgeKey, JudgeKey]]:
    """Yield each judge with the baseline that was asked by the same prompt, in the same way."""
    for family in _families(keys):
        checkpoint = choose_baseline([key.checkpoint for key in family], wanted)
        for key in family:
            if checkpoint is not None and key.checkpoint != checkpoint:
                yield "baseline", key, key._replace(checkpoint=checkpoint)


def _against_previous(keys: Sequence[JudgeKey]) -> Iterator[tuple[Kind, JudgeKey, JudgeKey]]:
    for family in _families(keys):
        for before, after in pairwise(family):
            yield "previous", after, before


def _best(keys: Sequence[JudgeKey], best: JudgeKey | None) -> Iterator[tuple[Kind, JudgeKey, JudgeKey]]:
    for key in keys if best in keys else ():
        if best is not None and key != best:
            yield "best", best, key


def _families(keys: Sequence[JudgeKey]) -> list[list[JudgeKey]]:
    """Return the judges with one prompt and one method together."""
    families: dict[tuple[str, str], list[JudgeKey]] = {}
    for key in keys:
        families.setdefault((key.prompt, key.method), []).append(key)
    return list(families.values())


_HEADER = ("dataset", "a", "b", "a - b", "95 % interval", "p (Holm)", "detectable", "pairs needed", "seeds needed")

_BEWARE = f" *: {OPTIMISTIC}."


def comparisons_text(found: Sequence[Compared]) -> str:
    """Return the comparisons with baselines and with the best as text for people; empty where there are none."""
    told = {(c.dataset, c.a, c.b): c for c in reversed(found) if c.kind != "previous"}  # once where it is both kinds
    body = [_cells(compared) for compared in reversed(told.values())]
    if not body:
        return ""
    table = aligned(_HEADER, body, [True] * 3 + [False] * 6)
    return (
        "## Comparisons\n\nAccuracy of a less that of b on the same pairs. Detectable: the least difference that is "
        "found with 80 % power; needed: about how many more (pairs: of new contexts) might find a difference like this "
        f"one (none: no practical number).{_BEWARE if any(c.selected == OPTIMISTIC for c in told.values()) else ''}\n\n"
        f"{table}\n"
    )


def _cells(compared: Compared) -> list[str]:
    result = compared.result
    interval = f"[{result.low:+.3f}, {result.high:+.3f}]"
    p_holm = "<0.0001" if result.p_holm < 1e-4 else f"{result.p_holm:.4f}"
    needed = [rough(n) for n in (result.pairs_needed, result.seeds_needed)]
    numbers = [f"{result.difference:+.3f}", interval, p_holm, f"{result.mde:.3f}", *needed]
    dataset = f"{compared.dataset} *" if compared.selected == OPTIMISTIC else compared.dataset
    return [dataset, compared.name_a, compared.name_b, *("" if "nan" in cell else cell for cell in numbers)]
