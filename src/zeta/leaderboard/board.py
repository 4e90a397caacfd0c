"""`Board`: how every entry did in every round, and the file that keeps it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zeta._errors import UserError
from zeta.evaluate import statistics
from zeta.evaluate.across import LINEAR_DOES_AS_WELL, task_scales
from zeta.evaluate.compare import decide, score_trials
from zeta.evaluate.conform import check_types
from zeta.evaluate.pooling import Pooled, pool, shrink
from zeta.evaluate.protocol import PROTOCOL_VERSION, Trial
from zeta.evaluate.results import Score, TaskInfo, Tuning, Verdict
from zeta.evaluate.statistics import Array, Estimate
from zeta.evaluate.store import write_atomically
from zeta.leaderboard.rounds import Round

__all__ = ["Board", "Cell", "Cost", "Entry", "Played", "Standings", "play", "read_board"]

# Raise it with any change that makes older readers misread the file.
FORMAT = 1
FILE = "leaderboard.json"
# Rates whose validation score is within this of the best, on the common scale, do as well.
_AS_GOOD = 0.02
_DECADES_PER_RATE = 0.5


@dataclass(frozen=True)
class Cell:
    """An entry on a task of a round.

    Attributes:
        mean, sd: of its test scores, in the task's metric.
        learning_rate: the usual one.
        width: over how many decades of learning rates it does about as well as at the best.
        diverged: the share of its trials, tuning ones included.
        effect: mean difference to the reference with its 95 % interval by the corrected t, on the
            common scale: 0 is the constant prediction, 1 the reference. A trial below the constant
            counts as the constant.
    """

    task: str
    mean: float
    sd: float
    learning_rate: float
    width: float
    diverged: float
    effect: Estimate


@dataclass(frozen=True)
class Entry:
    """An entry in a round.

    Attributes:
        cells: of the tasks that it was run on.
        mean: its random-effects mean difference to the reference over data sets; of a single one
            the mean over its splits.
        shrunken: that drawn towards the entries' median, the more the less sure it is.
        p_adjusted: that the mean is 0, by Benjamini and Hochberg over the round's entries.
        verdict: of the mean.
    """

    activation: str
    cells: tuple[Cell, ...]
    mean: Estimate
    shrunken: Estimate
    p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Played:
    """A round that was run.

    Attributes:
        tasks: task -> what it is.
        selects: whether entries are placed by it; not where it ranks none.
        left_out: task -> why it is not in the means.
        entries: best first, by the shrunken mean; the reference stands where its 0 does.
    """

    name: str
    title: str
    selects: bool
    seeds: int
    tasks: dict[str, str]
    left_out: dict[str, str]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Cost:
    """What a step costs, beside the reference.

    Attributes:
        time: of value and gradients, in those of the reference.
        saved: bytes that autograd keeps for each element.
    """

    time: float
    saved: float


@dataclass(frozen=True)
class Standings:
    """A division's rounds.

    Attributes:
        costs: entry -> its cost.
        shapes: entry -> its values on ``zeta.evaluate.shapes.GRID``; None where not finite.
    """

    name: str
    reference: str
    kept: tuple[str, ...]
    rounds: tuple[Played, ...]
    costs: dict[str, Cost] = field(default_factory=dict)
    shapes: dict[str, tuple[float | None, ...]] = field(default_factory=dict)

    @property
    def placed(self) -> list[tuple[Played, Entry]]:
        """Every entry in the last selecting round that it reached, best first."""
        found: dict[str, tuple[Played, Entry]] = {}
        for played in reversed([p for p in self.rounds if p.selects]):
            for entry in played.entries:
                found.setdefault(entry.activation, (played, entry))
        return list(found.values())

    def in_round(self, name: str, activation: str) -> Entry | None:
        """An entry of a round; None if either was not there."""
        entries = (e for p in self.rounds if p.name == name for e in p.entries)
        return next((e for e in entries if e.activation == activation), None)


@dataclass(frozen=True)
class Board:
    """All divisions, and where and how long they were run."""

    divisions: tuple[Standings, ...]
    environment: dict[str, str]
    skipped: dict[str, str]
    seconds: float
    protocol: int = PROTOCOL_VERSION
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write ``leaderboard.json``, whole or not at all.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            data = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
            write_atomically(folder / FILE, data)
        except OSError as error:
            raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error


def read_board(path: Path) -> Board:
    """The board that a file holds.

    Raises:
        FileNotFoundError: there is none.
        UserError: it cannot be read, or is of another version.
    """
    try:
        data = json.loads(path.read_bytes())
        found = data["format"], data["protocol"]
        if found != (FORMAT, PROTOCOL_VERSION):
            raise UserError(
                f"{str(path)!r} is a leaderboard of format {found[0]}, protocol {found[1]}; this "
                f"version has {FORMAT} and {PROTOCOL_VERSION}: choose another folder with --out"
            )
        board = _board(data)
        check_types(board, Board, "the leaderboard")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{str(path)!r} holds no leaderboard ({type(error).__name__}: {error}); delete it, and "
            "the same command writes it again from the finished trials"
        ) from None
    return board


def _board(data: dict[str, Any]) -> Board:
    return Board(**data | {"divisions": tuple(map(_standings, data["divisions"]))})


def _standings(data: dict[str, Any]) -> Standings:
    return Standings(
        **data
        | {
            "kept": tuple(data["kept"]),
            "rounds": tuple(map(_played, data["rounds"])),
            "costs": {name: Cost(**cost) for name, cost in data["costs"].items()},
            "shapes": {name: tuple(values) for name, values in data["shapes"].items()},
        }
    )


def _played(data: dict[str, Any]) -> Played:
    return Played(**data | {"entries": tuple(map(_entry, data["entries"]))})


def _entry(data: dict[str, Any]) -> Entry:
    cells = (Cell(**cell | {"effect": Estimate(**cell["effect"])}) for cell in data["cells"])
    estimates = {name: Estimate(**data[name]) for name in ("mean", "shrunken")}
    return Entry(**data | estimates | {"cells": tuple(cells), "verdict": Verdict(data["verdict"])})


def play(
    of: Round,
    reference: str,
    tasks: Sequence[TaskInfo],
    tunings: Sequence[Tuning],
    trials: Sequence[Trial],
) -> Played:
    """What the finished trials of a round say.

    Args:
        tasks: those that were run.
        tunings: of every entry and the reference on each.
        trials: all of them.
    """
    by_pair: dict[tuple[str, str], list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.key.seed):
        by_pair.setdefault((trial.key.task, trial.key.activation), []).append(trial)
    infos = {task.source: task for task in tasks}
    scores = {
        (t.task, t.activation): score_trials(infos[t.task], t, _finals(by_pair, t)) for t in tunings
    }
    scales = task_scales(tasks, tunings, scores, (reference,))
    cells: dict[str, list[Cell]] = {}
    errors: dict[tuple[str, str], float] = {}
    for tuning in tunings:
        pair = tuning.task, tuning.activation
        if tuning.task in scales:
            rival = scores[tuning.task, reference]
            found = _paired(scores[pair], rival, infos[tuning.task], scales[tuning.task])
            errors[pair] = found.error
            cell = _cell(scores[pair], tuning, by_pair[pair], scales[tuning.task][1], found)
            cells.setdefault(tuning.activation, []).append(cell)
    datasets = {task.source: task.dataset for task in tasks}
    entries = _entries(cells, errors, datasets, reference)
    return Played(
        name=of.name,
        title=of.title,
        selects=of.selects and bool(entries),
        seeds=of.num_seeds,
        tasks={task.source: task.title for task in tasks},
        left_out={
            name: f"{reference} is not clearly better than a constant prediction"
            if task.tells_apart
            else LINEAR_DOES_AS_WELL
            for name, task in infos.items()
            if name not in scales
        },
        entries=entries,
    )


def _finals(by_pair: Mapping[tuple[str, str], Sequence[Trial]], tuning: Tuning) -> list[Trial]:
    found = by_pair[tuning.task, tuning.activation]
    return [trial for trial in found if trial.key.phase == "final"]


def _paired(
    score: Score, rival: Score, task: TaskInfo, scale: tuple[float, float]
) -> statistics.PairedSummary:
    """Of the differences to the reference, on the common scale."""
    zero, factor = scale
    ours, theirs = (np.maximum(0.0, factor * (np.array(s.values) - zero)) for s in (score, rival))
    return statistics.summarise((ours - theirs).tolist(), task.test_to_train)


def _cell(
    score: Score,
    tuning: Tuning,
    trials: Sequence[Trial],
    factor: float,
    found: statistics.PairedSummary,
) -> Cell:
    best = max(tuning.validation.values())
    as_good = [v for v in tuning.validation.values() if factor * (best - v) <= _AS_GOOD]
    return Cell(
        task=score.task,
        mean=_short(score.mean),
        sd=_short(score.sd),
        learning_rate=score.learning_rate,
        width=_DECADES_PER_RATE * len(as_good),
        diverged=sum(trial.status == "diverged" for trial in trials) / len(trials),
        effect=_short_estimate(Estimate(found.mean, found.low, found.high)),
    )


def _entries(
    cells: Mapping[str, Sequence[Cell]],
    errors: Mapping[tuple[str, str], float],
    datasets: Mapping[str, str],
    reference: str,
) -> tuple[Entry, ...]:
    """Best first; none where no task has a scale."""
    if not cells:
        return ()
    pooled = {
        name: _pooled(of_one, [errors[cell.task, name] for cell in of_one], datasets)
        for name, of_one in cells.items()
        if name != reference
    }
    adjusted = statistics.benjamini_hochberg([p.p_value for p in pooled.values()])
    p_values = dict(zip(pooled, adjusted, strict=True)) | {reference: 1.0}
    means = {name: p.mean for name, p in pooled.items()} | {reference: Estimate(0.0, 0.0, 0.0)}
    effects_IK = _by_dataset(cells, datasets)
    several = effects_IK.shape[1] > 1
    shrunken = shrink(effects_IK) if several else [means[name] for name in cells]
    found = [
        Entry(
            activation=name,
            cells=tuple(of_one),
            mean=_short_estimate(means[name]),
            shrunken=_short_estimate(towards),
            p_adjusted=_short(p_values[name]),
            verdict=decide(means[name].value, p_values[name], 1.0),
        )
        for (name, of_one), towards in zip(cells.items(), shrunken, strict=True)
    ]
    return tuple(sorted(found, key=lambda entry: (-entry.shrunken.value, -entry.mean.value)))


def _by_dataset(cells: Mapping[str, Sequence[Cell]], datasets: Mapping[str, str]) -> Array:
    """Mean effects (entries, data sets); NaN where an entry has no cell."""
    names = list(dict.fromkeys(datasets[cell.task] for of_one in cells.values() for cell in of_one))
    found = np.full((len(cells), len(names)), np.nan)
    for i, of_one in enumerate(cells.values()):
        for k, name in enumerate(names):
            effects = [cell.effect.value for cell in of_one if datasets[cell.task] == name]
            if effects:
                found[i, k] = np.mean(effects)
    return found


def _pooled(cells: Sequence[Cell], errors: Sequence[float], datasets: Mapping[str, str]) -> Pooled:
    """Over data sets; a single one says nothing of others: its interval is of its splits."""
    names, effects = [datasets[c.task] for c in cells], [c.effect.value for c in cells]
    if len(set(names)) > 1:
        return pool(names, effects, errors)
    bounds = ([getattr(c.effect, name) for c in cells] for name in ("value", "low", "high"))
    return Pooled(Estimate(*(float(np.mean(of_tasks)) for of_tasks in bounds)), 1.0, 0.0, {}, {})


def _short_estimate(found: Estimate) -> Estimate:
    return Estimate(*(_short(v) for v in (found.value, found.low, found.high)))


def _short(value: float) -> float:
    """Digits enough for a page."""
    return float(f"{value:.5g}")
