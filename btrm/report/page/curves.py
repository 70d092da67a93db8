"""The learning curves of a data set: accuracy large, four others small."""

from __future__ import annotations

from dataclasses import dataclass

from btrm.report.page.charts import ACCURACY, SMALL, Metric, learning_curve
from btrm.report.page.spots import spots
from btrm.report.page.svg import Frame, Svg
from btrm.report.report_input import ReportInput

_LARGE = Frame((0, 1), (0, 1), 560, 330)
_SMALL = Frame((0, 1), (0, 1), 290, 180)


@dataclass(frozen=True, slots=True)
class Titled:
    """A picture with its title."""

    title: str
    svg: Svg


@dataclass(frozen=True, slots=True)
class Curves:
    """The learning curves of one data set."""

    dataset: str
    accuracy: Titled
    smalls: list[Titled]


def curves_of(tables: ReportInput, dataset: str) -> Curves | None:
    """Return the curves of a data set, None where too few checkpoints have a training step."""

    def draw(metric: Metric, size: Frame) -> Titled | None:
        found = spots(tables.records, tables.evals, dataset, metric.name)
        svg = learning_curve(found, metric, tables.best_checkpoint, size)
        return None if svg is None else Titled(metric.title, svg)

    accuracy = draw(ACCURACY, _LARGE)
    if accuracy is None:
        return None
    return Curves(dataset, accuracy, [chart for metric in SMALL if (chart := draw(metric, _SMALL))])
