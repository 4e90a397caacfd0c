"""From finished trials to scores, comparisons and verdicts."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from zeta.evaluate import statistics
from zeta.evaluate.protocol import Settings, Trial
from zeta.evaluate.results import Comparison, Question, Score, TaskInfo, Tuning, Verdict

Pair = tuple[Score, Score]  # candidate, reference


def score_trials(task: TaskInfo, tuning: Tuning, trials: Sequence[Trial]) -> Score:
    """The scores of one activation's final trials on one task.

    Args:
        trials: in the order of the seeds.
    """
    values = tuple(task.score_of(trial) for trial in trials)
    return Score(
        task=task.source,
        activation=tuning.activation,
        learning_rate=tuning.learning_rate,
        values=values,
        mean=sum(values) / len(values),
        sd=statistics.standard_deviation(values),
        interquartile_mean=statistics.interquartile_mean(values),
        diverged=sum(trial.status == "diverged" for trial in trials),
        parameters=trials[0].parameters,
        step_ms=statistics.median([trial.timing["step_ms"] for trial in trials]),
    )


def choose_reference(candidate: str, tunings: Sequence[Tuning], baselines: Sequence[str]) -> str:
    """The baseline with the best validation score; the candidate itself is not asked.

    Args:
        tunings: of every activation on one task. Test scores play no part in the choice.
    """
    rivals = [t for t in tunings if t.activation in baselines and t.activation != candidate]
    return max(rivals, key=lambda tuning: tuning.score).activation


def compare(
    settings: Settings, tunings: Sequence[Tuning], scores: Sequence[Score]
) -> tuple[Comparison, ...]:
    """Every candidate against its reference, and every learnable one against its frozen twin.

    Each candidate is a question of its own, "does it help?", and so is its ablation: Holm's
    correction is over the tasks of each. Were all candidates one family, ten seeds, whose exact
    p is at least 2/1024, could not show anything on three candidates and twelve tasks.
    """
    by_name = {(score.task, score.activation): score for score in scores}
    comparisons: list[Comparison] = []
    for candidate in settings.candidates:
        references = {
            task: choose_reference(
                candidate, [t for t in tunings if t.task == task], settings.baselines
            )
            for task in settings.tasks
        }
        pairs = [(by_name[task, candidate], by_name[task, r]) for task, r in references.items()]
        comparisons += judge(pairs)
    for candidate, twin in settings.ablations.items():
        pairs = [(by_name[task, candidate], by_name[task, twin]) for task in settings.tasks]
        comparisons += judge(pairs, "ablation")
    return tuple(comparisons)


def judge(pairs: Sequence[Pair], question: Question = "baseline") -> list[Comparison]:
    """Compare each pair of scores, seed by seed, with Holm's correction over all of them.

    Args:
        pairs: candidate and reference, with the same seeds in the same order.
    """
    differences = [paired_differences(pair) for pair in pairs]
    summaries = [statistics.summarise(d) for d in differences]
    adjusted = statistics.holm([summary.p_value for summary in summaries])
    return [
        Comparison(
            task=candidate.task,
            candidate=candidate.activation,
            reference=reference.activation,
            differences=d,
            mean=summary.mean,
            low=summary.low,
            high=summary.high,
            p_value=summary.p_value,
            p_adjusted=p,
            effect=summary.effect,
            improvement=statistics.probability_of_improvement(candidate.values, reference.values),
            diverged=candidate.diverged,
            diverged_reference=reference.diverged,
            verdict=decide(summary.mean, p, enough_pairs(len(d), len(pairs))),
            question=question,
        )
        for (candidate, reference), d, summary, p in zip(
            pairs, differences, summaries, adjusted, strict=True
        )
    ]


def paired_differences(pair: Pair) -> tuple[float, ...]:
    """Candidate minus reference, seed by seed."""
    return tuple(a - b for a, b in zip(pair[0].values, pair[1].values, strict=True))


def by_candidate(comparisons: Sequence[Comparison]) -> Iterator[tuple[str, list[Comparison]]]:
    """The comparisons of each candidate, in the order that :func:`compare` gives them."""
    for candidate, group in groupby(comparisons, key=lambda c: c.candidate):
        yield candidate, list(group)


def decide(mean: float, p_adjusted: float, enough: bool) -> Verdict:
    """The verdict of one comparison.

    Args:
        mean: the mean difference, candidate minus reference; higher is better.
        p_adjusted: Holm-adjusted.
        enough: whether any outcome could have been significant, see :func:`enough_pairs`.
    """
    if not enough:
        return Verdict.TOO_FEW
    if p_adjusted >= statistics.SIGNIFICANCE:
        return Verdict.SAME
    return Verdict.BETTER if mean > 0 else Verdict.WORSE


def enough_pairs(pairs: int, comparisons: int) -> bool:
    """Whether so many pairs in each of so many comparisons could show anything at all."""
    return statistics.smallest_adjusted_p(pairs, comparisons) < statistics.SIGNIFICANCE
