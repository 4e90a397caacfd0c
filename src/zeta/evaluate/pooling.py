"""Several data sets as one answer: random effects, each of them a draw of data sets like these."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from zeta.evaluate.statistics import CONFIDENCE, Array, Estimate

__all__ = ["Pooled", "pool", "shrink"]

# Of data sets with no error at all, as a share of the largest effect: so that each has a weight.
_LEAST_ERROR = 1e-9
_FEWEST_TO_SHRINK = 4


@dataclass(frozen=True)
class Pooled:
    """What data sets say together.

    Attributes:
        mean: of the data sets that these are a sample of, with its 95 % interval.
        p_value: that it is 0.
        between: the standard deviation of the true effects between data sets.
        shrunken: data set -> its effect, the nearer to the mean the less it says for itself.
        without: data set -> the mean of the others; empty where two are all there are.
    """

    mean: Estimate
    p_value: float
    between: float
    shrunken: dict[str, float]
    without: dict[str, Estimate]


def pool(datasets: Sequence[str], effects: Sequence[float], errors: Sequence[float]) -> Pooled:
    """The random-effects mean of several tasks, of which those of one data set have one vote.

    Effect k is drawn around the mean μ with the variance τ² of the data sets and v_k of its own
    error. τ² is DerSimonian and Laird's (1986); the interval is that of Hartung and Knapp (2001),
    by Student's t, which holds for few data sets too, and never narrower than the errors alone
    would have it (Röver, Knapp and Friede 2015). Tasks that share data are one: the means of
    their effects and of their errors, which is the error of the mean where all err alike.

    Args:
        datasets: each task's; two different ones or more.
        effects, errors: each task's, with its standard error.

    Example:
        >>> from zeta.evaluate.pooling import pool
        >>> found = pool(["a", "b", "c"], [0.1, 0.2, 0.3], [0.01, 0.01, 0.01])
        >>> round(found.mean.value, 2), round(found.between, 2)
        (0.2, 0.1)
    """
    names = list(dict.fromkeys(datasets))
    ours = [[name == dataset for dataset in datasets] for name in names]
    effect_K, error_K = (
        np.array([np.mean(np.array(values)[of_one]) for of_one in ours])
        for values in (effects, errors)
    )
    least = _LEAST_ERROR * (max(np.abs(effect_K).max(), error_K.max()) or 1.0)
    variance_K = np.maximum(error_K, least) ** 2
    between = _variance_between(effect_K, variance_K)
    mean, p_value = _mean(effect_K, variance_K)
    shrunken_K = mean.value + between / (between + variance_K) * (effect_K - mean.value)
    others = [np.arange(len(names)) != k for k in range(len(names))] if len(names) > 2 else []
    left_out = [_mean(effect_K[kept], variance_K[kept])[0] for kept in others]
    return Pooled(
        mean=mean,
        p_value=p_value,
        between=math.sqrt(between),
        shrunken=dict(zip(names, map(float, shrunken_K), strict=True)),
        without=dict(zip(names, left_out, strict=False)),
    )


def _variance_between(effect_K: Array, variance_K: Array) -> float:
    """DerSimonian and Laird's τ²: what the effects vary beyond their errors."""
    weight_K = 1 / variance_K
    fixed = np.average(effect_K, weights=weight_K)
    excess = weight_K @ (effect_K - fixed) ** 2 - (len(effect_K) - 1)
    return max(0.0, float(excess / (weight_K.sum() - weight_K @ weight_K / weight_K.sum())))


def _mean(effect_K: Array, variance_K: Array) -> tuple[Estimate, float]:
    """The mean with Hartung and Knapp's interval, and the p-value that it is 0."""
    weight_K = 1 / (variance_K + _variance_between(effect_K, variance_K))
    mean, freedom = float(np.average(effect_K, weights=weight_K)), len(effect_K) - 1
    spread = float(weight_K @ (effect_K - mean) ** 2) / freedom  # 1 is what the errors let expect
    error = math.sqrt(max(1.0, spread) / weight_K.sum())
    student = stats.t(freedom)
    half = float(student.ppf((1 + CONFIDENCE) / 2)) * error
    return Estimate(mean, mean - half, mean + half), 2 * float(student.sf(abs(mean) / error))


def shrink(effects_IK: Array) -> list[Estimate]:
    """Each of many entries' means over data sets, drawn towards their median.

    The best of a hundred owes its place to luck in part. Effect (i, k) is taken as the entry's
    mean θ_i, what the data set adds for all, and noise of the variance σ²; the θ as drawn from a
    normal distribution of the variance τ². A mean over K data sets then keeps the share
    τ² / (τ² + σ²/K) of its distance (Efron and Morris, 1975, "Data analysis using Stein's estimator
    and its generalizations"). The variances are those of medians and median absolute deviations,
    since a few entries that hardly learn would else be most of them. The squared standard error is
    V·(1 - B·(I-1)/I) + 2/(I-3)·B²·d², of I entries, with V = σ²/K, B the share that is taken and
    d the distance from the median: centre and share are estimates too, and where τ² comes out as 0
    nothing else is left of it (Morris, 1983, "Parametric empirical Bayes inference").

    Args:
        effects_IK: of entries (rows) on data sets, NaN where an entry was not run; every entry
            has one at least.

    Returns:
        The means with 95 % intervals: of an entry among the others, on such data.

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate.pooling import shrink
        >>> noise = np.random.default_rng(0).normal(size=(50, 4))
        >>> effects = np.linspace(-1, 1, 50)[:, None] + noise
        >>> float(effects[-1].mean().round(2)), round(shrink(effects)[-1].value, 2)
        (0.56, 0.24)
    """
    if len(effects_IK) < _FEWEST_TO_SHRINK or effects_IK.shape[1] < 2:  # no variance to be had
        return [Estimate(v, v, v) for v in map(float, np.nanmean(effects_IK, axis=1))]
    common_K = np.nanmedian(effects_IK, axis=0)
    own_IK = effects_IK - common_K
    own_I = np.nanmean(own_IK, axis=1)
    noise_IK = own_IK - own_I[:, None]
    number_I, mean_I = np.isfinite(own_IK).sum(axis=1), common_K.mean() + own_I
    freedom = (1 - 1 / len(effects_IK)) * (1 - 1 / effects_IK.shape[1])
    variance_I = _robust_variance(noise_IK[np.isfinite(noise_IK)]) / freedom / number_I
    between = max(_robust_variance(mean_I) - float(np.median(variance_I)), 0.0)
    kept_I = between / np.maximum(between + variance_I, np.finfo(float).tiny)
    centre = np.median(mean_I)
    shrunken_I = centre + kept_I * (mean_I - centre)
    number, taken_I = len(effects_IK), 1 - kept_I
    error_I = np.sqrt(
        variance_I * (1 - taken_I * (number - 1) / number)
        + 2 / (number - 3) * (taken_I * (mean_I - centre)) ** 2
    )
    half_I = stats.norm.ppf((1 + CONFIDENCE) / 2) * error_I
    return [
        Estimate(v, v - half, v + half)
        for v, half in zip(map(float, shrunken_I), map(float, half_I), strict=True)
    ]


def _robust_variance(values: Array) -> float:
    return float(stats.median_abs_deviation(values, axis=None, scale="normal")) ** 2


def decisive(pooled: Mapping[str, Estimate]) -> list[str]:
    """The data sets without which the interval of the others holds 0."""
    return [name for name, others in pooled.items() if others.low <= 0 <= others.high]
