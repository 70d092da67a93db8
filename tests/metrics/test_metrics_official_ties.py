"""PandaLM's, Auto-J's and LLMBar's scores, against scikit-learn and figures worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_cells import benchmark_pairs, written_cell
from sklearn.metrics import accuracy_score, f1_score

from btrm.data.sources import iter_pairs
from btrm.metrics.official import official_scores
from btrm.metrics.official_score import interval
from btrm.metrics.tie_margin import TIE, TieVerdicts, accuracy, best_margin, macro_f1
from btrm.records import PreferencePair


def values(folder: Path, pairs: Sequence[PreferencePair], scores: dict[str, list[float | None]]) -> dict[str, float]:
    """Score by the response's text."""
    cell = written_cell(folder, pairs, lambda pair, side: scores[pair.responses[side]])
    return {score.name: score.value for score in official_scores(cell)}


def random_verdicts(rng: np.random.Generator) -> TieVerdicts:
    n = int(rng.integers(1, 60))
    return TieVerdicts(rng.integers(0, 3, n), np.round(rng.normal(0, 2, n)), rng.integers(0, 9, n))


def test_the_best_margin_is_the_least_of_the_best() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        found = random_verdicts(rng)
        right = [float(np.mean(found.verdict_P(float(m)) == found.said_P)) for m in range(13)]
        assert best_margin(found.said_P, found.difference_P) == int(np.argmax(right))
    assert best_margin(np.zeros(0, dtype=np.int64), np.zeros(0)) == 0


def test_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = random_verdicts(rng)
        verdict = found.verdict_P(1.0)
        right, f1 = accuracy(found.said_P, verdict), macro_f1(found.said_P, verdict)
        assert right is not None and f1 is not None
        assert right.value == pytest.approx(accuracy_score(found.said_P, verdict))
        assert f1.value == pytest.approx(f1_score(found.said_P, verdict, average="macro", zero_division=0))


def test_intervals_of_macro_f1_cover_the_true_one() -> None:
    rng = np.random.default_rng(2)
    chance_33 = np.array([[0.30, 0.08, 0.04], [0.06, 0.28, 0.04], [0.06, 0.06, 0.08]])
    true = np.mean(2 * np.diag(chance_33) / (chance_33.sum(0) + chance_33.sum(1)))
    covered = 0
    for _ in range(1000):
        drawn = np.repeat(rng.choice(9, 150, p=chance_33.ravel()), 2)  # two items a context, judged alike
        estimate = macro_f1(drawn // 3, drawn % 3)
        assert estimate is not None
        found = interval(estimate, np.arange(300) // 2)
        covered += found.low <= true <= found.high
    assert 0.925 <= covered / 1000 <= 0.975


def test_a_margin_is_fitted_on_other_contexts_only() -> None:
    """All that one fold could tell is in it, so the others' margins do not see it."""
    said = np.array([TIE] * 5 + [0] * 5)
    found = TieVerdicts(said, np.array([3.0] * 5 + [9.0] * 5), np.array([0, 1, 2, 3, 4] * 2))
    assert set(found.fitted_margin_P()) == {3.0}
    alone = TieVerdicts(said, found.difference_P, np.array([0] * 5 + [1] * 5))
    assert list(alone.fitted_margin_P()) == [0.0] * 5 + [3.0] * 5  # no tie among the others; and there, ties alone


def test_a_margin_that_gains_no_more_than_chance_is_none() -> None:
    near, far = np.array([3.0, 3.0, 3.0, 9.0]), np.array([TIE, TIE, 0, 0])
    assert best_margin(far, near) == 3.0 and TieVerdicts(far, near, np.arange(4)).sure_margin() == 0.0
    many = TieVerdicts(np.tile(far, 9), np.tile(near, 9), np.arange(36))
    assert many.sure_margin() == 3.0  # 9 more of 27 that changed


def autoj(n: int, label: int) -> dict[str, Any]:
    return {"scenario": "s", "label": label, "prompt": f"p{n}", "response 1": f"a{n}", "response 2": f"b{n}"}


def test_auto_j_counts_ties_that_the_judge_calls(tmp_path: Path) -> None:
    pairs = benchmark_pairs(tmp_path, "autoj", [autoj(n, label) for n, label in enumerate((0, 1, 2, 2, 0))])
    scores: dict[str, list[float | None]] = {
        "a0": [9, 7], "b0": [1, 1],
        "a1": [9], "b1": [5],  # wrong
        "a2": [5], "b2": [5],
        "a3": [6], "b3": [5],  # a tie with a margin of 1
        "a4": [None], "b4": [5],  # unparsed: a tie, so wrong
    }  # fmt: skip
    found = values(tmp_path, pairs, scores)
    assert found["Auto-J agreement (no tie margin)"] == pytest.approx(2 / 5)
    assert found["Auto-J agreement (best tie margin)"] == pytest.approx(3 / 5)
    assert next(iter(found)) == "Auto-J agreement (fitted tie margin)"


def pandalm(n: int, *labels: int) -> dict[str, Any]:
    said = {f"annotator{k}": label for k, label in enumerate(labels, 1)}
    texts = {"instruction": f"do {n}", "input": "", "response1": f"a{n}", "response2": f"b{n}"}
    return {"idx": n, "motivation_app": "x", "cmp_key": "m1_m2", **texts, **said}


def test_pandalm_is_held_to_what_most_annotators_say(tmp_path: Path) -> None:
    rows = [pandalm(0, 1, 1, 0), pandalm(1, 2, 2, 2), pandalm(2, 0, 0, 0), pandalm(3, 0, 0, 1), pandalm(4, 0, 1, 2)]
    pairs = benchmark_pairs(tmp_path, "pandalm", rows)
    scores: dict[str, list[float | None]] = {
        "a0": [2], "b0": [1], "a1": [2], "b1": [1], "a2": [3], "b2": [3], "a3": [1], "b3": [4], "a4": [1], "b4": [1],
    }  # fmt: skip
    found = values(tmp_path, pairs, scores)
    assert found["PandaLM accuracy (no tie margin)"] == pytest.approx(2 / 4)  # items 0 and 2; 4 has no majority
    f1 = {"first": 2 / 3, "second": 0.0, "tie": 2 / 3}  # one right of two given and one said, ...
    assert found["PandaLM macro F1 (no tie margin)"] == pytest.approx(sum(f1.values()) / 3)


def test_pandalms_real_labels_by_their_own_majority(tmp_path: Path, shared_data: Path) -> None:
    """A judge that scores as most annotators said is right on every item; one that swaps sides on ties alone."""
    path = shared_data / "pandalm/testset-v1.first-500.json"
    raw = {str(row["idx"]): row for row in json.loads(path.read_text())}
    pairs = list(iter_pairs("pandalm", "test", data_files=[path]))

    def verdict(pair: PreferencePair) -> int:
        said = [raw[str(pair.meta["item"])][f"annotator{k}"] for k in (1, 2, 3)]
        return max(set(said), key=said.count)

    good = written_cell(tmp_path, pairs, lambda pair, side: [60.0 if verdict(pair) == side + 1 else 40.0])
    scores = {score.name: score for score in official_scores(good)}
    assert {score.value for score in scores.values()} == {1.0} and {score.n for score in scores.values()} == {500}
    bad = written_cell(tmp_path, pairs, lambda pair, side: [40.0 if verdict(pair) == side + 1 else 60.0])
    found = {score.name: score.value for score in official_scores(bad)}
    ties = sum(verdict(pair) == 0 for pair in pairs) / len(pairs)
    assert found["PandaLM accuracy (no tie margin)"] == pytest.approx(ties)


def llmbar(folder: Path, subset: str, *labels: int) -> list[PreferencePair]:
    place = folder / subset
    place.mkdir()
    rows = [{"input": f"{subset} {n}", "output_1": "a", "output_2": "b", "label": x} for n, x in enumerate(labels)]
    (place / "dataset.json").write_text(json.dumps(rows))
    return list(iter_pairs("llmbar", "test", data_files=[place]))


def test_llmbars_sets_weigh_alike(tmp_path: Path) -> None:
    labels = {"Natural": (1, 1, 1, 2), "Neighbor": (1, 2), "GPTInst": (1,), "GPTOut": (2,), "Manual": (1, 1)}
    pairs = [pair for subset, said in labels.items() for pair in llmbar(tmp_path, subset, *said)]
    found = values(tmp_path, pairs, {"a": [8.0], "b": [3.0]})
    assert [name.partition(" (")[0] for name in found][:2] == ["LLMBar", "LLMBar adversarial"]
    shares = {"Natural": 0.75, "Neighbor": 0.5, "GPTInst": 1.0, "GPTOut": 0.0, "Manual": 1.0}
    assert {name: found[f"LLMBar {name}"] for name in shares} == shares
    assert found["LLMBar (10 of 419 prompts)"] == pytest.approx(sum(shares.values()) / 5)
    assert found["LLMBar adversarial"] == pytest.approx(2.5 / 4)


def test_llmbars_natural_set_alone_says_what_is_missing(tmp_path: Path, shared_data: Path) -> None:
    pairs = list(iter_pairs("llmbar", "test", data_files=[shared_data / "llmbar/natural.json"]))
    cell = written_cell(tmp_path, pairs, lambda _, side: [float(side)])  # always the second one
    average, natural = official_scores(cell)
    assert average.name.startswith("LLMBar without Neighbor, GPTInst, GPTOut, Manual")
    assert natural.name == "LLMBar Natural" and (natural.value, natural.n) == (pytest.approx(0.58), 100)
    assert natural.low < 0.58 < natural.high
