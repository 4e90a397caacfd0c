"""The statistics against other packages' and hand counts, and on degenerate data."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from zeta.evaluate import statistics
from zeta.evaluate.statistics import (
    benjamini_hochberg,
    detectable,
    detectable_at_best,
    effect_size,
    enough_data,
    enough_seeds,
    fewest_seeds,
    interquartile_mean,
    probability_of_improvement,
    summarise,
)

DIFFERENCES = np.random.default_rng(5).normal(0.4, 1, 12)


def test_the_corrected_t_equals_baycomp_s() -> None:
    """Theirs are two-sided posteriors of the same t; of k folds, test to training is 1 to k - 1."""
    baycomp = pytest.importorskip("baycomp", reason="pip install baycomp")
    for runs, rope in ((1, 0.0), (3, 0.0), (3, 0.5)):
        folds = len(DIFFERENCES) / runs
        probabilities = baycomp.CorrelatedTTest(
            np.zeros(len(DIFFERENCES)), DIFFERENCES, rope=rope, runs=runs
        ).probs()
        found = summarise(DIFFERENCES.tolist(), 1 / (folds - 1), rope)
        if rope:
            assert found.p_equivalent == pytest.approx(2 * max(probabilities[0], probabilities[2]))
        else:
            assert found.p_value == pytest.approx(2 * min(probabilities))


def test_without_a_correction_it_is_student_s() -> None:
    found, theirs = summarise(DIFFERENCES.tolist(), 0.0), stats.ttest_1samp(DIFFERENCES, 0)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(theirs.confidence_interval(0.95))


def test_the_equivalence_test_equals_statsmodels_s() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    for rope in (0.2, 1.0, 1.5):
        p, *_ = weightstats.DescrStatsW(DIFFERENCES).ttost_mean(-rope, rope)
        found = summarise(DIFFERENCES.tolist(), 0.0, rope).p_equivalent
        assert found == pytest.approx(min(1.0, 2 * p))


def test_the_interval_lies_inside_exactly_where_it_is_equivalent() -> None:
    found = summarise(DIFFERENCES.tolist(), 1 / 3)
    edge = max(-found.low, found.high)
    inside, outside = (
        summarise(DIFFERENCES.tolist(), 1 / 3, rope).p_equivalent
        for rope in (edge + 1e-6, edge - 1e-6)
    )
    assert inside < statistics.SIGNIFICANCE < outside


def test_power_equals_statsmodels_s() -> None:
    power = pytest.importorskip("statsmodels.stats.power").TTestPower()
    expected = power.solve_power(nobs=20, alpha=0.05 / 9, power=0.8)
    assert detectable(20, 0.0, comparisons=9) == pytest.approx(expected, rel=1e-4)


def test_more_seeds_find_less_and_less_more() -> None:
    found = [detectable(seeds, 1 / 3, 15) for seeds in (5, 10, 20, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(detectable_at_best(1 / 3, 15), rel=0.01)
    needed = fewest_seeds(1 / 3, 15)
    assert enough_seeds(needed, 1 / 3, 15)
    assert not enough_seeds(needed - 1, 1 / 3, 15)


@pytest.mark.parametrize("rope", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("mean", [0.0, 0.8])
def test_data_are_enough_where_very_many_seeds_would_decide(rope: float, mean: float) -> None:
    d = DIFFERENCES - DIFFERENCES.mean()
    very_many = np.tile(d / d.std(ddof=0) * d.std(ddof=1), 10_000) + mean
    found = summarise(very_many.tolist(), 1 / 3)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.08, rel=0.03)
    assert enough_data((d + mean).tolist(), 1 / 3, rope) == (half <= max(rope, mean))


def test_few_or_equal_differences_are_never_too_small_data_by_rounding() -> None:
    for d in ([0.0] * 5, [0.1] * 3, [0.3, 0.1 + 0.2]):
        assert enough_data(d, 1 / 3, rope=1e-9)
    assert not enough_data([-1.0, 1.0], 1 / 3, rope=0.5)
    assert enough_data([-1.0, 1.0], 1 / 3, rope=0.0)


@pytest.mark.parametrize("d", [[0.0] * 10, [0.1] * 10, [0.0] * 9 + [1.0], [-1.0, 1.0], [0.0, 1.0]])
def test_degenerate_differences(d: list[float]) -> None:
    found = summarise(d, 1 / 3, rope=0.5)
    assert found.low <= found.mean <= found.high
    assert 0 <= found.p_value <= 1
    assert 0 <= found.p_equivalent <= 1


def test_equal_differences_leave_nothing_to_chance() -> None:
    found = summarise([0.25, 0.25, 0.25], 1 / 3, rope=0.3)
    assert (found.low, found.high, found.p_value, found.p_equivalent) == (0.25, 0.25, 0, 0)
    assert summarise([0.25, 0.25], 1 / 3, rope=0.2).p_equivalent == 1


def test_benjamini_and_hochberg_equal_statsmodels_s() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).uniform(0, 0.2, 15).tolist()
    expected = multitest.multipletests(p_values, method="fdr_bh")[1]
    assert benjamini_hochberg(p_values) == pytest.approx(expected)
    assert benjamini_hochberg([]) == []


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
