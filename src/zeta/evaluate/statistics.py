"""The statistics of paired trials: interval, exact test, correction for many comparisons."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = [
    "Estimate",
    "PairedSummary",
    "bootstrap_interval",
    "effect_size",
    "holm",
    "interquartile_mean",
    "median",
    "probability_of_improvement",
    "sign_flip_p_value",
    "smallest_adjusted_p",
    "standard_deviation",
    "summarise",
    "wins",
]

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
RESAMPLES = 9999
# Up to so many pairs, all 2^n sign patterns are visited and the test is exact; beyond, RESAMPLES.
MAX_EXACT_PAIRS = 16

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedSummary:
    """What paired differences say on their own.

    Attributes:
        mean: the mean difference, in the metric's units.
        low, high: the bounds of its 95 % bootstrap interval.
        p_value: of the two-sided sign-flip test, uncorrected.
        effect: the mean in standard deviations of the differences, with its interval; None where
            they do not vary.
    """

    mean: float
    low: float
    high: float
    p_value: float
    effect: Estimate | None


def summarise(differences: Sequence[float]) -> PairedSummary:
    """Interval and test of paired differences.

    Args:
        differences: candidate minus reference, one per seed; two or more.

    Example:
        >>> from zeta.evaluate.statistics import summarise
        >>> summarise([0.0, 0.0, 0.0])
        PairedSummary(mean=0.0, low=0.0, high=0.0, p_value=1.0, effect=None)
    """
    low, high = bootstrap_interval(differences)
    mean, p_value = float(np.mean(differences)), sign_flip_p_value(differences)
    return PairedSummary(mean, low, high, p_value, effect_size(differences))


def effect_size(differences: Sequence[float]) -> Estimate | None:
    """Cohen's d of paired differences: their mean in units of their standard deviation.

    The interval is the usual normal approximation, with the standard error √((1 + d²/2) / n) of
    Hedges and Olkin (1985). It is wide with ten seeds, and rightly so.

    Returns:
        The estimate; None where the differences do not vary.

    Example:
        >>> from zeta.evaluate.statistics import effect_size
        >>> d = effect_size([1.0, 2.0, 3.0, 2.0, 1.0])
        >>> round(d.value, 2), round(d.low, 2), round(d.high, 2)
        (2.15, 0.56, 3.75)
    """
    d = np.asarray(differences, dtype=float)
    # Equal differences may come out a rounding error apart.
    if np.ptp(d) <= 1e-12 * np.abs(d).max():
        return None
    value = float(d.mean() / d.std(ddof=1))
    error = math.sqrt((1 + value**2 / 2) / len(d))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Estimate(value, value - half, value + half)


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
    exact = len(d) <= MAX_EXACT_PAIRS
    result = stats.permutation_test(
        (d,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2**MAX_EXACT_PAIRS if exact else RESAMPLES,
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
    patterns = 2**pairs if pairs <= MAX_EXACT_PAIRS else RESAMPLES + 1
    return min(1.0, comparisons * 2 / patterns)


def probability_of_improvement(candidate: Sequence[float], reference: Sequence[float]) -> float:
    """How likely a run of one scores higher than a run of the other, ties counting half.

    Every run is set against every other, so this is the Mann-Whitney statistic as a share.

    Example:
        >>> from zeta.evaluate.statistics import probability_of_improvement
        >>> probability_of_improvement([1.0, 2.0], [0.0, 1.0])
        0.875
    """
    return float(wins(np.asarray(candidate), np.asarray(reference)).mean())


def wins(candidate: Array, reference: Array) -> Array:
    """1 where a run of the candidate (rows) beats one of the reference (columns), 0.5 for a tie."""
    return (np.sign(candidate[..., :, None] - reference[..., None, :]) + 1) / 2


def standard_deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1)."""
    return float(np.std(np.asarray(values, dtype=float), ddof=1)) if len(values) > 1 else math.nan


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return float(np.median(np.asarray(values, dtype=float)))


def interquartile_mean(values: Sequence[float]) -> float:
    """The mean of the middle half of the values."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))
