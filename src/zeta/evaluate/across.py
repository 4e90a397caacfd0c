"""What the tasks say together: a common scale, then aggregates, profiles and ranks.

Accuracies and R² cannot be averaged as they are. On the common scale of a task 0 is the score of
its constant predictor, and 1 the mean score of its anchor: the baseline of the best validation
score, which test rows have no part in choosing. So 1.02 says "2 % further from knowing nothing
than the usual activations get". The scale is linear, and no test in :mod:`zeta.evaluate.compare`
depends on it. A task whose anchor is not better than the constant by five standard deviations of
its seeds has no such scale: its unit would be hardly larger than the noise, and a usual difference
would count several units and decide alone. It is left out of the aggregates, though not of the
ranks, which need no scale. A task on which a linear network does as well is left out of both: what
it says of activations is luck, which ranks would count like any other task's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from zeta.evaluate import statistics, stratified
from zeta.evaluate.compare import (
    Pair,
    best_baseline,
    by_candidate,
    decide,
)
from zeta.evaluate.pooling import pool
from zeta.evaluate.protocol import Settings
from zeta.evaluate.ranking import MIN_TASKS, Ranking, rank
from zeta.evaluate.results import (
    AcrossTasks,
    Aggregate,
    Comparison,
    Overall,
    Question,
    Score,
    TaskInfo,
    Tuning,
)
from zeta.evaluate.statistics import Array

#: Why a task has no part in what the tasks say together.
LINEAR_DOES_AS_WELL = "a linear network does as well"
_NUM_THRESHOLDS = 81
_CLEARLY = 5.0  # standard deviations


def look_across(
    settings: Settings,
    tasks: Sequence[TaskInfo],
    tunings: Sequence[Tuning],
    scores: Sequence[Score],
    comparisons: Sequence[Comparison],
) -> AcrossTasks | None:
    """Aggregates, profiles, comparisons and ranks over all tasks; None with a single task.

    Where fewer than two tasks have a common scale, there are no aggregates. Variants of tasks have
    no part in any of it.

    Args:
        comparisons: of :func:`zeta.evaluate.compare.compare`; they say who is compared with whom.
    """
    tasks = [task for task in tasks if task.source in settings.own_tasks]
    if len(tasks) < 2:
        return None
    by_name = {(score.task, score.activation): score for score in scores}
    telling = [task for task in tasks if task.tells_apart]
    scales = task_scales(tasks, tunings, by_name, settings.baselines)
    others = (*settings.ablations.values(), settings.control)
    activations = [name for name in settings.activations if name not in others]
    normalised = {}
    seeds = min((task.seeds for task in telling), default=0)  # those that every task has
    if len(scales) > 1:
        for name in activations:
            normalised[name] = np.stack(
                [
                    factor * (np.array(by_name[task, name].values[:seeds]) - zero)
                    for task, (zero, factor) in scales.items()
                ]
            )
    thresholds = _thresholds(list(normalised.values()))
    return AcrossTasks(
        tasks=tuple(scales),
        left_out={
            task.source: "no baseline is clearly better than a constant prediction"
            if task.tells_apart
            else LINEAR_DOES_AS_WELL
            for task in tasks
            if task.source not in scales
        },
        thresholds=tuple(map(float, thresholds)),
        aggregates=tuple(_aggregate(n, values, thresholds) for n, values in normalised.items()),
        overall=_overall(
            scales, by_name, comparisons, {task.source: task.dataset for task in tasks}
        ),
        ranking=_ranking(telling, activations, by_name),
    )


def task_scales(
    tasks: Sequence[TaskInfo],
    tunings: Sequence[Tuning],
    scores: Mapping[tuple[str, str], Score],
    baselines: Sequence[str],
) -> dict[str, tuple[float, float]]:
    """Task -> (zero, factor): a score s is factor · (s - zero) on the common scale.

    Tasks without one, or that do not tell activations apart, are missing. The factor is
    1 / (the anchor's mean - the constant's score).
    """
    scales = {}
    for task in (task for task in tasks if task.tells_apart):
        anchor = best_baseline("", [t for t in tunings if t.task == task.source], baselines)
        found = scores[task.source, anchor]
        span = found.mean - found.constant
        if span > _CLEARLY * found.sd:
            scales[task.source] = (found.constant, 1 / span)
    return scales


def judge_overall(
    comparisons: Sequence[Comparison],
    pairs: Sequence[Pair],
    factors: Sequence[float],
    datasets: Sequence[str],
) -> Overall:
    """One candidate against its reference over several tasks; p not yet corrected.

    Data sets are the sample: what is said is of data like these and not of more seeds of the
    same.

    Args:
        comparisons, pairs: the candidate with its reference, on each task.
        factors: of each task's scale; all 1 where the tasks share a metric.
        datasets: each task's; two different ones or more.
    """
    effects, errors = (
        [factor * getattr(c, name) for c, factor in zip(comparisons, factors, strict=True)]
        for name in ("mean", "error")
    )
    pooled = pool(datasets, effects, errors)
    seeds = min(len(candidate.values) for candidate, _ in pairs)
    candidate, reference = (
        np.stack([np.array(pair[side].values[:seeds]) for pair in pairs]) for side in (0, 1)
    )
    improvement = stratified.improvement(candidate, reference)
    references = {pair[1].activation for pair in pairs}
    return Overall(
        candidate=pairs[0][0].activation,
        reference=references.pop() if len(references) == 1 else "",
        tasks=tuple(pair[0].task for pair in pairs),
        difference=pooled.mean,
        pooled=pooled,
        p_value=pooled.p_value,
        p_adjusted=pooled.p_value,
        improvement=stratified.estimate(improvement, *candidate.shape),
        verdict=decide(pooled.mean.value, pooled.p_value, 1.0),
        question=comparisons[0].question,
    )


def corrected(overall: Sequence[Overall]) -> tuple[Overall, ...]:
    """Corrected for all of them."""
    adjusted = statistics.benjamini_hochberg([o.p_value for o in overall])
    return tuple(
        replace(
            o,
            p_adjusted=p,
            verdict=decide(o.difference.value, p, 1.0),
        )
        for o, p in zip(overall, adjusted, strict=True)
    )


def _overall(
    scales: Mapping[str, tuple[float, float]],
    scores: Mapping[tuple[str, str], Score],
    comparisons: Sequence[Comparison],
    datasets: Mapping[str, str],
) -> tuple[Overall, ...]:
    """Candidates against their references, corrected as one family; ablations as another."""
    found: list[Overall] = []
    for question in get_args(Question):
        family = []
        asked = [c for c in comparisons if c.question == question and c.task in scales]
        for _, group in by_candidate(asked):
            pairs = [(scores[c.task, c.candidate], scores[c.task, c.reference]) for c in group]
            factors = [scales[c.task][1] for c in group]
            names = [datasets[c.task] for c in group]
            if len(set(names)) > 1:
                family.append(judge_overall(group, pairs, factors, names))
        found += corrected(family)
    return tuple(found)


def _thresholds(scores: Sequence[Array]) -> Array:
    """Where the profiles are drawn: over the middle 96 % of all scores, in even steps."""
    if not scores:
        return np.array([])
    low, high = np.percentile(np.concatenate(scores), [2, 98])
    return np.linspace(low, high, _NUM_THRESHOLDS)


def _aggregate(activation: str, scores: Array, thresholds: Array) -> Aggregate:
    profile = stratified.profile(scores, thresholds)
    low, high = stratified.percentile_bounds(profile(stratified.resample_counts(*scores.shape)))
    return Aggregate(
        activation=activation,
        interquartile_mean=stratified.estimate(
            stratified.interquartile_mean(scores), *scores.shape
        ),
        profile=tuple(map(float, profile(np.ones(scores.shape)))),
        profile_low=tuple(map(float, low)),
        profile_high=tuple(map(float, high)),
    )


def _ranking(
    tasks: Sequence[TaskInfo],
    activations: Sequence[str],
    scores: Mapping[tuple[str, str], Score],
) -> Ranking | None:
    if len(tasks) < MIN_TASKS:
        return None
    means = [[scores[task.source, name].mean for name in activations] for task in tasks]
    return rank(np.array(means), activations)
