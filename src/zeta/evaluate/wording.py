"""The verdict and the protocol in plain words."""

from collections.abc import Sequence

from zeta.evaluate import statistics
from zeta.evaluate.protocol import BASELINES, PROTOCOL_VERSION, Settings
from zeta.evaluate.results import Comparison, Conclusion, Verdict, short_names
from zeta.evaluate.tasks.task import TEST_FRACTION, VALIDATION_FRACTION

SCOPE = (
    "This holds for small networks and one fixed test set of each task; it is no statement about "
    "other data, deeper networks or longer training."
)
QUICK = "This was a quick look, too small to conclude from; run again without --quick."


def conclude(settings: Settings, comparisons: Sequence[Comparison]) -> Conclusion:
    """The verdict over all candidates and tasks.

    Args:
        comparisons: every candidate on every task.
    """
    names = short_names((*settings.activations, *settings.tasks))
    sentences = {
        candidate: _candidate([c for c in comparisons if c.candidate == candidate], names)
        for candidate in settings.candidates
    }
    parts = [_overall(settings, comparisons, names), _divergence(comparisons, names)]
    parts.append(QUICK if settings.quick else SCOPE)
    return Conclusion(_headline(comparisons, names), " ".join(filter(None, parts)), sentences)


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


def _headline(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    found = {c.verdict for c in comparisons}
    if len(found) == 1 and not found & {Verdict.BETTER, Verdict.WORSE}:
        return found.pop().capitalize()
    parts = []
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        by_task: dict[str, list[str]] = {}
        for c in _of(comparisons, verdict):
            by_task.setdefault(names[c.task], []).append(names[c.candidate])
        cases = [f"{listing(candidates)} on {task}" for task, candidates in by_task.items()]
        parts += [f"{verdict.capitalize()}: {'; '.join(cases)}"] if cases else []
    return ". ".join(parts)


def _overall(settings: Settings, comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    size = (
        f"{_count(settings.num_seeds, 'paired seed')} and {_count(len(comparisons), 'comparison')}"
    )
    if comparisons[0].verdict is Verdict.TOO_FEW:
        return (
            f"With {size}, even the clearest outcome could not reach significance: "
            "the figures below are a first impression and no result."
        )
    rivals = listing(BASELINES)
    clear = [c for c in comparisons if c.verdict is not Verdict.SAME]
    if not clear:
        return (
            f"With learning rates tuned alike, {size}, no candidate did measurably better or "
            f"worse than the best of {rivals}. That is a result: if there is a difference, it is "
            "smaller than these trials can show; the intervals say how small."
        )
    same = len(comparisons) - len(clear)
    rest = f" No difference found in the other {_count(same, 'comparison')}." if same else ""
    better, worse = (len(_of(clear, verdict)) for verdict in (Verdict.BETTER, Verdict.WORSE))
    return (
        f"With learning rates tuned alike, {size} against the best of {rivals}, "
        f"candidates were measurably better in {better} and worse in {worse}.{rest}"
    )


def _candidate(comparisons: Sequence[Comparison], names: dict[str, str]) -> str:
    """One candidate's sentence: what is clear first, with figures; then the rest."""
    parts = [
        _difference(c, names) for c in comparisons if c.verdict in (Verdict.BETTER, Verdict.WORSE)
    ]
    for verdict in (Verdict.SAME, Verdict.TOO_FEW):
        tasks = [names[c.task] for c in _of(comparisons, verdict)]
        parts += [f"{verdict} on {listing(tasks)}"] if tasks else []
    return "; ".join(parts)


def _difference(c: Comparison, names: dict[str, str]) -> str:
    return (
        f"{c.verdict} than {names[c.reference]} on {names[c.task]} "
        f"({signed(c.mean)}, 95 % interval {signed(c.low)} to {signed(c.high)})"
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def describe_protocol(settings: Settings) -> tuple[str, ...]:
    """The rules that were followed, one sentence or two each."""
    tuning = _count(len(settings.tuning_seeds), "tuning seed")
    comparisons = len(settings.candidates) * len(settings.tasks)
    return (
        f"Data: {percent(TEST_FRACTION)} of each data set is a fixed test set, the same in every "
        "trial; the rest is development data. Features (and regression targets) are standardised "
        "by the training rows.",
        "Network: two hidden layers, PyTorch's default initialisation for every activation, Adam "
        "with a constant learning rate, float32. Only learnable_selu_variation trains parameters "
        "of its own, starting from the documented values; all others keep theirs.",
        f"Tuning: every learning rate of the grid with {tuning}, scored on validation data "
        f"({percent(VALIDATION_FRACTION)} of the development data, drawn by seed); the same grid "
        "and budget for every activation. The best mean wins, ties go to the rate nearest the "
        f"middle of the grid. A winner on the grid's edge extends it by one step, at most "
        f"{settings.max_extensions}× on each side.",
        f"Final: {_count(settings.num_seeds, 'fresh seed')}, trained on all development data with "
        "the tuned learning rate; the test set is scored once per trial.",
        "Pairing: for one task and seed, every activation sees the same split, the same batches "
        "in the same order and the same initial weights.",
        "Reference: the baseline (other than the candidate) with the best validation score; the "
        "test set plays no part in the choice.",
        "Divergence: a trial whose loss or output is not finite is counted and shown, and enters "
        "the statistics with the score of a constant prediction.",
        "Statistics: mean paired difference; 95 % bootstrap interval (BCa, "
        f"{statistics.RESAMPLES} resamples), not corrected for the number of comparisons; "
        "two-sided paired sign-flip permutation test, exact up to 16 seeds, with Holm's "
        f"correction over {_count(comparisons, 'comparison')}; significant below "
        f"{statistics.SIGNIFICANCE}. Seeds vary weights and batch order, not the test set.",
        f"Protocol version {PROTOCOL_VERSION}.",
    )
