"""The verdict and the protocol in plain words."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import mode

from zeta.evaluate import statistics
from zeta.evaluate.compare import by_candidate
from zeta.evaluate.pooling import decisive
from zeta.evaluate.protocol import PROTOCOL_VERSION, ROPES, Settings
from zeta.evaluate.ranking import MIN_TASKS
from zeta.evaluate.results import (
    AcrossTasks,
    Comparison,
    Conclusion,
    Dependence,
    Finding,
    Overall,
    Question,
    TaskInfo,
    Verdict,
    short_names,
)
from zeta.evaluate.tasks.condition import Condition, split_condition
from zeta.evaluate.tasks.task import (
    STREAM_TUNING_FRACTION,
    TEST_FRACTION,
    VALIDATION_FRACTION,
    WINDOW_FRACTION,
)

SCOPE = (
    "This holds for small networks and for splits of these data sets; it is no statement about "
    "other data, deeper networks or longer training."
)
_ACROSS = (
    "Tasks together: on the common scale 0 is the task's constant predictor and 1 the mean score "
    "of the baseline with the best validation score; a task where that baseline is not clearly "
    "better than the constant is left out, and so is one on which a linear network does as well, "
    "of ranks too. The mean difference is that of a random-effects model with data sets as the "
    "sample (DerSimonian and Laird's variance, Hartung and Knapp's interval by Student's t): it "
    "speaks of data like these. Tasks of the same data have one vote, and each data set is left "
    "out in turn; p-values are corrected over the candidates (Benjamini and Hochberg). "
    "Interquartile means, profiles and probabilities of improvement have 95 % percentile bootstrap"
    " intervals, seeds resampled within each task: they speak of these tasks, not of others, and "
    "of these splits as if they were independent. Mean ranks are compared by "
    f"Friedman's and Nemenyi's tests from {MIN_TASKS} tasks on; with fewer, their approximations "
    "are rough and only differences of over two thirds of all ranks could be found."
)
QUICK = "This was a quick look, too small to conclude from; run again without --quick."
# From so many tasks on, the headline counts them and leaves their names to the sentences.
_MANY_TASKS = 4


def conclude(
    settings: Settings,
    tasks: Sequence[TaskInfo],
    comparisons: Sequence[Comparison],
    controls: Sequence[Comparison],
    dependences: Sequence[Dependence],
    across: AcrossTasks | None,
) -> Conclusion:
    """The verdict over all candidates and tasks.

    Args:
        comparisons: every candidate on every task, and the ablations.
        controls: the reference against itself.
        dependences: whether verdicts hold under other conditions.
        across: what the tasks say together, if there are several.
    """
    names = short_names((*settings.activations, *settings.tasks))
    asked = [c for c in comparisons if c.question == "baseline"]
    sentences = {
        candidate: "; ".join(
            [
                *_candidate(group, names),
                *_together(candidate, "baseline", across, _AGAINST),
                *_changes([d for d in dependences if d.candidate == candidate], names),
            ]
        )
        for candidate, group in by_candidate(asked)
    }
    ablations = {
        candidate: "training its parameters "
        + "; ".join([*_ablation(group, names), *_together(candidate, "ablation", across, _ABLATED)])
        for candidate, group in by_candidate([c for c in comparisons if c.question == "ablation"])
    }
    own = [task for task in tasks if task.source in settings.own_tasks]
    parts = [
        _overall(settings, tasks, asked, names),
        _divergence(asked, names),
        _conditions(dependences),
        _controls(controls, names),
        left_out([names[t.source] for t in own if not t.tells_apart], len(own)),
        QUICK if settings.quick else SCOPE,
    ]
    many = len(settings.own_tasks) >= _MANY_TASKS
    headline = _counted_headline(asked, names) if many else _headline(asked, names)
    headline = ". ".join([headline, *_dependent(dependences, names)])
    return Conclusion(headline, " ".join(filter(None, parts)), sentences, ablations)


def signed(value: float) -> str:
    """A difference with its sign, to four decimals."""
    return f"{value:+.4f}".replace("-", "−")


def listing(items: Sequence[str]) -> str:
    """Items in a sentence.

    Example:
        >>> from zeta.evaluate.wording import listing
        >>> listing(["relu", "gelu", "silu"])
        'relu, gelu and silu'
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def percent(fraction: float) -> str:
    """A fraction as a whole percentage."""
    return f"{fraction:.0%}".replace("%", " %")


def count(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> from zeta.evaluate.wording import count
        >>> count(1, "task"), count(3, "task")
        ('1 task', '3 tasks')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def interval(low: float, high: float) -> str:
    """A 95 % interval of differences, in words."""
    return f"95 % interval {signed(low)} to {signed(high)}"


def _headline(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    """Which candidates are better or worse on which tasks."""
    parts = []
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        by_task: dict[str, list[str]] = {}
        for c in _of(comparisons, verdict):
            by_task.setdefault(names[c.task], []).append(names[c.candidate])
        cases = [f"{listing(candidates)} on {task}" for task, candidates in by_task.items()]
        parts += [f"{verdict.capitalize()}: {'; '.join(cases)}"] if cases else []
    return ". ".join(parts) or _without_difference(comparisons)


def _counted_headline(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    """On how many tasks each candidate is better or worse."""
    parts = []
    for candidate, group in by_candidate(comparisons):
        counts = [(v, len(_of(group, v))) for v in (Verdict.BETTER, Verdict.WORSE)]
        found = listing([f"{verdict} on {number}" for verdict, number in counts if number])
        parts += [f"{names[candidate]} {found} of {count(len(group), 'task')}"] if found else []
    return "; ".join(parts) or _without_difference(comparisons)


def _without_difference(comparisons: Sequence[Comparison]) -> str:
    """What most comparisons say, none of which found a difference."""
    return mode(c.verdict for c in comparisons).capitalize()


def _overall(
    settings: Settings,
    tasks: Sequence[TaskInfo],
    comparisons: Sequence[Comparison],
    names: dict[str, str],
) -> str:
    size = f"{_seeds(tasks)} and {count(len(comparisons), 'comparison')}"
    if all(c.verdict is Verdict.TOO_FEW for c in comparisons):
        return (
            f"With {size}, only differences twice as large as more seeds would show could be "
            "found: the figures below are a first impression and no result."
        )
    found = [(v, len(_of(comparisons, v))) for v in (*_CLEAR, *_OPEN)]
    verdicts = listing([f"{_COUNTED[verdict]} in {number}" for verdict, number in found if number])
    return (
        f"With learning rates tuned alike, {size} with {names[settings.reference]}, candidates "
        f"were {verdicts}."
    ) + "".join(f" {said}" for verdict, said in _ADVICE.items() if _of(comparisons, verdict))


def _seeds(tasks: Sequence[TaskInfo]) -> str:
    """How many, or from how many to how many where tasks differ."""
    least, most = min(t.seeds for t in tasks), max(t.seeds for t in tasks)
    return (f"{least} to " if least < most else "") + count(most, "paired seed")


def _together(
    candidate: str, question: Question, across: AcrossTasks | None, words: Mapping[Verdict, str]
) -> list[str]:
    """What all tasks together say of a candidate; nothing where there are too few."""
    return [
        f"over {count(len(o.tasks), 'task')} together, {words[o.verdict]} ({overall_figures(o)})"
        for o in (across.overall if across else ())
        if (o.candidate, o.question) == (candidate, question)
    ]


def overall_figures(o: Overall, unit: str = " on the common scale") -> str:
    """The uncertainty of the answer over several tasks."""
    d, better = o.difference, o.improvement
    return (
        f"mean difference {signed(d.value)}{unit}, {interval(d.low, d.high)}, "
        f"probability of improvement {percent(better.value)} "
        f"({percent(better.low)} to {percent(better.high)}){_without(o)}"
    )


def _without(o: Overall) -> str:
    """Which data sets a verdict over all of them hangs on."""
    deciding = decisive(o.pooled.without) if o.verdict in _CLEAR else []
    if not deciding:
        return ""
    names = short_names(deciding)
    return f"; not so without {' or '.join(names[name] for name in deciding)}"


def difference_words(verdict: Verdict, a: str, b: str) -> str:
    """A verdict on two as a clause: "exo is better than relu"."""
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{a} is {verdict} than {b}"
    if verdict is Verdict.EQUIVALENT:
        return f"{a} and {b} are equivalent"
    return f"{verdict} between {a} and {b}" if verdict is Verdict.UNDECIDED else f"{verdict}"


_CLEAR = Verdict.BETTER, Verdict.WORSE
_OPEN = Verdict.EQUIVALENT, Verdict.UNDECIDED, Verdict.TOO_SMALL, Verdict.TOO_FEW
# What a verdict leaves to the reader.
_ADVICE = {
    Verdict.UNDECIDED: "Where it is undecided, the intervals say which differences are possible.",
    Verdict.TOO_SMALL: "Where data are too small to tell, more seeds would not help.",
}
# A verdict before the number of comparisons it was given in.
_COUNTED = {
    Verdict.BETTER: "better",
    Verdict.WORSE: "worse",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.UNDECIDED: "neither for certain",
    Verdict.TOO_SMALL: "tried on data too small to tell",
    Verdict.TOO_FEW: "tried with too few seeds to tell",
}
# What a verdict on a candidate says over all tasks …
_AGAINST = {
    Verdict.BETTER: "better than its references",
    Verdict.WORSE: "worse than its references",
    Verdict.EQUIVALENT: Verdict.EQUIVALENT,
    Verdict.UNDECIDED: Verdict.UNDECIDED,
    Verdict.TOO_SMALL: Verdict.TOO_SMALL,
    Verdict.TOO_FEW: Verdict.TOO_FEW,
}
# … and one on training its parameters.
_ABLATED = {
    Verdict.BETTER: "it helped",
    Verdict.WORSE: "it did harm",
    Verdict.EQUIVALENT: "it made no difference of importance",
    Verdict.UNDECIDED: "it left undecided whether it matters",
    Verdict.TOO_SMALL: "it was tried on data too small to tell",
    Verdict.TOO_FEW: "it was tried with too few seeds to tell",
}


def _candidate(comparisons: Sequence[Comparison], names: dict[str, str]) -> list[str]:
    """How one candidate did on the tasks: what is clear first, with figures; then the rest."""
    clear = [found for verdict in _CLEAR if (found := _of(comparisons, verdict))]
    if len(comparisons) >= _MANY_TASKS:
        parts = [f"{found[0].verdict} on {_tasks(found, names)}" for found in clear]
    else:
        parts = [_difference(c, names) for found in clear for c in found]
    rest = [found for verdict in _OPEN if (found := _of(comparisons, verdict))]
    return parts + [f"{verdict} on {where}" for verdict, where in _rest(rest, comparisons, names)]


def _ablation(comparisons: Sequence[Comparison], names: dict[str, str]) -> list[str]:
    """What training a candidate's own parameters did, against leaving them as documented."""
    parts = []
    for verdict in _CLEAR:
        cases = [
            f"{names[c.task]} ({signed(c.mean)}, {interval(c.low, c.high)})"
            for c in _of(comparisons, verdict)
        ]
        parts += [f"{_ABLATED[verdict]} on {listing(cases)}"] if cases else []
    rest = [found for verdict in _OPEN if (found := _of(comparisons, verdict))]
    parts += [
        f"{_ABLATED[verdict]} on {where}" for verdict, where in _rest(rest, comparisons, names)
    ]
    return [parts[0].removeprefix("it "), *parts[1:]]


def _tasks(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    return listing([names[c.task] for c in comparisons])


def _rest(
    groups: Sequence[Sequence[Comparison]], whole: Sequence[Comparison], names: dict[str, str]
) -> Iterator[tuple[Verdict, str]]:
    """Verdict and tasks of each group, or how many they are where names are too many to read."""
    for found in groups:
        which = "the other " if found is groups[-1] else ""
        which = "any of the " if len(found) == len(whole) else which
        many = len(found) >= _MANY_TASKS
        yield found[0].verdict, f"{which}{len(found)} tasks" if many else _tasks(found, names)


def _difference(c: Comparison, names: dict[str, str]) -> str:
    return (
        f"{c.verdict} than {names[c.reference]} on {names[c.task]} "
        f"({signed(c.mean)}, {interval(c.low, c.high)})"
    )


def _divergence(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    diverged = [
        f"{names[c.candidate]} on {names[c.task]} ({c.diverged} of {len(c.differences)})"
        for c in comparisons
        if c.diverged
    ]
    return f"Training diverged for {listing(diverged)}." if diverged else ""


def _dependent(dependences: Sequence[Dependence], names: dict[str, str]) -> list[str]:
    """Whose verdicts depend on what: "depends on initialisation: elu and tanh on digits"."""
    parts = []
    for finding in _DEPENDENT:
        by_task: dict[str, list[str]] = {}
        for d in (d for d in dependences if d.finding == finding):
            by_task.setdefault(names[d.task], []).append(names[d.candidate])
        cases = [f"{listing(candidates)} on {task}" for task, candidates in by_task.items()]
        parts += [f"{finding.capitalize()}: {'; '.join(cases)}"] if cases else []
    return parts


def _conditions(dependences: Sequence[Dependence]) -> str:
    """How many verdicts hold under other conditions."""
    if not dependences:
        return ""
    tried = listing([_CONDITIONS[c] for c in dict.fromkeys(d.condition for d in dependences)])
    found = Counter(d.finding for d in dependences)
    parts = [f"{found[finding]} {words}" for finding, words in _HELD.items() if found[finding]]
    return f"Of {count(len(dependences), 'verdict')} with {tried}, {listing(parts)}."


def _changes(dependences: Sequence[Dependence], names: dict[str, str]) -> list[str]:
    """What a condition changes of a candidate's verdicts, with figures."""
    return [
        f"{d.finding} on {names[d.task]} ({d.default} by default, {d.verdict} with "
        f"{_CONDITIONS[d.condition]}; the difference changes by {signed(d.change.value)}, "
        f"{interval(d.change.low, d.change.high)})"
        for d in dependences
        if d.finding in _DEPENDENT
    ]


_CONDITIONS: dict[Condition, str] = {
    "matched": "matched initialisation",
    "4x": "four times the budget",
}
_DEPENDENT = "depends on initialisation", "depends on budget"
_HELD: dict[Finding, str] = {
    "holds": "stayed the same",
    "depends on initialisation": "changed with initialisation",
    "depends on budget": "changed with the budget",
    "not told apart": "cannot be told",
}


def _controls(controls: Sequence[Comparison], names: dict[str, str]) -> str:
    """How often the run called a difference where there was none, and one that was planted."""
    if not controls:
        return ""
    called = {
        question: len([c for c in controls if c.question == question and c.verdict in _CLEAR])
        for question in ("retuned", "planted")
    }
    return (
        f"Controls: {names[controls[0].reference]}, tuned once more with other seeds, was called "
        f"different from itself on {called['retuned']} of {count(len(controls) // 2, 'task')}; "
        f"raised by one standard deviation of its scores, on {called['planted']}."
    )


def left_out(silent: Sequence[str], tasks: int) -> str:
    """Which tasks do not tell activations apart, if any, and what becomes of them.

    Args:
        silent: their names, as they are shown.
        tasks: how many there are in all.

    Example:
        >>> from zeta.evaluate.wording import left_out
        >>> left_out(["diabetes"], 3)
        'On diabetes a linear network does as well; averages and ranks over tasks are made without.'
    """
    if not silent:
        return ""
    said = f"On {listing(silent)} a linear network does as well"
    if tasks == 1:
        return f"{said}: a difference there says little of activations."
    if tasks - len(silent) < 2:
        return f"{said}; without, too few tasks are left to average over."
    return f"{said}; averages and ranks over tasks are made without."


def _of(comparisons: Sequence[Comparison], verdict: Verdict) -> list[Comparison]:
    return [c for c in comparisons if c.verdict is verdict]


def describe_protocol(settings: Settings, tasks: Sequence[TaskInfo]) -> tuple[str, ...]:
    """The rules that were followed, one sentence or two each."""
    tuning = count(len(settings.tuning_seeds), "tuning seed")
    return (
        f"Data: each seed draws its own test rows, {percent(TEST_FRACTION)} of each data set, with "
        "classes in equal shares; the rest trains. Of rows in order of time it draws where a "
        f"window of {percent(WINDOW_FRACTION)} of them starts, the newest "
        f"{percent(TEST_FRACTION)} of which test. Features (and regression targets) are "
        "standardised, and vocabularies chosen, by the training rows.",
        f"Streams: each batch is scored before it is trained on, in one pass; learning rates are "
        f"tuned on the first {percent(STREAM_TUNING_FRACTION)}, then a fresh network is scored on "
        "the rest.",
        "Network: each task's own, two hidden layers where its description says nothing else; "
        "PyTorch's default initialisation for every activation, Adam with a constant learning "
        "rate, float32. Activations of the learnable family train their parameters, from the "
        "documented values on; all others keep theirs.",
        f"Tuning: every learning rate of the grid with {tuning}, each with a split of its own, "
        f"scored on validation rows ({percent(VALIDATION_FRACTION)} of those that do not test); "
        "the same grid and budget for every activation. Mean scores are smoothed over neighbouring "
        "rates (weights 1 2 1), and the best wins; ties go to the rate nearest the middle of the "
        "grid. A winner on the grid's edge extends it by one step, at most "
        f"{settings.max_extensions}× on each side.",
        f"Final: {_seeds(tasks)}, none of which tuned. Each takes the learning rate that wins in "
        "a bootstrap resample of the tuning seeds, drawn by the final seed and the same for all "
        "activations, so that what is uncertain about the rate is part of the scores' spread. "
        "The score on test rows at the end of a trial counts; those by epoch are drawn and decide "
        "nothing. Test rows are not kept from the tuning of other "
        "seeds: all that could pass to them is the choice among a few rates.",
        "Pairing: for one task and seed, every activation sees the same split, the same batches "
        "in the same order and the same initial weights.",
        f"Reference: {settings.reference} for every candidate and task, and "
        f"{settings.reference_of(settings.reference)} for {settings.reference} itself. The "
        f"difference to the best of {listing(settings.baselines)} by validation score is shown "
        "beside it and decides nothing: no activation is the best of them on every task.",
        "Divergence: a trial whose loss or output is not finite is counted and shown, and enters "
        "the statistics with the score of a constant prediction.",
        "Statistics: mean paired difference with Nadeau and Bengio's corrected t: splits share "
        "rows, so the squared standard error is s²·(1/n + r), with r the test rows to the training "
        f"rows ({_ratios(tasks)}); of windows, what gives the share of test rows that two of them "
        "have in common. Intervals are of 95 % and not corrected for the number of comparisons. "
        "p-values, of no difference and of a difference of importance, are corrected over all "
        "candidates and tasks together (Benjamini and Hochberg): of the differences called, 5 % at "
        "most are expected to be none. The effect is the mean difference in standard deviations "
        "of the paired differences; the probability of improvement is the share of all pairs of "
        "runs in which the candidate's scored higher.",
        f"Verdict: within ±w a difference is of no practical importance ({_ropes(settings)}). "
        f"Equivalent: the difference is inside, corrected p below {statistics.SIGNIFICANCE}, for "
        "which its 95 % interval must lie inside. Better or worse: it is not 0, likewise. Else "
        "undecided; or data too small to tell, where with any number of seeds the interval of this "
        "mean would hold 0 and reach further than w to either side of it; or, before all others, "
        "too few seeds to tell, where no effect is found with 80 % that is not twice as large as "
        "what any number of seeds would find.",
        *(
            (
                "Ablation: a candidate that trains parameters of its own is also compared with "
                "its frozen twin, which keeps them as documented and is tuned and trained alike; "
                "those comparisons are a family of their own.",
            )
            if settings.ablations
            else ()
        ),
        *(
            (
                f"Controls: on {count(len(settings.controlled), 'task')}, those whose trials train "
                f"together, {settings.reference} is tuned once more with other seeds and compared "
                "with itself, as it is and raised by one standard deviation of its own scores; "
                "each is a family over these tasks, and neither part of any other.",
            )
            if settings.controlled
            else ()
        ),
        *((_under_conditions(settings),) if settings.variants else ()),
        *((_ACROSS,) if len(settings.own_tasks) > 1 else ()),
        f"Protocol version {PROTOCOL_VERSION}.",
    )


def _under_conditions(settings: Settings) -> str:
    used = {split_condition(task)[1] for task in settings.variants}
    rules = [rule for condition, rule in _CONDITION_RULES.items() if condition in used]
    return (
        f"Conditions: tasks are run once more {'; and '.join(rules)}. These are tuned, trained and "
        "compared as all are; their comparisons are a family of their own, and they have no part "
        "in what tasks say together. A verdict holds where it is the same under the condition. It "
        "depends on the condition where it differs and so does the paired difference: its change, "
        "seed by seed, is not 0 by the corrected t, over all candidates, tasks and conditions "
        "(Benjamini and Hochberg). Where only the verdicts differ, they are not told apart. "
        "Conditions are not combined."
    )


_CONDITION_RULES: dict[Condition, str] = {
    "matched": "with matched initialisation (He et al., 2015): the weights of linear layers and "
    "convolutions of N(0, g²/fan_in), no biases, g = 1 before the first activation and "
    "1/√E[f(z)²], z of N(0, 1), after it",
    "4x": "with four times the epochs, a learning rate that falls by a cosine to 0, and the "
    "weights of the epoch with the best validation score, whose rows final trials then keep from "
    "training",
}


def _ratios(tasks: Sequence[TaskInfo]) -> str:
    """The distinct corrections and how many tasks have them."""
    found = Counter(f"{task.test_to_train:.2f}" for task in tasks)
    return ", ".join(f"{ratio} on {count(number, 'task')}" for ratio, number in found.items())


def _ropes(settings: Settings) -> str:
    if settings.rope is not None:
        return f"w = {settings.rope:g}"
    return "w: " + ", ".join(f"{w:g} of {metric}" for metric, w in ROPES.items())
