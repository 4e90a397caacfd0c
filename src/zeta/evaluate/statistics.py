"""The statistics of paired trials: interval, exact test, correction for many comparisons."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
RESAMPLES = 9999
# Up to 16 pairs, all 2^n sign patterns are visited and the test is exact; beyond, this many.
MAX_SIGN_PATTERNS = 2**16


@dataclass(frozen=True)
class PairedSummary:
    """What paired differences say on their own.

    Attributes:
        mean: the mean difference, in the metric's units.
        low, high: the bounds of its 95 % bootstrap interval.
        p_value: of the two-sided sign-flip test, uncorrected.
        improvement: probability of improvement: the share of pairs with a positive difference,
            ties counting half.
    """

    mean: float
    low: float
    high: float
    p_value: float
    improvement: float


def summarise(differences: Sequence[float]) -> PairedSummary:
    """Interval and test of paired differences.

    Args:
        differences: candidate minus reference, one per seed; two or more.

    Example:
        >>> from zeta.evaluate.statistics import summarise
        >>> summarise([0.0, 0.0, 0.0])
        PairedSummary(mean=0.0, low=0.0, high=0.0, p_value=1.0, improvement=0.5)
    """
    d = np.asarray(differences, dtype=float)
    low, high = bootstrap_interval(differences)
    improvement = float(np.mean((d > 0) + 0.5 * (d == 0)))
    return PairedSummary(float(d.mean()), low, high, sign_flip_p_value(differences), improvement)


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean: BCa, or percentile where BCa is undefined.

    Equal values give an interval of width zero.
    """
    sample = np.asarray(values, dtype=float)
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # BCa warns of degenerate samples and answers NaN: then it is the other's turn.
            warnings.simplefilter("ignore")
            interval = stats.bootstrap(
                (sample,),
                np.mean,
                confidence_level=CONFIDENCE,
                n_resamples=RESAMPLES,
                method=method,
                random_state=0,
            ).confidence_interval
        if np.isfinite(interval).all():
            break
    return float(interval.low), float(interval.high)


def sign_flip_p_value(differences: Sequence[float]) -> float:
    """The two-sided paired permutation test of the mean difference; exact up to 16 pairs."""
    d = np.asarray(differences, dtype=float)
    if not d.any():
        return 1.0
    result = stats.permutation_test(
        (d,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=MAX_SIGN_PATTERNS,
        random_state=0,
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: the family-wise error stays below the level.

    Example:
        >>> from zeta.evaluate.statistics import holm
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def smallest_adjusted_p(pairs: int, comparisons: int) -> float:
    """The least Holm-adjusted p that the sign-flip test can give the clearest of its family.

    Args:
        pairs: seeds per comparison.
        comparisons: size of the family.

    Example:
        >>> from zeta.evaluate.statistics import smallest_adjusted_p
        >>> smallest_adjusted_p(pairs=3, comparisons=1)
        0.25
    """
    patterns = min(2**pairs, MAX_SIGN_PATTERNS)
    return min(1.0, comparisons * 2 / patterns)


def interquartile_mean(values: Sequence[float]) -> float:
    """The mean of the middle half of the values."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def standard_deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1)."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1)) if len(values) > 1 else math.nan


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(np.median(np.asarray(values, dtype=float)))
