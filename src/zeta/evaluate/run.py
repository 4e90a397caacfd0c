"""`evaluate`: the whole job in one call."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from zeta._errors import UserError
from zeta.evaluate import tasks as task_registry
from zeta.evaluate.candidates import candidate_name, load_candidate
from zeta.evaluate.device import CPU
from zeta.evaluate.engines import EngineName, make_engine
from zeta.evaluate.plan import Plan, make_plan
from zeta.evaluate.progress import Progress, Silent
from zeta.evaluate.protocol import (
    BASELINES,
    DEFAULT_CANDIDATES,
    DEFAULT_REFERENCE,
    MOST_SEEDS,
    Settings,
    formula_source,
    is_trained,
    learned_name,
)
from zeta.evaluate.results import Results
from zeta.evaluate.study import Study
from zeta.evaluate.tasks.condition import Condition, under
from zeta.load_formula import one_spelling

# What may be asked for -> the condition that it is; the first is the usual one.
_INITS: dict[str, Condition | None] = {"default": None, "matched": "matched"}
_BUDGETS: dict[str, Condition | None] = {"1": None, "4": "4x"}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation; the message says what is kept."""


def evaluate(
    activations: Iterable[str] = (),
    tasks: Iterable[str] = (),
    *,
    learn: bool = False,
    baselines: Iterable[str] = (),
    num_seeds: int | None = None,
    reference: str = DEFAULT_REFERENCE,
    rope: float | None = None,
    init: Iterable[str] = ("default",),
    budget: Iterable[int | str] = (1,),
    quick: bool = False,
    out: str | Path = "zeta-report",
    engine: EngineName = "local",
    address: str | None = None,
    device: str = CPU,
    tensorboard: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Compare activations with silu, and with relu and gelu, on real data; write a report.

    Finished trials are kept in ``out/trials``: the same call again resumes. Worker processes are
    spawned, so a script needs the usual ``if __name__ == "__main__":``.

    Args:
        activations: the candidates, by catalogue name or ``"path/to/file.py:name"``; by default
            the three of the documents. What a formula marks as learnable is trained; of any other,
            ``"NAME (learned)"`` trains the parameters, and ``"NAME (frozen)"`` keeps them.
        learn: have every candidate train its parameters.
        baselines: the rivals, named as candidates are; by default relu, gelu and silu.
        tasks: by name or ``"path/to/file.py:name"``; by default all whose data are installed
            but for those that take minutes, or three small ones if quick.
        num_seeds: final trials per activation and task, 2 to 1000; by default 20 where trials
            train together and 10 on the other tasks, or 3 if quick.
        reference: the activation that candidates are compared with, named as they are; where it
            is a candidate itself, its own is relu.
        rope: w: differences within [-w, w] are of no practical importance; by default 0.01 of an
            accuracy, 0.02 of R² or a log-likelihood.
        init: with "matched" beside "default", every task is run once more with variance-preserving
            initialisation, and verdicts say whether they depend on it.
        budget: with 4 beside 1, every task is run once more with four times the epochs, a learning
            rate that falls to 0, and validation stopping, and verdicts say whether they depend on
            it. Conditions are not combined.
        quick: a look of a few seconds, too small to conclude from.
        out: the folder for ``report.html``, ``results.json`` and ``trials/``.
        engine: "local", this machine's cores, or "ray", a cluster.
        address: of the Ray cluster, ``host:port``; by default the one that runs here, or else a
            new one.
        device: where trials train, as PyTorch names it: "cpu", "cuda". Their keys and the store do
            not tell devices apart, since their results differ by rounding alone.
        tensorboard: a folder for TensorBoard's event files.
        progress: told of every finished trial.

    Raises:
        UserError: an unknown name, an unusable file, nothing to learn, too few or too many seeds,
            no baseline, a negative ``rope``, an unknown condition or one that a task cannot be run
            under, a task whose data are not installed, an address
            without a cluster, a device that is not here, or a folder that cannot be written to or
            is in use, all found before any training; also a full disk, or workers lost for good.
        Interrupted: Ctrl-C.
    """
    progress = progress or Silent()
    settings, skipped = make_settings(
        activations,
        tasks,
        num_seeds,
        quick,
        learn,
        baselines,
        reference=reference,
        rope=rope,
        init=init,
        budget=budget,
    )
    if tensorboard is not None:
        from zeta.evaluate.tensorboard import TensorBoard

        names = (*settings.activations, *settings.tasks)
        progress = TensorBoard(Path(tensorboard), names, progress)
    with make_engine(engine, address, device) as workers:
        study = Study(settings, Path(out), workers, progress, skipped)
        try:
            return study.run()
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {study.finished} trials are finished and kept in "
                f"{study.folder / 'trials'}; the same command resumes"
            ) from None


def plan(
    activations: Iterable[str] = (),
    tasks: Iterable[str] = (),
    *,
    learn: bool = False,
    baselines: Iterable[str] = (),
    num_seeds: int | None = None,
    reference: str = DEFAULT_REFERENCE,
    rope: float | None = None,
    init: Iterable[str] = ("default",),
    budget: Iterable[int | str] = (1,),
    quick: bool = False,
    out: str | Path = "zeta-report",
    device: str = CPU,
    progress: Progress | None = None,
) -> Plan:
    """What :func:`evaluate` with these arguments would run; the time and memory are measured.

    Nothing is written. Worker processes are spawned, so a script needs the usual
    ``if __name__ == "__main__":``.

    Args:
        progress: told of each task that is measured; the others are those of :func:`evaluate`.

    Raises:
        UserError: whatever :func:`evaluate` would refuse before training; also seeds too few to
            find anything in so many comparisons, unless ``quick``.
    """
    settings, skipped = make_settings(
        activations,
        tasks,
        num_seeds,
        quick,
        learn,
        baselines,
        reference=reference,
        rope=rope,
        init=init,
        budget=budget,
    )
    return make_plan(settings, Path(out), skipped, device, progress)


def make_settings(
    activations: Iterable[str],
    tasks: Iterable[str],
    num_seeds: int | None,
    quick: bool,
    learn: bool = False,
    baselines: Iterable[str] = (),
    *,
    reference: str = DEFAULT_REFERENCE,
    rope: float | None = None,
    init: Iterable[str] = ("default",),
    budget: Iterable[int | str] = (1,),
) -> tuple[Settings, dict[str, str]]:
    """The settings of a default or a quick run, and task -> why it is left out.

    Raises:
        UserError: too few or too many seeds, a region of practical equivalence of no size, no task
            whose data are installed, an unknown condition or one that a task which was asked for
            cannot be run under, or an activation that cannot be loaded or has no parameters to
            learn.
    """
    asked = tuple(map(candidate_name, activations)) or DEFAULT_CANDIDATES
    candidates = tuple(dict.fromkeys(_full_name(name, learn) for name in asked))
    default = tuple(name for name in task_registry.TASKS if name not in task_registry.SLOW)
    usual = task_registry.QUICK if quick else default
    named = tuple(dict.fromkeys(map(one_spelling, tasks)))
    names, skipped = _available(named, usual)
    variants, impossible = _variants(names, _conditions(init, budget), required=bool(named))
    if rope is not None and not 0 <= rope < math.inf:
        raise UserError(f"rope must be a number from 0 up, got {rope:g}")
    plain = _settings(candidates, variants, num_seeds, quick)
    own = plain.own_tasks
    settings = replace(
        plain,
        baselines=_rivals(candidates, baselines),
        reference=_full_name(candidate_name(reference), learn=False),
        rope=rope,
        # Where trials train together a control costs little.
        controlled=tuple(n for n in own if not quick and task_registry.get(n).together > 1),
    )
    return settings, skipped | impossible


def _conditions(init: Iterable[str], budget: Iterable[int | str]) -> list[Condition]:
    """The conditions beside the usual one.

    Raises:
        UserError: an unknown one, or none that verdicts could be compared with.
    """
    found = list[Condition]()
    for option, known, asked in (("init", _INITS, init), ("budget", _BUDGETS, budget)):
        names = list(dict.fromkeys(map(str, asked)))
        usual = next(iter(known))
        if unknown := [name for name in names if name not in known]:
            accepted = " and ".join(known)
            raise UserError(f"{option} must be of {accepted}, got {unknown[0]!r}")
        if usual not in names:
            raise UserError(
                f"{option} must have {usual} among its values, with which the others are compared"
            )
        found += [condition for name in names if (condition := known[name])]
    return found


def _variants(
    names: Sequence[str], conditions: Sequence[Condition], required: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Every task, and after it the task under each condition; those that cannot be, with why.

    Args:
        required: whether the tasks were asked for.

    Raises:
        UserError: one that was cannot be run under a condition.
    """
    tasks, impossible = list[str](), dict[str, str]()
    for name in names:
        tasks.append(name)
        for variant in (under(name, condition) for condition in conditions):
            try:
                task_registry.get(variant)
                tasks.append(variant)
            except UserError as error:
                if required:
                    raise
                impossible[variant] = str(error)
    return tuple(dict.fromkeys(tasks)), impossible


def _rivals(candidates: tuple[str, ...], asked: Iterable[str]) -> tuple[str, ...]:
    """The baselines, of which every candidate needs one that is not itself."""
    named = dict.fromkeys(_full_name(candidate_name(name), learn=False) for name in asked)
    rivals = tuple(named) or BASELINES
    if alone := [candidate for candidate in candidates if {candidate} == {*rivals}]:
        raise UserError(f"{alone[0]!r} has no other baseline than itself; name another")
    return rivals


def _full_name(name: str, learn: bool) -> str:
    """An activation's name as the protocol has it, which says whether it trains its parameters.

    Raises:
        UserError: it cannot be loaded, or is to learn and has no parameters.
    """
    source = formula_source(name)
    formula = load_candidate(name)
    if not learn and not is_trained(name) and (name != source or not formula.learnable):
        return name
    if not formula.parameters:
        raise UserError(f"{source!r} has no parameters to learn; evaluate it without --learn")
    return learned_name(source)


def _available(
    asked: tuple[str, ...], usual: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The tasks to be run, of the usual ones those whose data are there; why the others are not.

    Raises:
        UserError: a task that was asked for lacks its data, or none is left.
    """
    missing = {name: task_registry.get(name).missing() for name in asked or usual}
    skipped = {name: reason for name, reason in missing.items() if reason}
    if asked and skipped:
        raise UserError(next(f"task {name!r}: {reason}" for name, reason in skipped.items()))
    if len(skipped) == len(missing):
        raise UserError(f"no task can be run: {'; '.join(skipped.values())}")
    return tuple(name for name in missing if name not in skipped), skipped


def _settings(
    candidates: tuple[str, ...], names: tuple[str, ...], num_seeds: int | None, quick: bool
) -> Settings:
    seeds = 3 if quick and num_seeds is None else num_seeds
    if seeds is not None and seeds < 2:
        raise UserError(f"seeds must be at least 2 for paired statistics, got {seeds}")
    if seeds is not None and seeds > MOST_SEEDS:
        raise UserError(f"seeds must be at most {MOST_SEEDS}, got {seeds}")
    if not quick:
        return Settings(candidates, names, seeds)
    return Settings(
        candidates,
        names,
        seeds,
        tuning_seeds=(0,),
        grid_steps=(-6, -5, -4),
        max_extensions=1,
        epoch_divisor=5,
        quick=True,
    )
