"""`zeta compare`: two activations, or two tasks, of finished trials, seed by seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from zeta._errors import UnknownNameError, UserError
from zeta.evaluate.across import judge_overall, task_scales
from zeta.evaluate.compare import Pair, judge
from zeta.evaluate.results import Comparison, Overall, Results, Score
from zeta.evaluate.statistics import standard_deviation
from zeta.evaluate.wording import count, difference_words, interval, overall_figures, signed
from zeta.load_formula import one_spelling

Kind = Literal["activation", "task"]


@dataclass(frozen=True)
class Versus:
    """The paired answer for A and B.

    Attributes:
        a, b: both activations, or both tasks, by their full names.
        kind: which of the two.
        scores: label -> the scores of A and of B. The labels are the tasks that two activations
            were run on, or the activations that were run on two tasks.
        comparisons: label -> A minus B, corrected for all labels; variants of tasks apart.
        overall: over all labels but those; None where there is one, or no common scale.
    """

    a: str
    b: str
    kind: Kind
    scores: dict[str, Pair]
    comparisons: dict[str, Comparison]
    overall: Overall | None


def versus(results: Results, a: str, b: str) -> Versus:
    """Compare two activations over the tasks, or two tasks over the activations.

    Args:
        a, b: two activations, or two tasks with the same data and metric, by their full or their
            short names.

    Raises:
        UserError: an unknown name (the message suggests the nearest), twice the same, one of each,
            or tasks of which the seeds are no pairs.
    """
    kinds: dict[str, Kind] = dict.fromkeys(_activations_of(results), "activation")
    kinds |= dict.fromkeys(results.settings.tasks, "task")
    known = {called: (kinds[name], name) for name, short in results.names.items() if name in kinds
             for called in (name, short)}  # fmt: skip
    a, b = (name if name in known else one_spelling(name) for name in (a, b))
    for name in (a, b):
        if name not in known:
            raise UnknownNameError("activation or task", name, known)
    (kind, a), (other, b) = known[a], known[b]
    if kind != other:
        raise UserError(f"{a!r} is one {kind} and {b!r} one {other}; name two of a kind")
    if a == b:
        raise UserError(f"{a!r} cannot be compared with itself; name two different ones")
    return _activations(results, a, b) if kind == "activation" else _tasks(results, a, b)


def _activations_of(results: Results) -> list[str]:
    """All but the control; twins were not run on variants of tasks."""
    return [name for name in results.settings.activations if name != results.settings.control]


def _activations(results: Results, a: str, b: str) -> Versus:
    settings = results.settings
    run = set(settings.pairs)
    pairs = {
        task: (results.score(task, a), results.score(task, b))
        for task in settings.tasks
        if {(task, a), (task, b)} <= run
    }
    own = {task: pairs[task] for task in settings.own_tasks}
    variants = {task: pair for task, pair in pairs.items() if task not in own}
    comparisons = _compared(results, own) | _compared(results, variants)
    by_name: dict[tuple[str, str], Score] = {(s.task, s.activation): s for s in results.scores}
    tasks = [task for task in results.tasks if task.source in own]
    scales = task_scales(tasks, results.tunings, by_name, settings.baselines)
    overall = None
    datasets = {task.source: task.dataset for task in tasks if task.source in scales}
    if len(set(datasets.values())) > 1:
        overall = judge_overall(
            [comparisons[task] for task in scales],
            [pairs[task] for task in scales],
            [factor for _, factor in scales.values()],
            [datasets[task] for task in scales],
        )
    return Versus(a, b, "activation", pairs, comparisons, overall)


def _tasks(results: Results, a: str, b: str) -> Versus:
    infos = {task.source: task for task in results.tasks}
    for what, of_a, of_b in (
        ("data", infos[a].data, infos[b].data),
        ("metric", infos[a].metric, infos[b].metric),
    ):
        if of_a != of_b:
            raise UserError(
                f"tasks {a!r} and {b!r} differ in their {what}: only tasks of the same data and "
                "metric can be compared seed by seed"
            )
    seeds = min(infos[a].seeds, infos[b].seeds)
    pairs = {
        name: (_first(results.score(a, name), seeds), _first(results.score(b, name), seeds))
        for name in _activations_of(results)
        if {(a, name), (b, name)} <= set(results.settings.pairs)
    }
    comparisons = _compared(results, pairs)
    # Here the activations are the sample.
    overall = judge_overall(
        list(comparisons.values()), list(pairs.values()), [1.0] * len(pairs), list(pairs)
    )
    return Versus(a, b, "task", pairs, comparisons, overall)


def _first(score: Score, seeds: int) -> Score:
    """Of the first so many seeds."""
    values = score.values[:seeds]
    return replace(score, values=values, mean=fmean(values), sd=standard_deviation(values))


def _compared(results: Results, pairs: dict[str, Pair]) -> dict[str, Comparison]:
    tasks = {task.source: task for task in results.tasks}
    found = judge(results.settings, tasks, list(pairs.values()))
    return dict(zip(pairs, found, strict=True))


def describe(found: Versus, names: Mapping[str, str]) -> list[str]:
    """The verdicts in one sentence each, the one over all last.

    Args:
        names: full name -> the name to show.
    """
    a, b = names[found.a], names[found.b]
    sentences = [
        f"{names[label]}: {difference_words(c.verdict, a, b)} ({signed(c.mean)}, "
        f"{interval(c.low, c.high)}; corrected p {c.p_adjusted:.3f})."
        for label, c in found.comparisons.items()
    ]
    if o := found.overall:
        across = found.kind == "activation"
        over = count(len(o.tasks), "task" if across else "activation")
        figures = overall_figures(o) if across else overall_figures(o, unit="")
        sentences.append(f"Over {over} together, {difference_words(o.verdict, a, b)}: {figures}.")
    return sentences
