"""Statistics over many tasks against rliable's, whose definitions they are."""

import numpy as np
import pytest

from zeta.evaluate import stratified
from zeta.evaluate.statistics import RESAMPLES, Array

HOW = "pip install --no-deps rliable arch"
pytest.importorskip("rliable", reason=HOW)
pytest.importorskip("arch", reason=HOW)

from arch.bootstrap import IIDBootstrap  # noqa: E402
from rliable import library, metrics  # noqa: E402

TASKS, SEEDS, REPETITIONS = 5, 12, 4000


class Bootstrap(library.StratifiedBootstrap):
    """rliable's; only its constructor does not fit the current arch, which names the seed so."""

    def __init__(self, scores: Array, seed: int) -> None:
        IIDBootstrap.__init__(self, scores, seed=seed)
        self._args_shape = scores.shape
        self._num_tasks = scores.shape[1]
        self._parameters = [self._num_tasks, False]
        self._task_bootstrap = False
        self._strata_indices = self._get_strata_indices()


@pytest.fixture
def scores() -> Array:
    """(tasks, seeds), tasks of different spread; rliable wants (seeds, tasks)."""
    rng = np.random.default_rng(3)
    return rng.normal(1, 0.05, (TASKS, SEEDS)) * np.linspace(0.5, 1.5, TASKS)[:, None]


def allowance(resampled: Array, level: float) -> float:
    """Four standard errors of the difference of two quantiles, each from its own resamples."""
    p = level / 100
    error = 100 * 4 * np.sqrt(p * (1 - p) * (1 / RESAMPLES + 1 / REPETITIONS))
    near = np.percentile(resampled, np.clip([level - error, level + error], 0, 100))
    return float(np.ptp(near))


def test_aggregates_and_their_intervals_equal_rliable_s(scores: Array) -> None:
    statistic = stratified.interquartile_mean(scores)
    found = stratified.estimate(statistic, *scores.shape)
    assert found.value == pytest.approx(metrics.aggregate_iqm(scores.T))
    np.random.seed(0)  # rliable draws from the global generator
    low, high = Bootstrap(scores.T, seed=0).conf_int(
        lambda x: np.array([metrics.aggregate_iqm(x)]), reps=REPETITIONS, method="percentile"
    )[:, 0]
    resampled = statistic(stratified.resample_counts(*scores.shape))
    assert found.low == pytest.approx(low, abs=allowance(resampled, 2.5))
    assert found.high == pytest.approx(high, abs=allowance(resampled, 97.5))
    assert allowance(resampled, 2.5) < 0.3 * (found.high - found.low), "and that is a narrow test"


def test_counts_give_what_the_resampled_scores_give(scores: Array) -> None:
    """The weighted sums, exactly: each resample written out and given to rliable."""
    thresholds = np.linspace(0.4, 1.6, 9)
    counts = stratified.resample_counts(*scores.shape)[:20]
    means = stratified.interquartile_mean(scores)(counts)
    profiles = stratified.profile(scores, thresholds)(counts)
    for row, mean, profile in zip(counts.astype(int), means, profiles, strict=True):
        drawn = np.stack([np.repeat(s, n) for s, n in zip(scores, row, strict=True)])
        assert mean == pytest.approx(metrics.aggregate_iqm(drawn.T))
        assert profile == pytest.approx(library.score_distributions(drawn.T, thresholds))


def test_probability_of_improvement_equals_rliable_s(scores: Array) -> None:
    other = np.random.default_rng(4).permuted(scores, axis=1).round(1) + 0.02
    rounded = scores.round(1)  # with ties
    found = stratified.estimate(stratified.improvement(rounded, other), *scores.shape)
    assert found.value == pytest.approx(metrics.probability_of_improvement(rounded.T, other.T))
    assert found.low < found.value < found.high


def test_performance_profiles_equal_rliable_s(scores: Array) -> None:
    thresholds = np.linspace(0.4, 1.6, 31)
    profile = stratified.profile(scores, thresholds)
    theirs = library.score_distributions(scores.T, thresholds)
    assert profile(np.ones(scores.shape)) == pytest.approx(theirs)
    low, high = stratified.percentile_bounds(profile(stratified.resample_counts(*scores.shape)))
    assert (low <= theirs).all()
    assert (theirs <= high).all()


def test_resamples_stay_within_their_task(scores: Array) -> None:
    counts = stratified.resample_counts(TASKS, SEEDS)
    assert counts.shape == (RESAMPLES, TASKS, SEEDS)
    assert (counts.sum(axis=-1) == SEEDS).all()
