"""The headline: the best checkpoint's numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from btrm.report.page.tables import interval_text, number_cell
from btrm.report.page.values import minus, number
from btrm.report.report_input import ReportInput, Row
from btrm.report.selection import is_optimistic


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the headline, what it is, and what stands under it."""

    name: str
    value: str
    under: str


def sentence_of(tables: ReportInput) -> str:
    """Return what the page begins with."""
    only = _only(tables)
    return tables.best or (f"{only} alone was judged." if only else "No checkpoint is called the best.")


def _only(tables: ReportInput) -> str | None:
    names = {str(record["checkpoint"]) for record in tables.records}
    return names.pop() if len(names) == 1 else None


def tiles(tables: ReportInput) -> list[Tile]:
    """Return the best checkpoint's numbers (or the only one's): its accuracy on each data set first."""
    told = tables.best_checkpoint or _only(tables)
    own = [record for record in tables.records if record["checkpoint"] == told]
    own.sort(key=lambda record: record["dataset"] != tables.best_dataset)
    if not own:
        return []
    found = [_accuracy_tile(record) for record in own[:4]]
    record = own[0]
    if math.isfinite(gain := number(record.get("difference"))):
        ends = interval_text(record.get("difference_low"), record.get("difference_high"), "+")
        found.insert(
            1,
            Tile(
                f"less {record.get('baseline') or 'the baseline'}'s, {record['dataset']}",
                minus(f"{gain:+.3f}"),
                f"{ends}{_beware(record)}",
            ),
        )
    loss = next((m for m in ("fitted_log_loss", "bt_log_loss") if math.isfinite(number(record.get(m)))), None)
    if loss is not None:
        under = "nats, " + ("cross-fitted temperature" if loss == "fitted_log_loss" else "given temperature")
        found.append(Tile("log-loss (a coin: 0.693)", f"{number(record[loss]):.3f}", under + _beware(record)))
    if math.isfinite(rate := number(record.get("unparsed_rate"))):
        found.append(Tile("answers without a score", f"{rate:.2%}", str(record["dataset"])))
    return found


def _beware(record: Row) -> str:
    return " optimistic: selected on it" if is_optimistic(record) else ""


def _accuracy_tile(record: Row) -> Tile:
    ends = interval_text(record.get("accuracy_low"), record.get("accuracy_high"))
    under = f"{ends}{_beware(record) or ' 95 %'}"
    return Tile(f"accuracy, {record['dataset']}", number_cell(record.get("accuracy")).text, under.strip())
