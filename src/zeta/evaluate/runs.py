"""Runs on disk: read their results again, merge several, rebuild the report."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from zeta._errors import UserError
from zeta.evaluate.analyse import analyse
from zeta.evaluate.conform import check_types
from zeta.evaluate.protocol import MOST_SEEDS, Settings, Trial
from zeta.evaluate.results import FORMAT, Results, Run, Shape, TaskInfo, Tuning, short_names
from zeta.evaluate.shapes import GRID
from zeta.evaluate.wording import listing

K = TypeVar("K")
V = TypeVar("V")

# Those of format 3 have no tasks under conditions, and lack nothing else.
_OLDEST_FORMAT = 3
# Settings in which runs that are merged may differ; whatever else decides a trial must agree.
_MERGED = ("candidates", "tasks", "num_seeds", "baselines", "controlled")


def rebuild(folders: Sequence[Path], out: Path) -> Results:
    """The results of finished runs, computed again from their trials; several become one.

    As :func:`merge` does.

    Args:
        folders: each with the ``results.json`` of a run.
        out: the folder of the report to be written.

    Raises:
        UserError: a folder without usable results, or runs that cannot be merged.
    """
    return analyse(merge([(str(folder), read_run(folder)) for folder in folders]), out)


def read_run(folder: Path) -> Run:
    """The run that ``folder/results.json`` holds.

    Raises:
        UserError: there is none, it cannot be read, or it is of another version of Zeta.
    """
    path = folder / "results.json"
    try:
        data = json.loads(path.read_bytes())
        _check_format(path, data)
        return _parse(data)
    except FileNotFoundError:
        raise UserError(
            f"{str(folder)!r} holds no results.json; `zeta evaluate --out {folder}` "
            "writes one once all its trials are finished"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} is damaged ({type(error).__name__}: {error}); the same `zeta evaluate` "
            "command writes it again from the finished trials"
        ) from None


def _check_format(path: Path, data: dict[str, Any]) -> None:
    found = data.get("format", 1)
    check_types(found, int, "format")
    if found > FORMAT:
        raise UserError(
            f"{str(path)!r} was written by a newer Zeta (its format is {found}, this one reads "
            f"{FORMAT}); update Zeta: pip install --upgrade zeta-nn"
        )
    if found < _OLDEST_FORMAT:
        raise UserError(
            f"{str(path)!r} was written by an older Zeta (its format is {found}, this one reads "
            f"{FORMAT}); run the same `zeta evaluate` command again"
        )


def _parse(data: dict[str, Any]) -> Run:
    """The inverse of :meth:`Results.to_json`, for what is not computed from the rest."""
    protocol = data["protocol"]
    run = Run(
        settings=Settings(**_tuples(protocol["settings"])),
        tasks=tuple(TaskInfo(**task) for task in protocol["tasks"]),
        tunings=tuple(
            Tuning(**{**_tuples(tuning), "validation": dict(tuning["validation"])})
            for tuning in data["tuning"]
        ),
        trials=tuple(map(Trial.from_json, data["trials"])),
        shapes=tuple(Shape(**_tuples(shape)) for shape in data["shapes"]),
        environment=data["environment"],
        skipped=protocol["skipped"],
        timing=data["timing"],
    )
    check_types(run, Run, "the run")
    _check_complete(run)
    return run


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_complete(run: Run) -> None:
    """Raise a ValueError unless it is of one piece: every activation has its rates and trials."""
    if tuple(task.source for task in run.tasks) != run.settings.tasks or not run.tasks:
        raise ValueError("the tasks are not those of the settings")
    for info in run.tasks:
        if not 2 <= info.seeds <= MOST_SEEDS:
            raise ValueError(f"there cannot be {info.seeds} seeds")
        if info.test_to_train < 0:
            raise ValueError("test_to_train is negative")
    if missing := {"seconds", "run", "resumed"} - run.timing.keys():
        raise ValueError(f"timing has no {min(missing)!r}")
    pairs = run.settings.pairs
    if sorted((t.task, t.activation) for t in run.tunings) != sorted(pairs):
        raise ValueError("not every activation is tuned once on every task")
    seeds = {task.source: list(run.settings.final_seeds(task.seeds)) for task in run.tasks}
    if any(not set(t.learning_rates) <= set(t.validation) for t in run.tunings):
        raise ValueError("a tuned learning rate was not tried")
    if any(len(t.learning_rates) != len(seeds[t.task]) for t in run.tunings):
        raise ValueError("not every seed has a learning rate")
    metrics = {task.source: task.metric for task in run.tasks}
    if any(metrics.get(t.key.task) != t.metric for t in run.trials):
        raise ValueError("a trial's metric is not its task's")
    for pair in pairs:
        found = [trial.key.seed for trial in run.final_trials(*pair)]
        if found != seeds[pair[0]]:
            raise ValueError(f"{pair[1]!r} on {pair[0]!r} has {len(found)} final trials")
    for shape in run.shapes:
        curves = (shape.values, *shape.learned)
        if shape.activation not in run.settings.activations or any(
            len(curve) != len(GRID) for curve in curves
        ):
            raise ValueError(f"{shape.activation!r} has no usable shape")


def merge(named: Sequence[tuple[str, Run]]) -> Run:
    """One run of several: candidates, baselines and tasks united, seeds intersected.

    Where runs share an activation on a task, the first one's learning rate counts. A task that
    some activation was not run on is left out, and reported as skipped: ranks, averages and
    corrections are of the same tasks for every activation, and the best of three baselines on one
    task is no match for the best of two on another.

    Args:
        named: what to call each run in an error, and the run.

    Raises:
        UserError: protocol, settings, data or formulas differ, or no task has every activation.
    """
    if len(named) == 1:
        return named[0][1]
    _check_compatible(named)
    runs = [run for _, run in named]
    settings = replace(
        runs[0].settings,
        candidates=_united(run.settings.candidates for run in runs),
        tasks=_united(run.settings.tasks for run in runs),
        controlled=_united(run.settings.controlled for run in runs),
        num_seeds=min((n for run in runs if (n := run.settings.num_seeds)), default=None),
        baselines=_united(run.settings.baselines for run in runs),
    )
    tunings = _first({(t.task, t.activation): t for t in run.tunings} for run in runs)
    incomplete = _incomplete(settings, tunings)
    settings = replace(
        settings,
        tasks=tuple(t for t in settings.tasks if t not in incomplete),
        controlled=tuple(t for t in settings.controlled if t not in incomplete),
    )
    if not settings.tasks:
        task, why = next(iter(incomplete.items()))
        raise UserError(
            f"no task was run with every activation, so that nothing can be compared: {task!r} "
            f"is {why}; run what is missing, or merge runs that share a task"
        )
    pairs = settings.pairs
    tasks = _first({t.source: t for t in run.tasks} for run in runs)
    seeds = {
        name: min(t.seeds for r in runs for t in r.tasks if t.source == name) for name in tasks
    }
    tunings = {
        pair: replace(tuning, learning_rates=tuning.learning_rates[: seeds[pair[0]]])
        for pair, tuning in tunings.items()
    }
    skipped = _first(run.skipped for run in runs)
    shapes = _first({s.activation: s for s in run.shapes} for run in runs)
    return Run(
        settings=settings,
        tasks=tuple(replace(tasks[task], seeds=seeds[task]) for task in settings.tasks),
        tunings=tuple(tunings[pair] for pair in pairs),
        trials=_trials(runs, {pair: tunings[pair] for pair in pairs}),
        shapes=tuple(shapes[name] for name in settings.activations if name in shapes),
        environment=_environment(runs),
        skipped={t: why for t, why in skipped.items() if t not in tasks} | incomplete,
        timing={name: round(sum(run.timing[name] for run in runs), 2) for name in runs[0].timing},
    )


def _incomplete(settings: Settings, tunings: Mapping[tuple[str, str], Tuning]) -> dict[str, str]:
    """Each task that some activation was not run on -> which."""
    missing = {
        task: [name for of, name in settings.pairs if of == task and (task, name) not in tunings]
        for task in settings.tasks
    }
    names = short_names(settings.activations)
    return {
        task: f"left out, since no run has it with {listing([names[name] for name in lacking])}"
        for task, lacking in missing.items()
        if lacking
    }


def _check_compatible(named: Sequence[tuple[str, Run]]) -> None:
    """Whatever two runs have in common must be the same thing."""
    kinds: dict[str, Callable[[Run], Mapping[str, object]]] = {
        "protocol version": lambda run: {"": run.trials[0].key.protocol},
        "setting": lambda run: {
            name: value for name, value in asdict(run.settings).items() if name not in _MERGED
        },
        "data of task": lambda run: {task.source: task.data for task in run.tasks},
        "description of task": lambda run: {t.source: replace(t, seeds=0) for t in run.tasks},
        "formula of": lambda run: {t.key.activation: t.key.formula for t in run.trials},
    }
    (first_name, first), *others = named
    known = {kind: dict(read(first)) for kind, read in kinds.items()}
    owner = {(kind, item): first_name for kind, items in known.items() for item in items}
    for name, run in others:
        for kind, read in kinds.items():
            for item, value in read(run).items():
                if known[kind].setdefault(item, value) != value:
                    what = f"{kind} {item!r}" if item else kind
                    raise UserError(
                        f"{owner[kind, item]!r} and {name!r} cannot be merged: the {what} differs"
                    )
                owner.setdefault((kind, item), name)


def _trials(runs: Sequence[Run], tunings: Mapping[tuple[str, str], Tuning]) -> tuple[Trial, ...]:
    """Every trial once; of final ones, those of the seeds and learning rates that count."""
    settings = runs[0].settings
    found = _first({trial.key: trial for trial in run.trials} for run in runs)
    wanted = {
        (*pair, seed, rate)
        for pair, tuning in tunings.items()
        for seed, rate in zip(
            settings.final_seeds(len(tuning.learning_rates)), tuning.learning_rates, strict=True
        )
    }
    return tuple(
        trial
        for key, trial in found.items()
        if (pair := (key.task, key.activation)) in tunings
        and (key.phase == "tuning" or (*pair, key.seed, key.learning_rate) in wanted)
    )


def _environment(runs: Sequence[Run]) -> dict[str, str]:
    """What all runs were done with; where they differ, all of it."""
    labels = _united(run.environment for run in runs)
    found = {
        label: [r.environment[label] for r in runs if label in r.environment] for label in labels
    }
    return {label: "; ".join(dict.fromkeys(values)) for label, values in found.items()}


def _united(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Every item once, in the order of first appearance."""
    return tuple(dict.fromkeys(item for group in groups for item in group))


def _first(mappings: Iterable[Mapping[K, V]]) -> dict[K, V]:
    """United mappings; of equal keys the first one's value."""
    united: dict[K, V] = {}
    for mapping in mappings:
        united |= {key: value for key, value in mapping.items() if key not in united}
    return united
