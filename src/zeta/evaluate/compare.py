"""From finished trials to scores, comparisons and verdicts."""

from collections.abc import Sequence

from zeta.evaluate import statistics
from zeta.evaluate.protocol import BASELINES, Settings, Trial
from zeta.evaluate.results import Comparison, Score, TaskInfo, Tuning, Verdict


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


def choose_reference(candidate: str, tunings: Sequence[Tuning]) -> str:
    """The baseline with the best validation score; the candidate itself is not asked.

    Args:
        tunings: of every activation on one task. Test scores play no part in the choice.
    """
    rivals = [t for t in tunings if t.activation in BASELINES and t.activation != candidate]
    return max(rivals, key=lambda tuning: tuning.score).activation


def compare(
    settings: Settings, tunings: Sequence[Tuning], scores: Sequence[Score]
) -> tuple[Comparison, ...]:
    """Every candidate against its reference on every task, corrected as one family."""
    by_name = {(score.task, score.activation): score for score in scores}
    pairs = []
    for task in settings.tasks:
        of_task = [tuning for tuning in tunings if tuning.task == task]
        for candidate in settings.candidates:
            reference = choose_reference(candidate, of_task)
            pairs.append((by_name[task, candidate], by_name[task, reference]))
    differences = [
        tuple(a - b for a, b in zip(candidate.values, reference.values, strict=True))
        for candidate, reference in pairs
    ]
    summaries = [statistics.summarise(d) for d in differences]
    adjusted = statistics.holm([summary.p_value for summary in summaries])
    enough = _enough_seeds(settings.num_seeds, len(pairs))
    return tuple(
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
            improvement=summary.improvement,
            diverged=candidate.diverged,
            diverged_reference=reference.diverged,
            verdict=decide(summary.mean, p, enough),
        )
        for (candidate, reference), d, summary, p in zip(
            pairs, differences, summaries, adjusted, strict=True
        )
    )


def decide(mean: float, p_adjusted: float, enough_seeds: bool) -> Verdict:
    """The verdict of one comparison.

    Args:
        mean: the mean difference, candidate minus reference; higher is better.
        p_adjusted: Holm-adjusted.
        enough_seeds: whether any outcome could have been significant.
    """
    if not enough_seeds:
        return Verdict.TOO_FEW
    if p_adjusted >= statistics.SIGNIFICANCE:
        return Verdict.SAME
    return Verdict.BETTER if mean > 0 else Verdict.WORSE


def _enough_seeds(seeds: int, comparisons: int) -> bool:
    return statistics.smallest_adjusted_p(seeds, comparisons) < statistics.SIGNIFICANCE
