"""The results of an evaluation as dataclasses: what the report, the JSON and the table show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import mode
from typing import TYPE_CHECKING, Any, Literal

from zeta.evaluate.protocol import Settings, Trial
from zeta.evaluate.tasks.condition import Condition

if TYPE_CHECKING:
    from zeta.evaluate.pooling import Pooled
    from zeta.evaluate.ranking import Ranking
    from zeta.evaluate.statistics import Estimate

__all__ = [
    "AcrossTasks",
    "Aggregate",
    "Comparison",
    "Conclusion",
    "Dependence",
    "Overall",
    "Results",
    "Run",
    "Score",
    "Shape",
    "TaskInfo",
    "Tuning",
    "Verdict",
    "short_names",
]

# Raise it with any change that makes older readers misread ``results.json``.
FORMAT = 4

Question = Literal["baseline", "ablation", "condition", "retuned", "planted"]
Finding = Literal["holds", "depends on initialisation", "depends on budget", "not told apart"]


class Verdict(StrEnum):
    """The answer of one comparison, in the words that every output uses."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    TOO_SMALL = "data too small to tell"
    TOO_FEW = "too few seeds to tell"


@dataclass(frozen=True)
class TaskInfo:
    """A task as the report describes it.

    Attributes:
        data: the data's fingerprint.
        dataset: what they are called; tasks of the same have one vote over all tasks.
        seeds: final trials of each activation.
        test_to_train: test rows to training rows, which corrects the variance of the mean of
            trials that share them; see :meth:`zeta.evaluate.tasks.Task.test_to_train`.
        tells_apart: whether it has a part in what the tasks say together.
    """

    source: str
    title: str
    metric: str
    data: str
    dataset: str
    seeds: int
    test_to_train: float
    epochs: int
    batch_size: int
    width: int
    tells_apart: bool = True


@dataclass(frozen=True)
class Tuning:
    """One activation's learning rates on one task.

    Attributes:
        validation: learning rate -> mean validation score, in rising order; smoothed over
            neighbouring rates.
        learning_rates: what each final seed trains with: the winner of a resample, which the seed
            draws, of the tuning seeds.
    """

    task: str
    activation: str
    validation: dict[float, float]
    learning_rates: tuple[float, ...]

    @property
    def learning_rate(self) -> float:
        """The one that most final seeds take."""
        return mode(self.learning_rates)

    @property
    def others(self) -> int:
        """How many final seeds take another one."""
        return sum(rate != self.learning_rate for rate in self.learning_rates)

    @property
    def score(self) -> float:
        """The validation score at the usual learning rate."""
        return self.validation[self.learning_rate]

    @property
    def sensitivity(self) -> float:
        """How much validation score is lost, at worst, one step of the grid beside the winner."""
        rates = sorted(self.validation)
        place = rates.index(self.learning_rate)
        beside = rates[max(0, place - 1) : place + 2]
        return self.score - min(self.validation[rate] for rate in beside)


@dataclass(frozen=True)
class Score:
    """One activation's test scores on one task, in the order of the seeds.

    A diverged trial counts with the constant predictor's score.

    Attributes:
        learning_rate: the usual one, which ``other_rates`` of the trials did not take.
        constant: the mean score of constant predictions on the same test rows.
        parameters: how many numbers were trained, the activation's own included.
        step_ms: the median time of one optimiser step.
    """

    task: str
    activation: str
    learning_rate: float
    other_rates: int
    constant: float
    values: tuple[float, ...]
    mean: float
    sd: float
    interquartile_mean: float
    diverged: int
    parameters: int
    step_ms: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against its reference on one task.

    Attributes:
        question: "baseline" asks whether the candidate beats the reference, "ablation"
            whether training its parameters beats leaving them as they are, "condition" the same
            as "baseline" on a variant of a task; "retuned" and "planted" are the controls: the
            reference tuned once more, as it is and raised by the standard deviation of its scores,
            against itself.
        reference: that of the settings, or the candidate's frozen twin.
        differences: candidate minus reference, one per seed.
        mean, low, high: the mean difference and its 95 % interval by the corrected t, not
            corrected for the number of comparisons.
        error: its standard error.
        rope: w: within [-w, w] a difference is of no practical importance.
        p_value, p_adjusted: that there is no difference, before and after the correction of
            Benjamini and Hochberg.
        p_equivalent: that the difference is outside of the region; corrected.
        effect: the mean difference in standard deviations of the differences; None where they
            do not vary.
        improvement: probability of improvement: the share of all pairs of runs in which the
            candidate's was ahead, ties counting half.
        diverged, diverged_reference: how many trials of each diverged.
        best: the baseline with the best validation score, other than the candidate, and
            ``best_difference`` the difference to it, which decides nothing; None in an ablation.
    """

    task: str
    candidate: str
    reference: str
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    error: float
    rope: float
    p_value: float
    p_adjusted: float
    p_equivalent: float
    effect: "Estimate | None"
    improvement: float
    diverged: int
    diverged_reference: int
    verdict: Verdict
    question: Question = "baseline"
    best: str | None = None
    best_difference: "Estimate | None" = None


@dataclass(frozen=True)
class Dependence:
    """Whether a candidate's verdict on a task holds under a condition.

    Attributes:
        task: without the condition.
        reference: what the candidate is compared with.
        condition: "matched" or "4x".
        default, verdict: the verdicts on the task itself and on the task under the condition.
        change: the difference to the reference under the condition minus that on the task itself,
            paired by seed: the interaction of activation and condition, with its 95 % interval.
        p_value, p_adjusted: that there is no interaction, before and after the correction of
            Benjamini and Hochberg over all of a run's.
        finding: "holds" where both verdicts are the same, "depends on …" where they differ and so
            do the differences, "not told apart" where only the verdicts differ, or where seeds are
            too few to tell.
    """

    task: str
    candidate: str
    reference: str
    condition: Condition
    default: Verdict
    verdict: Verdict
    change: "Estimate"
    p_value: float
    p_adjusted: float
    finding: Finding


@dataclass(frozen=True)
class Overall:
    """A candidate against its references over all tasks, on the common scale.

    Attributes:
        reference: one activation, or "" where each task has its own.
        difference: the random-effects mean over data sets, with its 95 % interval.
        pooled: what it is made of: see :mod:`zeta.evaluate.pooling`.
        p_value, p_adjusted: that there is no difference, before and after the correction of
            Benjamini and Hochberg.
        improvement: probability of improvement, averaged over the tasks.
    """

    candidate: str
    reference: str
    tasks: tuple[str, ...]
    difference: "Estimate"
    pooled: "Pooled"
    p_value: float
    p_adjusted: float
    improvement: "Estimate"
    verdict: Verdict
    question: Question = "baseline"


@dataclass(frozen=True)
class Aggregate:
    """One activation's scores on all tasks together, on the common scale.

    Attributes:
        interquartile_mean: of the scores of all tasks and seeds.
        profile: for each of ``AcrossTasks.thresholds``, the share of runs that score above.
        profile_low, profile_high: its 95 % bounds, threshold by threshold.
    """

    activation: str
    interquartile_mean: "Estimate"
    profile: tuple[float, ...]
    profile_low: tuple[float, ...]
    profile_high: tuple[float, ...]


@dataclass(frozen=True)
class AcrossTasks:
    """What the tasks say together.

    Attributes:
        tasks: those with a common scale, see ``zeta.evaluate.across``.
        left_out: task -> why it has none.
        thresholds: of the performance profiles.
        ranking: None where there are too few tasks.
    """

    tasks: tuple[str, ...]
    left_out: dict[str, str]
    thresholds: tuple[float, ...]
    aggregates: tuple[Aggregate, ...]
    overall: tuple[Overall, ...]
    ranking: "Ranking | None"

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why tasks are left out -> which."""
        found: dict[str, list[str]] = {}
        for task, why in self.left_out.items():
            found.setdefault(why, []).append(task)
        return found


@dataclass(frozen=True)
class Shape:
    """An activation's values on ``zeta.evaluate.shapes.GRID``; None where not finite.

    Attributes:
        values: with the documented parameters.
        learned: with those of each layer after training, first seed of each task.
    """

    activation: str
    values: tuple[float | None, ...]
    learned: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True)
class Conclusion:
    """The verdict in words.

    Attributes:
        headline: a few words.
        paragraph: a few sentences.
        candidates: candidate -> one sentence.
        ablations: learnable candidate -> what training its parameters did, one sentence.
    """

    headline: str
    paragraph: str
    candidates: dict[str, str]
    ablations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was run, and what came out of it: all that the statistics are made from.

    Attributes:
        trials: every one, tuning and final.
        skipped: task -> why it could not be run, with what to install.
        timing: ``seconds`` in all and how many trials were ``run`` and how many ``resumed``.
    """

    settings: Settings
    tasks: tuple[TaskInfo, ...]
    tunings: tuple[Tuning, ...]
    trials: tuple[Trial, ...]
    shapes: tuple[Shape, ...]
    environment: Mapping[str, str]
    skipped: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Activation or task -> the name to show."""
        return short_names((*self.settings.activations, *self.settings.tasks))

    @property
    def telling(self) -> tuple[TaskInfo, ...]:
        """The tasks that tell activations apart, but for variants."""
        own = self.settings.own_tasks
        return tuple(task for task in self.tasks if task.tells_apart and task.source in own)

    def tuning_trials(self, tuning: Tuning) -> list[Trial]:
        """An activation's tuning trials on one task at the learning rate that it usually takes."""
        wanted = (tuning.task, tuning.activation, "tuning", tuning.learning_rate)
        return [
            trial
            for trial in self.trials
            if (k := trial.key) and (k.task, k.activation, k.phase, k.learning_rate) == wanted
        ]

    def final_trials(self, task: str, activation: str) -> list[Trial]:
        """The final trials of one activation on one task, in the order of the seeds."""
        wanted = (task, activation, "final")
        found = (t for t in self.trials if (t.key.task, t.key.activation, t.key.phase) == wanted)
        return sorted(found, key=lambda trial: trial.key.seed)


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """Everything that an evaluation found out.

    Attributes:
        folder: where the report lies.
        controls: the reference tuned once more against itself, without and with a planted effect.
        dependences: whether verdicts hold under other conditions.
        across: what the tasks say together; None with a single task.
        protocol: the rules that were followed, in words.
    """

    folder: Path
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    controls: tuple[Comparison, ...]
    dependences: tuple[Dependence, ...]
    across: AcrossTasks | None
    conclusion: Conclusion
    protocol: tuple[str, ...]

    @property
    def report(self) -> Path:
        """The HTML report's file."""
        return self.folder / "report.html"

    def score(self, task: str, activation: str) -> Score:
        """The scores of one activation on one task."""
        return next(s for s in self.scores if (s.task, s.activation) == (task, activation))

    def comparison(
        self, task: str, candidate: str, question: Question = "baseline"
    ) -> Comparison | None:
        """The comparison of one candidate on one task; None for whatever is no candidate."""
        wanted = (task, candidate, question)
        found = (c for c in self.comparisons if (c.task, c.candidate, c.question) == wanted)
        return next(found, None)

    def to_json(self) -> dict[str, Any]:
        """The content of ``results.json``; what may differ between two runs is under timing."""
        tunings = [
            asdict(t) | {"validation": [list(pair) for pair in t.validation.items()]}
            for t in self.tunings
        ]
        return {
            "format": FORMAT,
            "verdict": asdict(self.conclusion),
            "protocol": {
                "rules": list(self.protocol),
                "settings": asdict(self.settings),
                "tasks": [asdict(task) for task in self.tasks],
                "skipped": self.skipped,
            },
            "comparisons": [asdict(c) for c in self.comparisons],
            "controls": [asdict(c) for c in self.controls],
            "dependences": [asdict(d) for d in self.dependences],
            "across": asdict(self.across) if self.across else None,
            "scores": [_score_to_json(s) for s in self.scores],
            "tuning": tunings,
            "trials": [t.to_json() for t in self.trials],
            "shapes": [asdict(s) for s in self.shapes],
            "environment": dict(self.environment),
            "timing": self.timing,
        }


def _score_to_json(score: Score) -> dict[str, Any]:
    fields = asdict(score)
    return fields | {"timing": {"step_ms": fields.pop("step_ms")}}


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """Source -> the name to show: ``dir/my.py:swish`` is ``swish`` unless two would be the same.

    Example:
        >>> from zeta.evaluate.results import short_names
        >>> short_names(["relu", "dir/my.py:swish", "dir/my.py:relu"])
        {'relu': 'relu', 'dir/my.py:swish': 'swish', 'dir/my.py:relu': 'dir/my.py:relu'}
    """
    short = [source.rpartition(":")[2] for source in sources]
    return {
        source: name if short.count(name) == 1 else source
        for source, name in zip(sources, short, strict=True)
    }
