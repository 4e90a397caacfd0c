"""The results of an evaluation as dataclasses: what the report, the JSON and the table show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from zeta.evaluate.protocol import Settings, Trial

Question = Literal["baseline", "ablation"]


class Verdict(StrEnum):
    """The answer of one comparison, in the words that every output uses."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference found"
    TOO_FEW = "too few seeds to tell"


@dataclass(frozen=True)
class TaskInfo:
    """A task as the report describes it.

    Attributes:
        data: the data's fingerprint.
        constant: the test score of a constant prediction.
    """

    source: str
    title: str
    metric: str
    data: str
    constant: float
    epochs: int
    batch_size: int
    width: int

    def score_of(self, trial: Trial) -> float:
        """A trial's value; a diverged trial's is the constant predictor's."""
        return self.constant if trial.value is None else trial.value


@dataclass(frozen=True)
class Tuning:
    """One activation's learning rates on one task.

    Attributes:
        validation: learning rate -> mean validation score, in rising order.
        learning_rate: the winner.
    """

    task: str
    activation: str
    validation: dict[float, float]
    learning_rate: float

    @property
    def score(self) -> float:
        """The winner's mean validation score."""
        return self.validation[self.learning_rate]


@dataclass(frozen=True)
class Score:
    """One activation's test scores on one task, in the order of the seeds.

    A diverged trial counts with the constant predictor's score.

    Attributes:
        parameters: how many numbers were trained, the activation's own included.
        step_ms: the median time of one optimiser step.
    """

    task: str
    activation: str
    learning_rate: float
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
        question: "baseline" asks whether the candidate beats the usual activations, "ablation"
            whether training its parameters beats leaving them as they are.
        reference: the baseline with the best validation score (other than the candidate), or the
            candidate's frozen twin.
        differences: candidate minus reference, one per seed.
        mean, low, high: the mean difference and its 95 % bootstrap interval.
        p_value, p_adjusted: of the sign-flip test, before and after Holm's correction.
        improvement: the share of seeds on which the candidate was ahead, ties counting half.
        diverged, diverged_reference: how many trials of each diverged.
    """

    task: str
    candidate: str
    reference: str
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    improvement: float
    diverged: int
    diverged_reference: int
    verdict: Verdict
    question: Question = "baseline"


@dataclass(frozen=True)
class Conclusion:
    """The verdict in words.

    Attributes:
        headline: a few words.
        paragraph: a few sentences.
        candidates: candidate -> one sentence.
    """

    headline: str
    paragraph: str
    candidates: dict[str, str]


@dataclass(frozen=True)
class Results:
    """Everything that an evaluation found out.

    Attributes:
        folder: where the report lies.
        skipped: task -> why it could not be run, with what to install.
        timing: ``seconds`` in all and how many trials were ``run`` and how many ``resumed``.
    """

    folder: Path
    settings: Settings
    tasks: tuple[TaskInfo, ...]
    tunings: tuple[Tuning, ...]
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    conclusion: Conclusion
    trials: tuple[Trial, ...]
    environment: Mapping[str, str]
    protocol: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        """The HTML report's file."""
        return self.folder / "report.html"

    def final_trials(self, task: str, activation: str) -> list[Trial]:
        """The final trials of one activation on one task, in the order of the seeds."""
        wanted = (task, activation, "final")
        return [t for t in self.trials if (t.key.task, t.key.activation, t.key.phase) == wanted]

    def score(self, task: str, activation: str) -> Score:
        """The scores of one activation on one task."""
        return next(s for s in self.scores if (s.task, s.activation) == (task, activation))

    def comparison(self, task: str, candidate: str) -> Comparison | None:
        """The comparison of one candidate on one task; None for a baseline."""
        wanted = (task, candidate)
        return next((c for c in self.comparisons if (c.task, c.candidate) == wanted), None)

    def to_json(self) -> dict[str, Any]:
        """The content of ``results.json``; what may differ between two runs is under timing."""
        tunings = [
            asdict(t) | {"validation": [list(pair) for pair in t.validation.items()]}
            for t in self.tunings
        ]
        return {
            "verdict": asdict(self.conclusion),
            "protocol": {
                "rules": list(self.protocol),
                "settings": asdict(self.settings),
                "tasks": [asdict(task) for task in self.tasks],
                "skipped": self.skipped,
            },
            "comparisons": [asdict(c) for c in self.comparisons],
            "scores": [asdict(s) for s in self.scores],
            "tuning": tunings,
            "trials": [t.to_json() for t in self.trials],
            "environment": dict(self.environment),
            "timing": self.timing,
        }


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
