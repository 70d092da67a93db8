from __future__ import annotations

from pathlib import Path

import pytest
from judge_stage import rows, run_stage

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.base import MAX_SAMPLES, make_request, request_seed
from btrm.judges.decode import uniforms
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.scores import parse_score
from btrm.teacher.config import TeacherConfig


@pytest.mark.parametrize("prompt", ["toy_score100", "score5_v1", "hh_score100_v2"])
@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_writes_valid_scores(prompt: str, rule: str) -> None:
    spec = get_prompt(prompt)
    requests = [make_request(pair, side, spec, 4, 0) for pair in toy_pairs("test", 50) for side in (0, 1)]
    texts = [c.text for answer in RuleJudge(RULES[rule], spec).ask(requests) for c in answer.completions]
    scores = [parse_score(text, spec.parser) for text in texts]
    assert {score.outcome for score in scores} == {"scored"}
    assert len({score.value for score in scores}) > 3


def test_the_toy_rule_agrees_with_every_label_and_the_random_rule_with_half() -> None:
    spec, pairs = get_prompt("toy_score100"), list(toy_pairs("test", 400))
    agree: dict[str, int] = {}
    for rule in ("rule_toy", "rule_random"):
        judge = RuleJudge(RULES[rule], spec)
        answers = judge.ask([make_request(pair, side, spec, 1, 0) for pair in pairs for side in (0, 1)])
        value = [parse_score(a.completions[0].text, spec.parser).value or 0.0 for a in answers]
        agree[rule] = sum((value[2 * i] > value[2 * i + 1]) == (p.preferred == 0) for i, p in enumerate(pairs))
    assert agree["rule_toy"] == 400
    assert 150 < agree["rule_random"] < 250


def test_seeds_of_different_requests_and_cells_never_overlap() -> None:
    for n_samples, spacing in ((1, 1), (2, 2), (5, 8), (MAX_SAMPLES, 1024)):
        seeds = request_seeds(5000, n_samples)
        assert len(set(seeds)) == len(seeds) == 30_000
        assert all(0 <= seed < 2**62 and seed % spacing == 0 for seed in seeds)


def test_seeds_stay_apart_in_the_low_32_bits() -> None:
    seeds = request_seeds(2000, 2)
    assert len({(seed + sample) % 2**32 for seed in seeds for sample in (0, 1)}) == 24_000


def test_the_streams_of_all_requests_differ() -> None:
    seeds = [seed + sample for seed in request_seeds(2000, 2) for sample in (0, 1)]
    first = uniforms(seeds, 2)
    assert len(set(first[:, 0].tolist())) == len(set(first[:, 1].tolist())) == 24_000
    assert uniforms([5, 5 + 2**32], 1).unique().numel() == 2
    assert uniforms(seeds[7:9], 2).equal(first[7:9])
    share = first.histc(10, 0, 1) / first.numel()
    assert share.min() > 0.09 and share.max() < 0.11


def request_seeds(n_pairs: int, n_samples: int) -> list[int]:
    """The seeds of both sides of the pairs in three cells."""
    sides = [(f"{i:016x}-0", side) for i in range(n_pairs) for side in (0, 1)]
    return [request_seed(cell, label, side, n_samples) for cell in range(3) for label, side in sides]


def test_an_extension_keeps_what_was_asked(tmp_path: Path, pairs_file: Path) -> None:
    def teach(root: str, n_pairs: int, **values: int) -> int:
        config = TeacherConfig.build({"pairs": str(pairs_file), "n_pairs": n_pairs, "skip_pairs": 2, **values})
        return int(run_stage("teacher", config, tmp_path / root).results["asked_now"])

    assert (teach("run", 4), teach("run", 4), teach("run", 10, part_pairs=2)) == (4, 4, 6)
    teach("fresh", 10)
    assert rows(tmp_path / "run", "teacher") == rows(tmp_path / "fresh", "teacher")
    assert len(rows(tmp_path / "run", "teacher")) == 20


def test_a_teacher_without_pairs_or_unknown_is_refused(tmp_path: Path, pairs_file: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean rule_random"):
        TeacherConfig.build({"backend": "rule_randon"})
    with pytest.raises(ConfigError, match="no pairs left"):
        run_stage("teacher", TeacherConfig.build({"pairs": str(pairs_file), "skip_pairs": 99}), tmp_path)
