"""From finished trials to scores, comparisons and verdicts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean

from zeta.evaluate import statistics
from zeta.evaluate.protocol import Settings, Trial
from zeta.evaluate.results import Comparison, Question, Score, TaskInfo, Tuning, Verdict
from zeta.evaluate.statistics import Estimate

Pair = tuple[Score, Score]  # candidate, reference


def score_trials(task: TaskInfo, tuning: Tuning, trials: Sequence[Trial]) -> Score:
    """The scores of one activation's final trials on one task.

    Args:
        trials: in the order of the seeds.
    """
    values = tuple(trial.score for trial in trials)
    return Score(
        task=task.source,
        activation=tuning.activation,
        learning_rate=tuning.learning_rate,
        other_rates=tuning.others,
        constant=fmean(trial.constant for trial in trials),
        values=values,
        mean=sum(values) / len(values),
        sd=statistics.standard_deviation(values),
        interquartile_mean=statistics.interquartile_mean(values),
        diverged=sum(trial.status == "diverged" for trial in trials),
        parameters=trials[0].parameters,
        step_ms=statistics.median([trial.timing["step_ms"] for trial in trials]),
    )


def best_baseline(candidate: str, tunings: Sequence[Tuning], baselines: Sequence[str]) -> str:
    """The baseline with the best validation score; the candidate itself is not asked.

    Args:
        tunings: of every activation on one task. Test scores play no part in the choice.
    """
    rivals = [t for t in tunings if t.activation in baselines and t.activation != candidate]
    return max(rivals, key=lambda tuning: tuning.score).activation


def compare(
    settings: Settings,
    tasks: Sequence[TaskInfo],
    tunings: Sequence[Tuning],
    scores: Sequence[Score],
) -> tuple[Comparison, ...]:
    """Every candidate against the reference, and every learnable one against its frozen twin.

    All comparisons with the reference are one family, of every candidate on every task; those with
    a twin are another, and so are those with the reference on variants of the tasks.
    """
    by_name = {(score.task, score.activation): score for score in scores}
    infos = {task.source: task for task in tasks}

    def with_reference(tasks: Iterable[str]) -> list[Pair]:
        return [
            (by_name[task, candidate], by_name[task, settings.reference_of(candidate)])
            for candidate in settings.candidates
            for task in tasks
        ]

    twins = [
        (by_name[task, candidate], by_name[task, twin])
        for candidate, twin in settings.ablations.items()
        for task in settings.own_tasks
    ]
    families = (
        *judge(settings, infos, with_reference(settings.own_tasks)),
        *judge(settings, infos, with_reference(settings.variants), "condition"),
    )
    asked = []
    for c in families:
        of_task = [t for t in tunings if t.task == c.task]
        best = best_baseline(c.candidate, of_task, settings.baselines)
        pair = by_name[c.task, c.candidate], by_name[c.task, best]
        found = statistics.summarise(paired_differences(pair), infos[c.task].test_to_train)
        difference = Estimate(found.mean, found.low, found.high)
        asked.append(replace(c, best=best, best_difference=difference))
    return (*asked, *judge(settings, infos, twins, "ablation"))


def control(
    settings: Settings, tasks: Sequence[TaskInfo], scores: Sequence[Score]
) -> tuple[Comparison, ...]:
    """What the run makes of a difference that is known: 0, and one standard deviation.

    The reference is compared with itself, tuned once more with other seeds ("retuned"); and with
    that and the standard deviation of its own scores added to them ("planted"). Each question is a
    family over the tasks.
    """
    by_name = {(score.task, score.activation): score for score in scores}
    infos = {task.source: task for task in tasks}
    retuned = [
        (by_name[task, settings.control], by_name[task, settings.reference])
        for task in settings.controlled
    ]
    planted = [(_raised(again, reference.sd), reference) for again, reference in retuned]
    return (
        *judge(settings, infos, retuned, "retuned"),
        *judge(settings, infos, planted, "planted"),
    )


def _raised(score: Score, effect: float) -> Score:
    values = tuple(value + effect for value in score.values)
    return replace(score, values=values, mean=score.mean + effect)


def judge(
    settings: Settings,
    tasks: Mapping[str, TaskInfo],
    pairs: Sequence[Pair],
    question: Question = "baseline",
) -> list[Comparison]:
    """Compare each pair of scores, seed by seed, corrected for all of them.

    Args:
        tasks: by name.
        pairs: candidate and reference, with the same seeds in the same order.
    """
    infos = [tasks[candidate.task] for candidate, _ in pairs]
    differences = [paired_differences(pair) for pair in pairs]
    ropes = [settings.rope_of(info.metric) for info in infos]
    summaries = [
        statistics.summarise(d, info.test_to_train, rope)
        for d, info, rope in zip(differences, infos, ropes, strict=True)
    ]
    adjusted = statistics.benjamini_hochberg([s.p_value for s in summaries])
    equivalent = statistics.benjamini_hochberg([s.p_equivalent for s in summaries])
    enough = [
        (
            statistics.enough_seeds(len(d), info.test_to_train, len(pairs)),
            statistics.enough_data(d, info.test_to_train, rope),
        )
        for d, info, rope in zip(differences, infos, ropes, strict=True)
    ]
    return [
        Comparison(
            task=candidate.task,
            candidate=candidate.activation,
            reference=reference.activation,
            differences=d,
            mean=summary.mean,
            low=summary.low,
            high=summary.high,
            error=summary.error,
            rope=rope,
            p_value=summary.p_value,
            p_adjusted=p,
            p_equivalent=q,
            effect=summary.effect,
            improvement=statistics.probability_of_improvement(candidate.values, reference.values),
            diverged=candidate.diverged,
            diverged_reference=reference.diverged,
            verdict=decide(summary.mean, p, q, *able),
            question=question,
        )
        for (candidate, reference), d, summary, rope, p, q, able in zip(
            pairs, differences, summaries, ropes, adjusted, equivalent, enough, strict=True
        )
    ]


def paired_differences(pair: Pair) -> tuple[float, ...]:
    """Candidate minus reference, seed by seed."""
    return tuple(a - b for a, b in zip(pair[0].values, pair[1].values, strict=True))


def by_candidate(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """The comparisons of each candidate, in the order that :func:`compare` gives them."""
    for candidate, group in groupby(comparisons, key=lambda c: c.candidate):
        yield candidate, list(group)


def decide(
    mean: float,
    p_adjusted: float,
    p_equivalent: float,
    enough_seeds: bool = True,
    enough_data: bool = True,
) -> Verdict:
    """The verdict of one comparison.

    Args:
        mean: the mean difference, candidate minus reference; higher is better.
        p_adjusted: that there is no difference, corrected.
        p_equivalent: that it is of practical importance, corrected.
        enough_seeds, enough_data: see :func:`zeta.evaluate.statistics.enough_seeds` and
            :func:`zeta.evaluate.statistics.enough_data`.
    """
    if not enough_seeds:
        return Verdict.TOO_FEW
    if p_equivalent < statistics.SIGNIFICANCE:
        return Verdict.EQUIVALENT
    if p_adjusted >= statistics.SIGNIFICANCE:
        return Verdict.UNDECIDED if enough_data else Verdict.TOO_SMALL
    return Verdict.BETTER if mean > 0 else Verdict.WORSE
