"""Statistics of many tasks at once: seeds are resampled within each task, never across.

Scores are arrays (tasks, seeds) on the common scale of :mod:`zeta.evaluate.across`. A resample is
written as how often it drew each seed, counts (resamples, tasks, seeds), for which every statistic
here is a weighted sum.
"""

from collections.abc import Callable

import numpy as np

from zeta.evaluate.statistics import CONFIDENCE, RESAMPLES, Array, Estimate, wins

Statistic = Callable[[Array], Array]  # counts (…, tasks, seeds) -> (…)


def resample_counts(tasks: int, seeds: int) -> Array:
    """How often each of RESAMPLES resamples, the same on every call, drew each seed of each task.

    Returns:
        Counts (resamples, tasks, seeds).
    """
    rng = np.random.default_rng(0)
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=(RESAMPLES, tasks)).astype(float)


def estimate(statistic: Statistic, tasks: int, seeds: int) -> Estimate:
    """A statistic with its stratified percentile bootstrap interval.

    Args:
        statistic: from counts (…, tasks, seeds) to values (…).

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate.stratified import estimate, interquartile_mean
        >>> scores = np.array([[0.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, 5.0]])
        >>> estimate(interquartile_mean(scores), *scores.shape).value
        1.0
    """
    value = float(statistic(np.ones((tasks, seeds))))
    low, high = percentile_bounds(statistic(resample_counts(tasks, seeds)))
    return Estimate(value, float(low), float(high))


def percentile_bounds(resampled: Array) -> tuple[Array, Array]:
    """The bounds of the 95 % percentile interval, over the first axis."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    return low, high


def interquartile_mean(scores: Array) -> Statistic:
    """The mean of the middle half of all scores together, those of every task and seed."""
    order, cut = np.argsort(scores, axis=None), int(0.25 * scores.size)
    rising = scores.reshape(-1)[order]

    def statistic(counts: Array) -> Array:
        upto = counts.reshape(*counts.shape[:-2], -1)[..., order].cumsum(axis=-1)
        inside = np.clip(upto, cut, scores.size - cut)
        weights = np.diff(inside, axis=-1, prepend=cut)
        return np.asarray(weights @ rising / (scores.size - 2 * cut))

    return statistic


def improvement(candidate: Array, reference: Array) -> Statistic:
    """The probability of improvement within a task, averaged over the tasks.

    Both are resampled together, since their seeds are paired.
    """
    won = wins(candidate, reference)  # (tasks, seeds, seeds)
    tasks, seeds = candidate.shape

    def statistic(counts: Array) -> Array:
        pairs = np.einsum("...ti,tij,...tj->...", counts, won, counts, optimize=True)
        return np.asarray(pairs / (tasks * seeds**2))

    return statistic


def profile(scores: Array, thresholds: Array) -> Statistic:
    """The performance profile: for each threshold, the share of runs that score above it."""
    above = (scores.reshape(-1, 1) > thresholds).astype(float)

    def statistic(counts: Array) -> Array:
        return np.asarray(counts.reshape(*counts.shape[:-2], -1) @ above / scores.size)

    return statistic
