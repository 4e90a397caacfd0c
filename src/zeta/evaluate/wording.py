"""The verdict and the protocol in plain words."""

from collections.abc import Mapping, Sequence

from zeta.evaluate import statistics
from zeta.evaluate.compare import by_candidate
from zeta.evaluate.protocol import PROTOCOL_VERSION, Settings
from zeta.evaluate.ranking import MIN_TASKS
from zeta.evaluate.results import (
    AcrossTasks,
    Comparison,
    Conclusion,
    Overall,
    Question,
    Verdict,
    short_names,
)
from zeta.evaluate.tasks.task import STREAM_TUNING_FRACTION, TEST_FRACTION, VALIDATION_FRACTION

SCOPE = (
    "This holds for small networks and one fixed test set of each task; it is no statement about "
    "other data, deeper networks or longer training."
)
_ACROSS = (
    "Tasks together: on the common scale 0 is the task's constant predictor and 1 the mean score "
    "of the baseline with the best validation score; a task where that baseline is not clearly "
    "better than the constant is left out. Interquartile means, profiles, differences "
    "and probabilities of improvement have 95 % percentile bootstrap intervals, seeds resampled "
    "within each task: they speak of these tasks, not of others. The mean difference has a "
    "sign-flip test, with Holm's correction over the candidates. Mean ranks are compared by "
    f"Friedman's and Nemenyi's tests from {MIN_TASKS} tasks on; with fewer, their approximations "
    "are rough and only differences of over two thirds of all ranks could be found."
)
QUICK = "This was a quick look, too small to conclude from; run again without --quick."
# From so many tasks on, the headline counts them and leaves their names to the sentences.
_MANY_TASKS = 4


def conclude(
    settings: Settings, comparisons: Sequence[Comparison], across: AcrossTasks | None
) -> Conclusion:
    """The verdict over all candidates and tasks.

    Args:
        comparisons: every candidate on every task, and the ablations.
        across: what the tasks say together, if there are several.
    """
    names = short_names((*settings.activations, *settings.tasks))
    asked = [c for c in comparisons if c.question == "baseline"]
    sentences = {
        candidate: "; ".join(
            [*_candidate(group, names), *_together(candidate, "baseline", across, _AGAINST)]
        )
        for candidate, group in by_candidate(asked)
    }
    ablations = {
        candidate: "training its parameters "
        + "; ".join([*_ablation(group, names), *_together(candidate, "ablation", across, _ABLATED)])
        for candidate, group in by_candidate([c for c in comparisons if c.question == "ablation"])
    }
    parts = [
        _overall(settings, asked, names),
        _divergence(asked, names),
        QUICK if settings.quick else SCOPE,
    ]
    many = len(settings.tasks) >= _MANY_TASKS
    headline = _counted_headline(asked, names) if many else _headline(asked, names)
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
    return ". ".join(parts) or comparisons[0].verdict.capitalize()


def _counted_headline(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    """On how many tasks each candidate is better or worse."""
    parts = []
    for candidate, group in by_candidate(comparisons):
        counts = [(v, len(_of(group, v))) for v in (Verdict.BETTER, Verdict.WORSE)]
        found = listing([f"{verdict} on {number}" for verdict, number in counts if number])
        parts += [f"{names[candidate]} {found} of {count(len(group), 'task')}"] if found else []
    return "; ".join(parts) or comparisons[0].verdict.capitalize()


def _overall(settings: Settings, comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    size = f"{count(settings.num_seeds, 'paired seed')} and {count(len(comparisons), 'comparison')}"
    if comparisons[0].verdict is Verdict.TOO_FEW:
        return (
            f"With {size}, even the clearest outcome could not reach significance: "
            "the figures below are a first impression and no result."
        )
    names_of_rivals = [names[baseline] for baseline in settings.baselines]
    rivals = listing(names_of_rivals)
    clear = [c for c in comparisons if c.verdict is not Verdict.SAME]
    if not clear:
        return (
            f"With learning rates tuned alike, {size}, no candidate did measurably better or "
            f"worse than the best of {rivals}. That is a result: if there is a difference, it is "
            "smaller than these trials can show; the intervals say how small."
        )
    same = len(comparisons) - len(clear)
    rest = f" No difference found in the other {count(same, 'comparison')}." if same else ""
    better, worse = (len(_of(clear, verdict)) for verdict in (Verdict.BETTER, Verdict.WORSE))
    return (
        f"With learning rates tuned alike, {size} against the best of {rivals}, "
        f"candidates were measurably better in {better} and worse in {worse}.{rest}"
    )


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
        f"({percent(better.low)} to {percent(better.high)})"
    )


def difference_words(verdict: Verdict, a: str, b: str) -> str:
    """A verdict on two as a clause: "exo is better than relu"."""
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{a} is {verdict} than {b}"
    return f"{verdict} between {a} and {b}" if verdict is Verdict.SAME else f"{verdict}"


_CLEAR, _OPEN = (Verdict.BETTER, Verdict.WORSE), (Verdict.SAME, Verdict.TOO_FEW)
# What a verdict on a candidate says over all tasks …
_AGAINST = {
    Verdict.BETTER: "better than its references",
    Verdict.WORSE: "worse than its references",
    Verdict.SAME: Verdict.SAME,
    Verdict.TOO_FEW: Verdict.TOO_FEW,
}
# … and one on training its parameters.
_ABLATED = {
    Verdict.BETTER: "it helped",
    Verdict.WORSE: "it did harm",
    Verdict.SAME: "it made no difference that was found",
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
    return parts + [f"{found[0].verdict} on {_rest(found, comparisons, names)}" for found in rest]


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
        f"{_ABLATED[found[0].verdict]} on {_rest(found, comparisons, names)}" for found in rest
    ]
    return [parts[0].removeprefix("it "), *parts[1:]]


def _tasks(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    return listing([names[c.task] for c in comparisons])


def _rest(found: Sequence[Comparison], whole: Sequence[Comparison], names: dict[str, str]) -> str:
    """The tasks of ``found``, or how many they are where names would be too many to read."""
    if len(found) < _MANY_TASKS:
        return _tasks(found, names)
    return f"{'any of the' if len(found) == len(whole) else 'the other'} {len(found)} tasks"


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


def _of(comparisons: Sequence[Comparison], verdict: Verdict) -> list[Comparison]:
    return [c for c in comparisons if c.verdict is verdict]


def describe_protocol(settings: Settings) -> tuple[str, ...]:
    """The rules that were followed, one sentence or two each."""
    tuning = count(len(settings.tuning_seeds), "tuning seed")
    return (
        f"Data: {percent(TEST_FRACTION)} of each data set is a fixed test set, the same in every "
        "trial: drawn at random with classes in equal shares, or the newest where rows are in "
        "order of time; the rest is development data. Features (and regression targets) are "
        "standardised by the training rows.",
        f"Streams: each batch is scored before it is trained on, in one pass; learning rates are "
        f"tuned on the first {percent(STREAM_TUNING_FRACTION)}, then a fresh network is scored on "
        "the rest.",
        "Network: each task's own, two hidden layers where its description says nothing else; "
        "PyTorch's default initialisation for every activation, Adam with a constant learning "
        "rate, float32. Activations of the learnable family train their parameters, from the "
        "documented values on; all others keep theirs.",
        f"Tuning: every learning rate of the grid with {tuning}, scored on validation data "
        f"({percent(VALIDATION_FRACTION)} of the development data, drawn by seed); the same grid "
        "and budget for every activation. The best mean wins, ties go to the rate nearest the "
        f"middle of the grid. A winner on the grid's edge extends it by one step, at most "
        f"{settings.max_extensions}× on each side.",
        f"Final: {count(settings.num_seeds, 'fresh seed')}, trained on all development data with "
        "the tuned learning rate; the test set is scored once per trial.",
        "Pairing: for one task and seed, every activation sees the same split, the same batches "
        "in the same order and the same initial weights.",
        "Reference: the baseline (other than the candidate) with the best validation score; the "
        "test set plays no part in the choice.",
        "Divergence: a trial whose loss or output is not finite is counted and shown, and enters "
        "the statistics with the score of a constant prediction.",
        "Statistics: mean paired difference; 95 % bootstrap interval (BCa, "
        f"{statistics.RESAMPLES} resamples), not corrected for the number of comparisons; "
        f"two-sided paired sign-flip permutation test, exact up to {statistics.MAX_EXACT_PAIRS} "
        "seeds, with Holm's correction over the tasks of each candidate; significant below "
        f"{statistics.SIGNIFICANCE}. Each candidate is a question of its own: among several, "
        "chance alone has several tries. The effect is the mean difference in standard deviations "
        "of the paired differences; the probability of improvement is the share of all pairs of "
        "runs in which the candidate's scored higher. Seeds vary weights and batch order, not the "
        "test set.",
        *(
            (
                "Ablation: a candidate that trains parameters of its own is also compared with "
                "its frozen twin, which keeps them as documented and is tuned and trained alike; "
                "Holm's correction is over its tasks.",
            )
            if settings.ablations
            else ()
        ),
        *((_ACROSS,) if len(settings.tasks) > 1 else ()),
        f"Protocol version {PROTOCOL_VERSION}.",
    )
