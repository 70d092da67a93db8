"""Shapes and weights by hand: boundaries, clips, far ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btrm.rewards.config import RewardConfig
from btrm.rewards.shapes import SHAPES, log_sigmoid
from btrm.rewards.weights import WEIGHTS

LN2 = math.log(2)


def test_log_sigmoid_at_the_far_ends():
    x = np.array([-1e4, -40.0, 0.0, 40.0, 1e4, np.nan])
    expected = [-1e4, -40.0 - math.exp(-40), -LN2, -math.exp(-40), 0.0, np.nan]
    np.testing.assert_allclose(log_sigmoid(x), expected, rtol=1e-15)
    assert x[0] == -1e4, "the argument is left alone"


def test_log_sigmoid_across_blocks(monkeypatch: pytest.MonkeyPatch):
    x = np.linspace(-5, 5, 11)
    whole = log_sigmoid(x)
    monkeypatch.setattr("btrm.rewards.shapes._BLOCK", 3)
    np.testing.assert_array_equal(log_sigmoid(x), whole)
    np.testing.assert_allclose(np.exp(whole) + np.exp(log_sigmoid(-x)), 1.0)


def test_clips_scale_and_offset():
    config = RewardConfig(delta_clip=1, delta_neg_clip=2, scale=3, offset=0.5)
    got = SHAPES["log_sigmoid"](np.array([-9.0, 9.0, 0.0]), config)
    expected = [3 * -math.log1p(math.exp(2)) + 0.5, 3 * -math.log1p(math.exp(-1)) + 0.5, 0.5 - 3 * LN2]
    np.testing.assert_allclose(got, expected)
    off = SHAPES["log_sigmoid"](np.array([-9.0]), RewardConfig())
    np.testing.assert_allclose(off, [-9 - math.log1p(math.exp(-9))])


def test_graded_boundaries():
    config = RewardConfig(grade_thresh=0.3, wrong=-1, low=1, high=2)
    # 3 / 10 is on the threshold, as it is written, and still low; a tie is wrong.
    got = SHAPES["graded"](np.array([-1.0, 0.0, 0.1, 3 / 10, 0.31, np.nan]), config)
    np.testing.assert_array_equal(got, [-1, -1, 1, 1, 2, np.nan])


def test_a_tie_is_not_a_win():
    got = SHAPES["sign"](np.array([-1.0, 0.0, 0.1, np.nan]), RewardConfig(pos=5, neg=-5))
    np.testing.assert_array_equal(got, [-5, -5, 5, np.nan])


def test_soft_margin_is_one_half_at_gamma():
    got = SHAPES["soft_margin"](np.array([2.0, 5.0]), RewardConfig(margin_gamma=2, margin_temp=3))
    np.testing.assert_allclose(got, [-LN2, -math.log1p(math.exp(-1))])


def test_step_boundaries():
    config = RewardConfig(hard_tau=0.5, hard_lambda=0.7, hard_eps=0.2)
    got = WEIGHTS["step"](np.array([-0.1, 0.0, 0.4, 0.5, 9.0, np.nan]), config)
    np.testing.assert_array_equal(got, [1, 0.7, 0.7, 0.2, 0.2, 1])


def test_sigmoid_weight():
    got = WEIGHTS["sigmoid"](np.array([-1e5, 0.0, 2.0, 1e5, np.nan]), RewardConfig(hard_tau=2))
    np.testing.assert_allclose(got, [1, 0.5, 1 / (1 + math.e), 0, 1], atol=1e-300)
