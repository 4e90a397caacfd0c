"""The statistics of paired trials: interval, test, power, correction for many comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
from scipy import special, stats

__all__ = [
    "Estimate",
    "PairedSummary",
    "benjamini_hochberg",
    "detectable",
    "detectable_at_best",
    "effect_size",
    "enough_data",
    "enough_seeds",
    "fewest_seeds",
    "interquartile_mean",
    "median",
    "probability_of_improvement",
    "standard_deviation",
    "summarise",
    "wins",
]

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
POWER = 0.8
RESAMPLES = 9999

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
        low, high: the bounds of its 95 % interval.
        error: its standard error.
        p_value: that there is no difference; two-sided, uncorrected.
        p_equivalent: that the difference is outside of [-rope, rope]; below 0.05 where the
            interval is inside. Uncorrected.
        effect: the mean in standard deviations of the differences, with its interval; None where
            they do not vary.
    """

    mean: float
    low: float
    high: float
    error: float
    p_value: float
    p_equivalent: float
    effect: Estimate | None


def summarise(
    differences: Sequence[float], test_to_train: float, rope: float = 0.0
) -> PairedSummary:
    """Interval and tests of paired differences of n splits of the same data, by the corrected t.

    Trials share rows, so that n of them say less than n independent ones would: the squared
    standard error of the mean is s² (1/n + test_to_train), and the mean over it is held against
    Student's t of n - 1 degrees of freedom. Source: Nadeau and Bengio (2003), "Inference for the
    generalization error". The two one-sided tests of equivalence are those of Schuirmann (1987),
    at half the level, so that they agree with the 95 % interval.

    Args:
        differences: candidate minus reference, one per seed; two or more.
        test_to_train: test rows to training rows; 0 for independent trials.
        rope: w, half the width of the region of practical equivalence.

    Example:
        >>> from zeta.evaluate.statistics import summarise
        >>> found = summarise([0.1, 0.3, 0.2, 0.2], test_to_train=1 / 3)
        >>> round(found.mean, 2), round(found.low, 2), round(found.high, 2)
        (0.2, 0.0, 0.4)
        >>> summarise([0.0, 0.0, 0.0], test_to_train=1 / 3).p_value
        1.0
    """
    d = np.asarray(differences, dtype=float)
    mean, size = float(d.mean()), abs(float(d.mean()))
    error = 0.0 if _is_constant(d) else float(d.std(ddof=1)) * math.sqrt(1 / len(d) + test_to_train)
    student = stats.t(len(d) - 1)
    half = float(student.ppf((1 + CONFIDENCE) / 2)) * error
    if error:
        p_value = 2 * float(student.sf(size / error))
        p_equivalent = min(1.0, 2 * float(student.sf((rope - size) / error)))
    else:
        p_value, p_equivalent = float(size == 0), float(size > rope)
    low, high = mean - half, mean + half
    return PairedSummary(mean, low, high, error, p_value, p_equivalent, effect_size(differences))


def detectable(seeds: int, test_to_train: float, comparisons: int) -> float:
    """The effect that is found with 80 %, in standard deviations of the paired differences.

    The noncentral t's, at the level 0.05 / comparisons, which Benjamini and Hochberg's correction
    asks of a difference that is the only one of its family.

    Args:
        seeds: final trials.
        test_to_train: as in :func:`summarise`.
        comparisons: size of the family.

    Example:
        >>> from zeta.evaluate.statistics import detectable
        >>> round(detectable(seeds=20, test_to_train=1 / 3, comparisons=1), 2)
        1.83
    """
    critical = stats.t.isf(SIGNIFICANCE / comparisons / 2, seeds - 1)
    shift = special.nctdtrinc(seeds - 1, 1 - POWER, critical)
    return float(shift) * math.sqrt(1 / seeds + test_to_train)


def detectable_at_best(test_to_train: float, comparisons: int) -> float:
    """What :func:`detectable` tends to with the number of seeds: they all share their rows."""
    critical = stats.norm.isf(SIGNIFICANCE / comparisons / 2)
    return float(critical + stats.norm.ppf(POWER)) * math.sqrt(test_to_train)


def enough_seeds(seeds: int, test_to_train: float, comparisons: int) -> bool:
    """Whether no number of seeds would find effects half as large as so many do."""
    best = detectable_at_best(test_to_train, comparisons)
    return detectable(seeds, test_to_train, comparisons) <= 2 * best


def fewest_seeds(test_to_train: float, comparisons: int) -> int:
    """How many seeds are enough.

    Example:
        >>> from zeta.evaluate.statistics import fewest_seeds
        >>> fewest_seeds(test_to_train=1 / 3, comparisons=1)
        5
    """
    return next(n for n in count(2) if enough_seeds(n, test_to_train, comparisons))


def enough_data(differences: Sequence[float], test_to_train: float, rope: float) -> bool:
    """Whether more seeds of the same data could decide what these leave open.

    With any number of seeds the 95 % interval stays z·√test_to_train·s to either side of the mean,
    z being the normal quantile that Student's t tends to, and s the standard deviation of the
    differences. Where that is more than ``rope``, no difference is shown to be within
    [-rope, rope], and none of that size to be other than 0. Larger ones are: so a mean beyond the
    interval's half is left to more seeds. Equal differences leave nothing open, and a ``rope`` of 0
    asks for nothing to be shown.

    Args:
        differences, test_to_train, rope: as in :func:`summarise`.

    Example:
        >>> from zeta.evaluate.statistics import enough_data
        >>> luck = [0.02, -0.03, 0.01, 0.0, -0.01, 0.02]
        >>> enough_data(luck, 1 / 3, rope=0.01), enough_data(luck, 1 / 30, rope=0.01)
        (False, True)
    """
    d = np.asarray(differences, dtype=float)
    sd = 0.0 if _is_constant(d) else float(d.std(ddof=1))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(test_to_train) * sd
    return rope == 0 or half <= max(rope, abs(float(d.mean())))


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
    if _is_constant(d):
        return None
    value = float(d.mean() / d.std(ddof=1))
    error = math.sqrt((1 + value**2 / 2) / len(d))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return Estimate(value, value - half, value + half)


def _is_constant(values: Array) -> bool:
    """Equal differences may come out a rounding error apart."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: of those below 0.05, a share of 5 % is false at most, as is expected.

    Source: Benjamini and Hochberg (1995), "Controlling the false discovery rate".

    Example:
        >>> from zeta.evaluate.statistics import benjamini_hochberg
        >>> benjamini_hochberg([0.01, 0.04, 0.03])
        [0.03, 0.04, 0.04]
    """
    return [float(p) for p in stats.false_discovery_control(p_values)] if p_values else []


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
