"""What runs have paid to APIs, by step, from the journals of calls: also of steps that run, and of those killed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.teacher.claims import CALLS
from btrm.teacher.journal import journals
from btrm.teacher.spending import Spending, spending

COLUMNS = ("calls", "retries", "prompt_tokens", "cached_share", "completion_tokens", "cost_usd", "p50_s", "p95_s")


@dataclass(frozen=True, slots=True)
class Paid:
    """What one step of one run has asked for and paid."""

    run: str
    step: str
    spent: Spending

    def columns(self) -> dict[str, object]:
        """Return the figures by COLUMNS; the cost is empty where a price is not known."""
        spent = self.spent
        values = (spent.calls, spent.retries, spent.prompt_tokens, round(spent.cached_share, 4))
        values += (spent.completion_tokens, spent.cost_usd, spent.latency_s(0.5), spent.latency_s(0.95))
        return dict(zip(COLUMNS, values, strict=True))


def paid(roots: Iterable[Path]) -> list[Paid]:
    """Return what each step that asks has paid so far. Raises ConfigError for a journal that cannot be read."""
    return [row for root in roots for row in _of_run(root)]


def _of_run(root: Path) -> Iterator[Paid]:
    for calls in sorted(root.glob(f"*/{CALLS}")):
        if journals(calls):
            yield Paid(str(root), calls.parent.name, spending(calls))


def render_money(rows: Sequence[Paid]) -> str:
    """Return a table: a line a step of each run, and the sum."""
    head = f"{'asked':<14}{'calls':>10}{'retries':>9}{'tokens in':>14}{'cached':>8}{'out':>13}{'USD':>11}"
    lines = [f"{head}{'p50 s':>9}{'p95 s':>9}"]
    for run in dict.fromkeys(row.run for row in rows):
        lines.append(run)
        lines += [_row(row.step, row.spent) for row in rows if row.run == run]
    total = Spending()
    for row in rows:
        total.merge(row.spent)
    return "\n".join([*lines, _row("all", total)])


def _row(name: str, spent: Spending) -> str:
    usd = "?" if spent.cost_usd is None else f"{spent.cost_usd:,.2f}"
    latencies = "".join(f"{'' if s is None else f'{s:.2f}':>9}" for s in map(spent.latency_s, (0.5, 0.95)))
    return (
        f"{name:<14}{spent.calls:>10,}{spent.retries:>9,}{spent.prompt_tokens:>14,}{spent.cached_share:>8.0%}"
        f"{spent.completion_tokens:>13,}{usd:>11}{latencies}"
    )
