"""`evaluate`: the whole job in one call."""

from collections.abc import Iterable
from pathlib import Path

from zeta._errors import UserError
from zeta.evaluate import tasks as task_registry
from zeta.evaluate.engine import LocalEngine
from zeta.evaluate.protocol import DEFAULT_CANDIDATES, Settings
from zeta.evaluate.results import Results
from zeta.evaluate.study import Progress, Silent, Study


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation; the message says what is kept."""


def evaluate(
    activations: Iterable[str] = (),
    tasks: Iterable[str] = (),
    *,
    num_seeds: int | None = None,
    quick: bool = False,
    out: str | Path = "zeta-report",
    progress: Progress | None = None,
) -> Results:
    """Compare activations with relu, gelu and silu on real data, and write a report.

    Finished trials are kept in ``out/trials``: the same call again resumes. Worker processes are
    spawned, so a script needs the usual ``if __name__ == "__main__":``.

    Args:
        activations: the candidates, by catalogue name or ``"path/to/file.py:name"``; by default
            the three of the documents.
        tasks: by name or ``"path/to/file.py:name"``; by default all three.
        num_seeds: final trials per activation and task, at least 2; by default 10, or 3 if quick.
        quick: a look of a few seconds, too small to conclude from.
        out: the folder for ``report.html``, ``results.json`` and ``trials/``.
        progress: told of every finished trial.

    Raises:
        UserError: an unknown name, an unusable file, too few seeds, or an unwritable folder, all
            found before any training.
        Interrupted: Ctrl-C.
    """
    progress = progress or Silent()
    settings = make_settings(activations, tasks, num_seeds, quick)
    with LocalEngine() as engine:
        study = Study(settings, Path(out), engine, progress)
        try:
            return study.run()
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted: {study.finished} trials are finished and kept in "
                f"{study.folder / 'trials'}; the same command resumes"
            ) from None


def make_settings(
    activations: Iterable[str], tasks: Iterable[str], num_seeds: int | None, quick: bool
) -> Settings:
    """The settings of a default or a quick run.

    Raises:
        UserError: fewer than two seeds.
    """
    candidates = tuple(dict.fromkeys(activations)) or DEFAULT_CANDIDATES
    names = tuple(dict.fromkeys(tasks)) or tuple(task_registry.TASKS)
    seeds = (3 if quick else 10) if num_seeds is None else num_seeds
    if seeds < 2:
        raise UserError(f"seeds must be at least 2 for paired statistics, got {seeds}")
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
