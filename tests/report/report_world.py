"""A simulated judge that learns over checkpoints, in the shape of eval.jsonl, details.jsonl and comparisons.csv.

A checkpoint's score of a side is its quality (0 or `skill`) plus noise of the pair and of the sample, on 0-100
in fives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.report.columns import as_records
from btrm.report.report_input import Answer, ReportInput, WorstPair
from btrm.report.rows import JudgeKey, SummaryRow

HOSTILE = (
    "</script><script>window.hit=1</script>",
    "<img src=x onerror='window.hit=2'>",
    '"><svg onload="window.hit=3">',
    "</title></style><style>body{display:none}</style>",
    "<iframe srcdoc='<script>parent.hit=4</script>'></iframe>",
    "{{ 7 * 7 }}{% raw %}${alert(1)}",
    "<!-- --> ]]> <![CDATA[ <plaintext>",
    "\u202eesrever\u202c \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05dc\u05d5\u05dd",
    "\x00\x08\x1b[31m\ud800 &lt;b&gt; &#x3c;script&#x3e;",
    "<a href='javascript:window.hit=5'>x</a><meta http-equiv=refresh content='0;url=//evil.example'>",
    "<details open ontoggle=window.hit=6><textarea><base href=//evil.example>",
)


@dataclass(frozen=True)
class World:
    """How large a simulated grid is."""

    steps: Sequence[int] = (50, 100, 150, 200, 250, 300)
    datasets: Sequence[str] = ("test", "validation")
    seeds: Sequence[int] = (0, 1, 2)
    n_pairs: int = 400
    n_samples: int = 4
    own_test_set: bool = False
    others: Sequence[str] = ()

    @property
    def checkpoints(self) -> list[str]:
        return ["base", "sft", *self.others, *(f"checkpoint-{step}" for step in self.steps)]


def report_input(world: World, hostile: bool = True) -> ReportInput:
    rng = np.random.default_rng(7)
    evals: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    rows: list[SummaryRow] = []
    for place, checkpoint in enumerate(world.checkpoints):
        skill = 2.0 if place == 0 else 22 * (1 - math.exp(-place / (0.35 * len(world.checkpoints)))) + 2
        for dataset in world.datasets:
            own = [cell(world, checkpoint, dataset, seed, skill, rng) for seed in world.seeds]
            evals += [row for row, _ in own]
            details += [detail for _, detail in own]
            rows.append(summary_row(checkpoint, dataset, [row for row, _ in own]))
    best = world.checkpoints[-2]
    name = f"{best} on {world.datasets[0]}"
    return ReportInput(
        records=as_records(rows),
        evals=evals,
        details=details,
        comparisons=comparisons(world, rng),
        best=f"{best}: 0.712 [0.690, 0.734] on {world.datasets[0]}, selected by the highest accuracy of 8. {name}.",
        best_checkpoint=best,
        best_dataset=world.datasets[0],
        own_test_set=world.own_test_set,
        baseline="sft",
        worst=[*worst(best, world.datasets[0], rng), *(hostile_pairs(best) if hostile else [])],
        notes=["Simulated: no judge was asked."],
    )


def cell(
    world: World, checkpoint: str, dataset: str, seed: int, skill: float, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Simulate one (checkpoint, data set, seed): its eval.jsonl row and its details."""
    shape = (world.n_pairs, 2, world.n_samples)
    pair_P2K = rng.normal(0, 12, (world.n_pairs, 2, 1))
    score_P2K = 55 + pair_P2K + rng.normal(0, 14, shape) + np.array([skill / 2, -skill / 2])[None, :, None]
    score_P2K = np.clip(np.round(score_P2K / 5) * 5, 0, 100)
    margin_P = score_P2K[:, 0].mean(1) - score_P2K[:, 1].mean(1)
    credit_P = (margin_P > 0) + 0.5 * (margin_P == 0)
    half = 1.96 * credit_P.std() / math.sqrt(world.n_pairs)
    accuracy = float(credit_P.mean())
    lost = max(0.002, 0.06 - 0.003 * skill) * float(rng.uniform(0.7, 1.3))
    chance_P = 1 / (1 + np.exp(-np.abs(margin_P) / 18))
    key = {"checkpoint": checkpoint, "dataset": dataset, "seed": seed, "prompt": "hh_score100_v1", "method": "sampled"}
    row = {
        **key,
        "n_pairs": world.n_pairs,
        "n_label_ties": 7,
        "n_judgements": world.n_pairs * 2 * world.n_samples,
        "n_samples": world.n_samples,
        "accuracy": accuracy,
        "accuracy_low": accuracy - half,
        "accuracy_high": accuracy + half,
        "strict_accuracy": float((margin_P > 0).mean()),
        "nontie_accuracy": accuracy,
        "tie_rate": float((margin_P == 0).mean()),
        "coverage": 1 - lost**2,
        "unparsed_rate": lost,
        "truncated_rate": lost / 3,
        "accuracy_unparsed_wrong": accuracy - lost / 2,
        "accuracy_unparsed_tie": accuracy,
        "accuracy_unparsed_drop": accuracy + lost / 4,
        "rate_scored": 1 - lost,
        "rate_unparsed": lost / 2,
        "rate_truncated": lost / 3,
        "rate_out_of_range": lost / 6,
        "bt_log_loss": float(np.log1p(np.exp(-margin_P / 20)).mean()),
        "bt_temp": 20.0,
        "fitted_temp": 18.0,
        "fitted_log_loss": float(np.log1p(np.exp(-margin_P / 18)).mean()),
        "brier": float(((chance_P - credit_P) ** 2).mean()),
        "ece": float(abs(chance_P.mean() - accuracy)),
        "auc_margin": 0.6,
        "length_correlation": 0.12,
        "longer_wins": 0.445,
        **tails("margin", margin_P),
        **tails("margin_correct", margin_P[margin_P > 0]),
        **tails("margin_wrong", margin_P[margin_P < 0]),
        **tails("loss", np.log1p(np.exp(-margin_P / 20))),
        "unparsed": "tie",
        "scale_low": 0.0,
        "scale_high": 100.0,
    }
    return row, {**{k: key[k] for k in ("checkpoint", "dataset", "seed")}, **curves(score_P2K, margin_P, credit_P, rng)}


def tails(name: str, value_P: Any) -> dict[str, float]:
    return {f"{name}_p{p}": float(np.percentile(value_P, p)) for p in (1, 5, 10, 25, 50, 75, 90, 95, 99)}


def curves(score_P2K: Any, margin_P: Any, credit_P: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Return the nested part of a details.jsonl row."""
    chance_P = 1 / (1 + np.exp(-np.abs(margin_P) / 18))
    places = np.minimum(((chance_P - 0.5) * 20).astype(int), 9)
    order = np.argsort(-np.abs(margin_P))
    risk = np.cumsum(1 - credit_P[order]) / np.arange(1, len(order) + 1)
    at = np.unique(np.linspace(0, len(order) - 1, 101).astype(int))
    edges = np.linspace(0, 100, 21)
    margin_edges = np.linspace(-105, 105, 22)
    ks = range(1, score_P2K.shape[2] + 1)
    return {
        "reliability": [
            {
                "low": 0.5 + b / 20,
                "high": 0.55 + b / 20,
                "n": int((places == b).sum()),
                "chance": float(chance_P[places == b].mean()) if (places == b).any() else None,
                "frequency": float(credit_P[places == b].mean()) if (places == b).any() else None,
            }
            for b in range(10)
        ],
        "risk_coverage": [{"coverage": (i + 1) / len(order), "risk": float(risk[i])} for i in at],
        "score_histogram": {
            "edges": edges.tolist(),
            "preferred": np.histogram(score_P2K[:, 0], edges)[0].tolist(),
            "other": np.histogram(score_P2K[:, 1], edges)[0].tolist(),
        },
        "margin_histogram": {
            "edges": margin_edges.tolist(),
            "counts": np.histogram(margin_P, margin_edges)[0].tolist(),
        },
        "mean_at_k": [{"k": k, "accuracy": float(credit_P.mean() - 0.06 / k)} for k in ks],
        "majority_at_k": [{"k": k, "accuracy": float(credit_P.mean() - 0.06 / k - 0.004 * (k > 1))} for k in ks],
        "subsets": [
            {"name": name, "n": 90 + 7 * i, "accuracy": a, "low": a - 0.09, "high": min(1.0, a + 0.09)}
            for i, name in enumerate(("harmless", "helpful <b>", "math", "safety", "chat-hard"))
            if (a := float(np.clip(credit_P.mean() + rng.normal(0, 0.05), 0, 1)))
        ],
        "official": [{"name": "benchmark's own", "value": float(credit_P.mean()), "n": len(credit_P)}],
    }


def summary_row(checkpoint: str, dataset: str, evals: list[dict[str, Any]]) -> SummaryRow:
    low, high = (float(np.mean([row[f"accuracy_{side}"] for row in evals])) for side in ("low", "high"))
    key = JudgeKey(checkpoint, "hh_score100_v1", "sampled")
    return SummaryRow(key, dataset, tuple(evals), Interval(low, high))


def comparisons(world: World, rng: np.random.Generator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    pairs = [("baseline", name, "sft") for name in world.checkpoints if name != "sft"]
    pairs += [("previous", after, before) for before, after in pairwise(world.checkpoints)]
    for dataset in world.datasets:
        for kind, a, b in pairs:
            difference = float(rng.normal(0.02, 0.03))
            p = math.erfc(abs(difference) / 0.02 / math.sqrt(2))
            found.append(
                {
                    "dataset": dataset,
                    "kind": kind,
                    "a": a,
                    "b": b,
                    "difference": difference,
                    "low": difference - 0.04,
                    "high": difference + 0.04,
                    "p_bootstrap": p,
                    "p_mcnemar": p,
                    "p_holm": min(1.0, p * 5),
                    "mde": 0.056,
                    "pairs_needed": 1234.0,
                    "seeds_needed": math.inf,
                }
            )
    return found


def worst(checkpoint: str, dataset: str, rng: np.random.Generator) -> list[WorstPair]:
    text = "A careful reply that explains what may go wrong, step by step, with two examples and a caveat. "
    found: list[WorstPair] = []
    for place in range(6):
        answers = tuple(
            Answer(side, seed, sample, 20.0 + 60 * side + 5 * sample, "scored", f"Reasoning {sample}.\n<s>80</s>")
            for side in (0, 1)
            for seed in (0, 1, 2)
            for sample in (0, 1, 2, 3)
        )
        found.append(
            WorstPair(
                trouble="wrong" if place < 3 else "disagreement",
                checkpoint=checkpoint,
                dataset=dataset,
                label_id=f"pair{place}-0",
                context=f"Human: How do I do thing {place}?\n\nAssistant: Which one?\n\nHuman: " + text * place * 3,
                responses=(text * (3 + 4 * place), text * (2 + int(rng.integers(0, 30)))),
                preferred=0,
                scores=(25.0, 85.0),
                margin=-60.0 + 5 * place,
                spread=4.5 * place,
                answers=answers,
                source="hh",
            )
        )
    return found


def hostile_pairs(checkpoint: str) -> list[WorstPair]:
    """Return pairs whose every text tries to leave its place."""
    return [
        WorstPair(
            trouble="wrong",
            checkpoint=checkpoint,
            dataset=f"test{text}",
            label_id=f"id{text}",
            context=text * 3,
            responses=(text, f"{text}\n" * 200),
            preferred=1,
            scores=(None, 12.0),
            margin=None,
            spread=None,
            answers=(Answer(0, 0, 0, None, f"unparsed{text}", text), Answer(1, 0, 0, 12.0, "scored", text)),
            source=text,
        )
        for text in HOSTILE
    ]
