"""The statistics against hand counts, and on degenerate data without a warning."""

import itertools
from dataclasses import astuple

import numpy as np
import pytest

from zeta.evaluate import statistics
from zeta.evaluate.statistics import (
    bootstrap_interval,
    effect_size,
    holm,
    interquartile_mean,
    probability_of_improvement,
    sign_flip_p_value,
    smallest_adjusted_p,
    summarise,
)


@pytest.mark.parametrize("size", [2, 5, 10])
def test_sign_flips_are_counted_exactly(size: int) -> None:
    d = np.random.default_rng(size).normal(0.5, 1, size)
    flipped = [abs(np.mean(d * s)) for s in itertools.product((-1, 1), repeat=size)]
    expected = np.mean(np.array(flipped) >= abs(d.mean()) - 1e-12)
    assert sign_flip_p_value(d.tolist()) == pytest.approx(expected)


def test_smallest_attainable_p_is_attained() -> None:
    for pairs in (2, 3, 10):
        d = [1.0 + 0.01 * i for i in range(pairs)]
        assert sign_flip_p_value(d) == pytest.approx(smallest_adjusted_p(pairs, 1))
    assert smallest_adjusted_p(10, 9) < statistics.SIGNIFICANCE < smallest_adjusted_p(7, 9)


def test_many_pairs_are_sampled_reproducibly() -> None:
    d = np.random.default_rng(0).normal(0.1, 1, 30).tolist()
    assert sign_flip_p_value(d) == sign_flip_p_value(d)
    assert 0.001 < sign_flip_p_value(d) <= 1


@pytest.mark.parametrize("d", [[0.0] * 10, [0.1] * 10, [0.0] * 9 + [1.0], [-1.0, 1.0], [0.0, 1.0]])
def test_degenerate_differences(d: list[float]) -> None:
    summary = summarise(d)
    assert summary.low <= summary.mean + 1e-12
    assert summary.mean <= summary.high + 1e-12
    assert 0 < summary.p_value <= 1


def test_equal_values_have_an_interval_of_width_zero() -> None:
    assert bootstrap_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


def test_interval_covers_the_truth_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(1, 1, 20)) for _ in range(60)]
    covered = sum(low <= 1 <= high for low, high in intervals)
    assert 50 <= covered <= 60
    assert sum(low <= 0 <= high for low, high in intervals) < 15, "and it is not just wide"


def test_holm_against_a_hand_count() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_improvement_counts_every_pair_and_ties_half() -> None:
    assert probability_of_improvement([1.0, 0.0], [0.0, 2.0]) == pytest.approx((1 + 0 + 0.5) / 4)
    assert probability_of_improvement([3.0, 3.0], [3.0, 3.0]) == 0.5


@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
def test_the_effect_s_interval_covers_it_about_as_often_as_stated(effect: float) -> None:
    draws = np.random.default_rng(0).normal(effect, 1, (1500, 10))
    found = [effect_size(d) for d in draws]
    covered = np.mean([f.low <= effect <= f.high for f in found if f])
    assert 0.92 < covered < 0.98


def test_the_effect_does_not_depend_on_the_unit() -> None:
    d = [0.3, -0.1, 0.4, 0.2]
    assert astuple(effect_size(d)) == pytest.approx(astuple(effect_size([1000 * x for x in d])))
    assert effect_size([0.1, 0.1, 0.1]) is None


def test_interquartile_mean_ignores_the_outer_quarters() -> None:
    assert interquartile_mean([-100.0, 1.0, 2.0, 3.0, 4.0, 100.0, 5.0, 6.0]) == pytest.approx(3.5)
