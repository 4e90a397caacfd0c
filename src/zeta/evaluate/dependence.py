"""`dependences`: whether verdicts hold with another initialisation or a larger budget."""

from collections.abc import Sequence
from dataclasses import replace

from zeta.evaluate import statistics
from zeta.evaluate.protocol import Settings
from zeta.evaluate.results import Comparison, Dependence, Finding, TaskInfo, Verdict
from zeta.evaluate.statistics import Estimate
from zeta.evaluate.tasks.condition import Condition, split_condition

_DEPENDS: dict[Condition, Finding] = {
    "matched": "depends on initialisation",
    "4x": "depends on budget",
}


def dependences(
    settings: Settings, tasks: Sequence[TaskInfo], comparisons: Sequence[Comparison]
) -> tuple[Dependence, ...]:
    """What each condition makes of each candidate's verdict on each task.

    The interaction is (candidate - reference under the condition) - (candidate - reference), seed
    by seed: both share the seed's rows and its batches. Its mean is tested as any paired difference
    is, by the corrected t, and corrected over all that a run has (Benjamini and Hochberg).

    Args:
        comparisons: of :func:`zeta.evaluate.compare.compare`.
    """
    infos = {task.source: task for task in tasks}
    by_name = {
        (c.task, c.candidate): c for c in comparisons if c.question in ("baseline", "condition")
    }
    found = [
        _of(by_name[base, candidate], by_name[variant, candidate], infos[base].test_to_train)
        for variant, base in settings.variants.items()
        for candidate in settings.candidates
    ]
    adjusted = statistics.benjamini_hochberg([d.p_value for d in found])
    return tuple(
        replace(d, p_adjusted=p, finding=conclude(d.condition, d.default, d.verdict, p))
        for d, p in zip(found, adjusted, strict=True)
    )


def _of(default: Comparison, other: Comparison, test_to_train: float) -> Dependence:
    """Not corrected yet; of seeds that only one of the two has, nothing is taken."""
    pairs = zip(other.differences, default.differences, strict=False)
    change = statistics.summarise([b - a for b, a in pairs], test_to_train)
    _, condition = split_condition(other.task)
    assert condition is not None
    return Dependence(
        task=default.task,
        candidate=default.candidate,
        reference=default.reference,
        condition=condition,
        default=default.verdict,
        verdict=other.verdict,
        change=Estimate(change.mean, change.low, change.high),
        p_value=change.p_value,
        p_adjusted=change.p_value,
        finding="not told apart",
    )


def conclude(
    condition: Condition, default: Verdict, verdict: Verdict, p_adjusted: float
) -> Finding:
    """The verdicts of both conditions as one.

    Args:
        default, verdict: without and with the condition.
        p_adjusted: that the condition changes nothing of the difference, corrected.

    Example:
        >>> from zeta.evaluate import Verdict
        >>> from zeta.evaluate.dependence import conclude
        >>> conclude("matched", Verdict.WORSE, Verdict.EQUIVALENT, 0.01)
        'depends on initialisation'
    """
    if Verdict.TOO_FEW in (default, verdict):
        return "not told apart"
    if default is verdict:
        return "holds"
    return _DEPENDS[condition] if p_adjusted < statistics.SIGNIFICANCE else "not told apart"
