"""report.html of 50 checkpoints x 3 seeds on two data sets. Target: under 10 s and under 5 MB.

The judgements are simulated, all else is real: the evaluate and summarize stages, the worst pairs with long texts.
Beside it, what one of the page's panels costs as matplotlib's SVG.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from btrm.metrics.evaluate import EvaluateConfig
from btrm.publishing import write_json
from btrm.records import PreferencePair, judgement_schema, read_jsonl, write_pairs
from btrm.report import summary
from btrm.report.page.cell_charts import panels
from btrm.report.page.pooled import pool
from btrm.report.summary import SummarizeConfig
from btrm.runs import Resources, StageConfig
from btrm.stages import execute, prepare

TARGET_S, TARGET_BYTES = 10.0, 5e6
CHECKPOINTS, SEEDS, PAIRS, SAMPLES = 50, 3, 300, 2
DATA_SETS = ("test", "validation")


def make_pairs(dataset: str) -> list[PreferencePair]:
    text = "A long reply that goes on, with <b>markup</b> and much that does not matter. " * 60
    return [
        PreferencePair.make(
            f"Question {number}: {text}",
            (f"{number} {text}", f"{text} {number}"),
            number % 2,
            source="simulated",
            split=dataset,
            meta={"subset": f"part {number % 12}"},
        )
        for number in range(PAIRS)
    ]


def make_judgements(path: Path, pairs: dict[str, list[PreferencePair]]) -> None:
    """Write the answers of checkpoints that learn: scores on 0-100, three in a hundred unparsed."""
    rng = np.random.default_rng(0)
    names = ["base", "sft", *(f"checkpoint-{200 * n}" for n in range(1, CHECKPOINTS - 1))]
    with pq.ParquetWriter(path, judgement_schema(), compression="zstd") as writer:
        for place, name in enumerate(names):
            for dataset, own in pairs.items():
                for seed in range(SEEDS):
                    writer.write_table(cell(name, 2 + 20 * place / len(names), dataset, seed, own, rng))


def cell(
    name: str, skill: float, dataset: str, seed: int, own: list[PreferencePair], rng: np.random.Generator
) -> pa.Table:
    n = len(own) * 2 * SAMPLES
    side_R = np.tile(np.repeat([0, 1], SAMPLES), len(own))
    preferred_R = np.repeat([pair.preferred or 0 for pair in own], 2 * SAMPLES)
    score_R = 55 + np.where(side_R == preferred_R, 0.5, -0.5) * skill + rng.normal(0, 18, n)
    score_R = np.clip(np.round(score_R / 5) * 5, 0, 100)
    lost_R = rng.random(n) < 0.03
    columns: dict[str, Any] = {field.name: [None] * n for field in judgement_schema()}
    columns |= {
        "label_id": [pair.label_id for pair in own for _ in range(2 * SAMPLES)],
        "pair_id": [pair.pair_id for pair in own for _ in range(2 * SAMPLES)],
        "side": side_R,
        "sample": np.tile(np.arange(SAMPLES), 2 * len(own)),
        "preferred_side": preferred_R,
        "score": [None if lost else score for score, lost in zip(score_R, lost_R, strict=True)],
        "outcome": np.where(lost_R, "unparsed", "scored"),
        "seed": [seed] * n,
        "completion": [f"Because of many things. <s>{score:.0f}</s>" * 20 for score in score_R],
        "schema_version": [1] * n,
    }
    same = {"split": dataset, "dataset": dataset, "judge": name, "model_hash": "m", "layout": "pointwise"}
    same |= {"prompt": "hh_score100_v1", "method": "sampled"}
    return pa.table({**columns, **{key: [value] * n for key, value in same.items()}}, schema=judgement_schema())


def run_stage(name: str, config: StageConfig, root: Path) -> float:
    started = time.perf_counter()
    prepared = prepare(name, config, Resources(), root)
    request = prepared.directory / "stage.json"
    write_json(request, prepared.request.model_dump(mode="json"))
    execute(request)
    return time.perf_counter() - started


def timed(function: Callable[..., None], spent: list[float]) -> Callable[..., None]:
    def call(*words: Any) -> None:
        started = time.perf_counter()
        function(*words)
        spent.append(time.perf_counter() - started)

    return call


def panel_costs(details: Path) -> tuple[float, float, float, float]:
    """Return seconds and bytes of a panel: ours, and matplotlib's of one curve with points."""
    pooled = list(pool(row for _, row in read_jsonl(details)).values())[:20]
    started = time.perf_counter()
    drawn = [chart for one in pooled for chart in panels(one, pooled[0])]
    ours = (time.perf_counter() - started) / len(drawn)
    size = sum(len(chart.svg) for chart in drawn) / len(drawn)
    started = time.perf_counter()
    for one in pooled[:5]:
        figure = Figure(figsize=(3.2, 2.2))
        axes: Any = figure.subplots()
        axes.plot([b.chance for b in one.reliability], [b.frequency for b in one.reliability], marker="o")
        axes.set(xlabel="confidence", ylabel="share right")
        picture = io.BytesIO()
        figure.savefig(picture, format="svg")
    return ours, size, (time.perf_counter() - started) / 5, len(picture.getvalue())


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        pairs = {dataset: make_pairs(dataset) for dataset in DATA_SETS}
        judgements, texts = Path(folder) / "judgements.parquet", Path(folder) / "pairs.parquet"
        make_judgements(judgements, pairs)
        write_pairs(texts, (pair for own in pairs.values() for pair in own))
        source = {"judgements": str(judgements), "pairs": str(texts)}
        run_stage("evaluate", EvaluateConfig.build({**source, "n_bootstrap": 200}), root)
        spent: list[float] = []
        summary.write_report = timed(summary.write_report, spent)
        details = {"details": "@evaluate/details.jsonl"}
        whole = run_stage("summarize", SummarizeConfig.build({**source, **details, "n_bootstrap": 1000}), root)
        size = (root / "report.html").stat().st_size
        ours_s, ours_size, theirs_s, theirs_size = panel_costs(root / "evaluate" / "details.jsonl")
    cells = CHECKPOINTS * SEEDS * len(DATA_SETS)
    print(f"{CHECKPOINTS} checkpoints x {SEEDS} seeds x {len(DATA_SETS)} data sets = {cells} cells")
    print(f"report.html: {spent[0]:.2f} s, {size / 1e6:.2f} MB (targets < {TARGET_S:g} s, < {TARGET_BYTES / 1e6:g} MB)")
    print(f"the whole summarize stage: {whole:.2f} s")
    print(f"a panel: {1e3 * ours_s:.2f} ms, {ours_size / 1e3:.1f} kB; by matplotlib {1e3 * theirs_s:.0f} ms, ", end="")
    print(f"{theirs_size / 1e3:.1f} kB")
    return 0 if spent[0] < TARGET_S and size < TARGET_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
