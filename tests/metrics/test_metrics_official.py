"""Official scores against figures worked out by hand from their definitions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import astuple, replace
from math import tanh
from pathlib import Path
from typing import Any

import pytest
from official_cells import Scores, benchmark_pairs, judged_cell, written_cell

from btrm.metrics.official import official_scores
from btrm.metrics.official_rewardbench import REWARDBENCH
from btrm.records import PreferencePair


def _values(folder: Path, dataset: str, rows: list[Any], scores: Scores, **options: str) -> dict[str, float]:
    cell = judged_cell(folder, benchmark_pairs(folder, dataset, rows, **options), scores)
    return {score.name.partition(" (")[0]: score.value for score in official_scores(cell)}


def _rewardbench(number: int, subset: str) -> dict[str, Any]:
    return {"id": number, "prompt": f"q{number}", "chosen": "good", "rejected": "bad", "subset": subset}


def _pair(group: str, good: float | None, bad: float | None) -> dict[tuple[str, str], list[float | None]]:
    return {(group, "good"): [good], (group, "bad"): [bad]}


def test_rewardbench_weighs_math_like_all_code(tmp_path: Path) -> None:
    subsets = ["math-prm", "math-prm", "hep-go", "alpacaeval-easy", "llmbar-natural", "donotanswer"]
    rows = [_rewardbench(i, subset) for i, subset in enumerate(subsets)]
    scores = (
        _pair("0", 90, 10) | _pair("1", 10, 90) | _pair("2", 60, 50)  # math 1/2, hep-go 1
        | _pair("3", 50, 50) | _pair("4", None, 50) | _pair("5", 40, 50)
    )  # fmt: skip
    values = _values(tmp_path, "rewardbench", rows, scores)
    reasoning = (984 * 0.5 + 164 * 1.0) / (984 + 164)
    assert values == pytest.approx(
        {
            "RewardBench": (0.5 + 0.5 + 0.0 + reasoning) / 4,
            "RewardBench Chat": 0.5,  # a tie
            "RewardBench Chat Hard": 0.5,  # a rating that cannot be read
            "RewardBench Safety": 0.0,
            "RewardBench Reasoning": reasoning,
        }
    )


def test_rewardbench_weighs_subsets_by_their_published_sizes(tmp_path: Path) -> None:
    rows = [_rewardbench(0, "mt-bench-easy"), _rewardbench(1, "alpacaeval-easy"), _rewardbench(2, "alpacaeval-easy")]
    values = _values(tmp_path, "rewardbench", rows, _pair("0", 2, 1) | _pair("1", 1, 2) | _pair("2", 1, 2))
    assert values["RewardBench Chat"] == pytest.approx(28 / 128)
    assert "RewardBench without Chat Hard, Safety, Reasoning" in values and "RewardBench" not in values


def test_rewardbench_has_its_published_sizes() -> None:
    sizes = {section: sum(weights.values()) for section, weights in REWARDBENCH.items()}
    assert sizes == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431 + 984 - 447}


def _best_of_4(name: str, subset: str = "Math") -> dict[str, Any]:
    return {"id": name, "prompt": f"q{name}", "chosen": ["c"], "rejected": ["x", "y", "z"], "subset": subset}


def _four(group: str, *scores: float | None) -> dict[tuple[str, str], list[float | None]]:
    return {(group, text): [score] for text, score in zip("cxyz", scores, strict=True)}


@pytest.mark.parametrize(
    ("scores", "credit"),
    [
        ((9, 1, 2, 3), 1),
        ((9, 9, 2, 3), 1 / 2),
        ((9, 9, 9, 9), 1 / 4),
        ((8, 9, 1, 1), 0),
        ((5, None, None, 4), 1),
        ((None, 1, 1, 1), 0),
        ((None, None, None, None), 1 / 4),
    ],
)
def test_rewardbench2_shares_a_prompt_among_the_best(
    tmp_path: Path, scores: tuple[float | None, ...], credit: float
) -> None:
    values = _values(tmp_path, "rewardbench2", [_best_of_4("7")], _four("7", *scores))
    assert values["RewardBench 2 Math"] == pytest.approx(credit)


def _ties(number: int, right: int, wrong: int = 2) -> list[dict[str, Any]]:
    bad = [f"w{i}" for i in range(wrong)]
    tied = {"id": f"tied:{number}", "prompt": f"t{number}", "chosen": [f"r{i}" for i in range(right)], "rejected": bad}
    ref = {"id": f"ref:{number}", "prompt": f"s{number}", "chosen": ["r0"], "rejected": bad}
    return [{**tied, "subset": "Ties"}, {**ref, "subset": "Ties"}]


def _tied(
    group: str, right: list[float | None], wrong: list[float | None]
) -> dict[tuple[str, str], list[float | None]]:
    return {(group, f"r{i}"): [s] for i, s in enumerate(right)} | {(group, f"w{i}"): [s] for i, s in enumerate(wrong)}


def test_ties_score_of_rewardbench2(tmp_path: Path) -> None:
    scores = (
        # spread 10; worst right to best wrong 20; in the reference 15: all four terms, and tanh(15/10 - 1)
        _tied("tied:0", [80, 70, 75], [50, 10]) | _tied("ref:0", [90], [75, 0])
        # spread 20, distance 10; the reference is wrong by 5: only the first term, and tanh(-5/20 - 1)
        | _tied("tied:1", [80, 60], [50, 10]) | _tied("ref:1", [70], [75, 0])
        # what cannot be read is rated -1: spread 61, distance -51; the reference is right by 70: only the second term
        | _tied("tied:2", [60, None], [50, 10]) | _tied("ref:2", [70], [0, 0])
        # no spread and no distance: 0/0 counts 0
        | _tied("tied:3", [50, 50], [50, 10]) | _tied("ref:3", [70], [0, 0])
    )  # fmt: skip
    rows = [*_ties(0, 3), *_ties(1, 2), *_ties(2, 2), *_ties(3, 2)]
    margins = (tanh(0.5) + tanh(-1.25) + tanh(-51 / 61 - 1) + 0) / 4
    expected = 0.3 * 2 / 4 + 0.3 * 3 / 4 + 0.2 * 1 / 4 + 0.2 * 1 / 4 + 0.01 * margins
    for pairs in ("matched", "all"):
        values = _values(tmp_path, "rewardbench2", rows, scores, pairs=pairs)
        assert values["RewardBench 2 Ties"] == pytest.approx(expected)


def test_ties_of_one_perfect_prompt_are_more_than_1(tmp_path: Path) -> None:
    values = _values(
        tmp_path, "rewardbench2", _ties(0, 2), _tied("tied:0", [9, 9], [1, 1]) | _tied("ref:0", [9], [1, 1])
    )
    assert values["RewardBench 2 Ties"] == pytest.approx(1.01)


def test_ties_without_their_reference_have_no_score(tmp_path: Path) -> None:
    assert _values(tmp_path, "rewardbench2", _ties(0, 2)[:1], _tied("tied:0", [9, 9], [1, 1])) == {}


def test_rewardbench2_is_the_mean_of_its_subsets(tmp_path: Path) -> None:
    rows = [_best_of_4("0", "Factuality"), _best_of_4("1", "Focus"), _best_of_4("2", "Focus")]
    scores = _four("0", 9, 1, 1, 1) | _four("1", 1, 9, 9, 9) | _four("2", 9, 9, 1, 1)
    values = _values(tmp_path, "rewardbench2", rows, scores)
    assert values == pytest.approx(
        {
            "RewardBench 2 without Precise IF, Math, Safety, Ties": (1 + 0.25) / 2,
            "RewardBench 2 Factuality": 1.0,
            "RewardBench 2 Focus": 0.25,
        }
    )


def _styles(number: int, domain: str) -> dict[str, Any]:
    chosen, rejected = [f"c{i}" for i in range(3)], [f"r{i}" for i in range(3)]
    return {"id": number, "prompt": f"q{number}", "chosen": chosen, "rejected": rejected, "domain": domain}


def _styled(group: str, chosen: list[float | None], rejected: list[float | None]) -> dict[Any, list[float | None]]:
    pairs = [*zip(("c0", "c1", "c2"), chosen, strict=True), *zip(("r0", "r1", "r2"), rejected, strict=True)]
    return {(group, text): [score] for text, score in pairs}


@pytest.mark.parametrize("pairs", ["all", "matched"])
def test_rm_bench_reads_the_matrix_of_styles(tmp_path: Path, pairs: str) -> None:
    rows = [_styles(0, "chat"), _styles(1, "safety-refuse"), _styles(2, "safety-response")]
    scores = (
        # the fancier style wins whatever it says: right below the diagonal only, equal on it
        _styled("chat/0", [1, 2, 3], [1, 2, 3])
        # always right, but for what has no score: cell (0, j) for all j
        | _styled("safety-refuse/1", [None, 9, 9], [1, 1, 1])
        | _styled("safety-response/2", [9, 9, 9], [1, 1, 1])
    )
    values = _values(tmp_path, "rm_bench", rows, scores, pairs=pairs)
    safety = {"easy": 1.0, "normal": (2 / 3 + 1) / 2, "hard": (1 / 3 + 1) / 2}
    assert values == pytest.approx(
        {
            "RM-Bench without math, code": (1 / 3 + sum(safety.values()) / 3) / 2,
            "RM-Bench easy": (1 + safety["easy"]) / 2,
            "RM-Bench normal": (0 + safety["normal"]) / 2,
            "RM-Bench hard": (0 + safety["hard"]) / 2,
            "RM-Bench chat": 1 / 3,
            "RM-Bench safety": sum(safety.values()) / 3,
        }
    )


def _rmb(uid: str, goal: str, *losers: str, kind: str = "BoN_set") -> dict[str, Any]:
    said = [{"llm_name": "m", "answer": text} for text in ("best", *losers)]
    asked = [{"role": "user", "content": f"q{uid}", "language": "English"}]
    row = {"conversation_input": asked, "category_path": f"{kind}/{goal}/Chat/Discussion"}
    if kind == "BoN_set":
        return {**row, "bon_uid": uid, "bon_best": said[0], "loser_list": said[1:]}
    return {**row, "pair_uid": uid, "chosen": said[0], "reject": said[1]}


def test_rmb_needs_the_best_above_every_loser(tmp_path: Path) -> None:
    rows = [
        _rmb("1", "Helpfulness", "a", "b"),
        _rmb("2", "Helpfulness", "a", "b", "c"),
        _rmb("3", "Helpfulness", "a", "b"),
        _rmb("1", "Helpfulness", "a", kind="Pairwise_set"),
        _rmb("2", "Harmlessness", "a", kind="Pairwise_set"),
        _rmb("4", "Harmlessness", "a", "b"),
    ]
    said: dict[str, dict[str, float | None]] = {
        "best-of-N/1": {"best": 9, "a": 8, "b": 1},
        "best-of-N/2": {"best": 9, "a": 8, "b": 9, "c": 1},  # as good as the best: lost
        "best-of-N/3": {"best": 9, "a": 8, "b": None},  # no score: lost
        "pairwise/1": {"best": 9, "a": 8},
        "pairwise/2": {"best": 8, "a": 8},
        "best-of-N/4": {"best": 2, "a": 1, "b": 0},
    }
    scores = {(group, text): [score] for group, of in said.items() for text, score in of.items()}
    assert _values(tmp_path, "rmb", rows, scores) == pytest.approx(
        {
            "RMB": (1 / 3 + 1 + 1 + 0) / 4,
            "RMB helpfulness best-of-N": 1 / 3,
            "RMB helpfulness pairwise": 1.0,
            "RMB harmlessness best-of-N": 1.0,
            "RMB harmlessness pairwise": 0.0,
        }
    )


def test_judgebench_wants_the_right_response_above_the_other(tmp_path: Path) -> None:
    sources = ["mmlu-pro-law", "mmlu-pro-math", "livebench-math", "livecodebench"]
    rows = [
        {
            "pair_id": str(i),
            "source": source,
            "question": f"q{i}",
            "response_model": "gpt-4o-2024-05-13",
            "response_A": "a",
            "response_B": "b",
            "label": "B>A",
        }
        for i, source in enumerate(sources)
    ]
    verdicts = [(1, 2), (2, 2), (3, 2), (None, 2)]  # right; equal, wrong and unread are not
    scores = {(str(i), text): [v] for i, pair in enumerate(verdicts) for text, v in zip("ab", pair, strict=True)}
    assert _values(tmp_path, "judgebench", rows, scores) == pytest.approx(
        {"JudgeBench": 1 / 4, "JudgeBench knowledge": 1 / 2, "JudgeBench math": 0.0, "JudgeBench coding": 0.0}
    )


def test_judgebench_tells_the_models_apart(tmp_path: Path) -> None:
    models = {"0": "gpt-4o-2024-05-13", "1": "claude-3-5-sonnet-20240620"}
    row = {"source": "livecodebench", "response_A": "a", "response_B": "b", "label": "A>B"}
    rows = [{**row, "pair_id": i, "question": f"q{i}", "response_model": model} for i, model in models.items()]
    scores = {("0", "a"): [2.0], ("0", "b"): [1.0], ("1", "a"): [1.0], ("1", "b"): [2.0]}
    values = _values(tmp_path, "judgebench", rows, scores, responses="all")
    assert values == {
        "JudgeBench": 0.5,
        "JudgeBench coding": 0.5,
        "JudgeBench of gpt-4o-2024-05-13": 1.0,
        "JudgeBench of claude-3-5-sonnet-20240620": 0.0,
    }


def test_a_response_has_the_mean_of_all_that_was_said_of_it(tmp_path: Path) -> None:
    """The chosen response stands in three pairs: each answer weighs alike, and those without a score do not count."""
    pairs = benchmark_pairs(tmp_path, "rewardbench2", [_best_of_4("0")])
    of_chosen = {0: [10.0, None], 1: [60.0, 50.0], 2: [None, None]}  # mean 40

    def samples(pair: Any, side: int) -> list[float | None]:
        right = side == pair.preferred
        return of_chosen[pair.meta["rejected_index"]] if right else [40.0, 40.0]

    scores = official_scores(written_cell(tmp_path, pairs, samples))
    assert scores[0].value == pytest.approx(1 / 4)  # 40, 40, 40, 40


def test_a_prompt_that_was_not_judged_whole_does_not_count(tmp_path: Path) -> None:
    pairs = benchmark_pairs(tmp_path, "rewardbench2", [_best_of_4("0"), _best_of_4("1")])
    scores = official_scores(judged_cell(tmp_path, pairs[:5], _four("0", 9, 1, 1, 1) | _four("1", 1, 9, 9, 9)))
    assert [(score.value, score.n) for score in scores] == [(1.0, 1), (1.0, 1)]


def _swapped(pair: PreferencePair) -> PreferencePair:
    return replace(pair, responses=pair.responses[::-1], preferred=1 - (pair.preferred or 0))


CHANGES: dict[str, Callable[[list[PreferencePair], Scores], tuple[list[PreferencePair], Scores]]] = {
    "order": lambda pairs, scores: (random.Random(1).sample(pairs, len(pairs)), scores),
    "sides": lambda pairs, scores: ([_swapped(pair) for pair in pairs], scores),
    "samples": lambda pairs, scores: (pairs, {key: [*said, *said] for key, said in scores.items()}),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dataset", ["rm_bench", "rewardbench2"])
def test_order_sides_and_repeated_samples_change_nothing(tmp_path: Path, dataset: str, change: str) -> None:
    if dataset == "rm_bench":
        rows = [_styles(i, domain) for i, domain in enumerate(["chat", "code", "math", "safety-refuse"] * 3)]
    else:
        rows = [*(_best_of_4(str(i)) for i in range(8)), *_ties(0, 3, 4), *_ties(1, 2, 2)]
    rng = random.Random(0)
    pairs = benchmark_pairs(tmp_path, dataset, rows)
    texts = dict.fromkeys((str(pair.meta["group"]), text) for pair in pairs for text in pair.responses)
    scores = {key: [float(rng.randint(0, 5)), None, float(rng.randint(0, 5))] for key in texts}
    first = official_scores(judged_cell(tmp_path, pairs, scores))
    again = official_scores(judged_cell(tmp_path, *CHANGES[change](pairs, scores)))
    assert [astuple(s) for s in again] == [pytest.approx(astuple(s), nan_ok=True) for s in first]


def test_a_part_of_a_benchmark_is_called_that(tmp_path: Path) -> None:
    pairs = benchmark_pairs(tmp_path, "rewardbench2", [_best_of_4("0"), _best_of_4("1", "Focus")])
    cell = judged_cell(tmp_path, pairs, _four("0", 9, 1, 1, 1) | _four("1", 1, 9, 9, 9))
    assert official_scores(cell)[0].name == (
        "RewardBench 2 without Factuality, Precise IF, Safety, Ties (2 of 1865 prompts)"
    )


@pytest.mark.parametrize("dataset", ["rewardbench2", "rm_bench"])
def test_without_one_whole_prompt_there_is_no_score(tmp_path: Path, dataset: str) -> None:
    pairs = benchmark_pairs(tmp_path, dataset, [_best_of_4("0") if dataset == "rewardbench2" else _styles(0, "chat")])
    assert official_scores(written_cell(tmp_path, pairs[:2], lambda *_: [1.0])) == []


def test_other_data_has_no_official_score(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"}]
    cell = written_cell(tmp_path, benchmark_pairs(tmp_path, "trl", rows), lambda *_: [1.0])
    assert official_scores(cell) == []
