"""`make_plan`: what an evaluation would cost, before it is run."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

from zeta._errors import UserError
from zeta.evaluate.engines.local import available_cores, prepare_worker
from zeta.evaluate.engines.worker import work
from zeta.evaluate.protocol import Settings, Trial, TrialKey
from zeta.evaluate.store import read_trials
from zeta.evaluate.sweep import Sweep


@dataclass(frozen=True)
class TaskPlan:
    """The trials of one task.

    Attributes:
        task: as it is named on the command line.
        tuning, final: how many trials each phase needs; winners on the grid's edge add some.
        finished: how many of them are in the store.
        together: the most trials that are trained as one.
        seconds: of one trial on one core, its share where several are trained together; None if
            nothing remains to be run.
        memory: the largest resident size of a worker process, in bytes; None as above, or where
            the system does not tell.
        measured: whether ``seconds`` is of a short probe, not of the finished trials.
    """

    task: str
    tuning: int
    final: int
    finished: int
    together: int
    seconds: float | None
    memory: int | None
    measured: bool

    @property
    def remaining(self) -> int:
        """How many trials are to be run."""
        return self.tuning + self.final - self.finished


@dataclass(frozen=True)
class Plan:
    """The trials of an evaluation, with the time and memory that they need on this machine.

    Attributes:
        most_extensions: how many tuning trials winners on the grid's edge can add.
        workers: the processes that run them, one per core.
    """

    tasks: tuple[TaskPlan, ...]
    most_extensions: int
    workers: int

    @property
    def seconds(self) -> float:
        """The expected wall time of all trials, evenly shared, or the longest group's."""
        work = [(t.seconds, t) for t in self.tasks if t.seconds is not None]
        evenly = sum(seconds * task.remaining for seconds, task in work) / self.workers
        longest = (seconds * min(task.together, task.remaining) for seconds, task in work)
        return max(evenly, max(longest, default=0.0))

    @property
    def memory(self) -> int | None:
        """The bytes that the workers take if all of them run the largest task."""
        known = [task.memory for task in self.tasks if task.memory is not None]
        return max(known) * self.workers if known else None


def make_plan(settings: Settings, folder: Path) -> Plan:
    """Count the trials, and measure a few short ones; the folder is read and not written.

    The probe of a task is its first candidate's first group of trials with one and two epochs, in
    a process of its own.

    Args:
        settings: what would be compared.
        folder: where the report would go.

    Raises:
        UserError: whatever the evaluation itself would refuse before training.
    """
    sweep = Sweep(settings)
    trials = {trial.key: trial for trial in read_trials(folder)}
    return Plan(
        tasks=tuple(_plan_task(sweep, task, trials) for task in settings.tasks),
        most_extensions=2 * settings.max_extensions * len(settings.tuning_seeds) * len(sweep.pairs),
        workers=available_cores(),
    )


def _plan_task(sweep: Sweep, task: str, trials: Mapping[TrialKey, Trial]) -> TaskPlan:
    settings = sweep.settings
    pairs = [pair for pair in sweep.pairs if pair[0] == task]
    tuning = [key for pair in pairs for key in sweep.tuning_keys(pair, sweep.steps(pair, trials))]
    tuned = [pair for pair in pairs if not sweep.next_steps(pair, trials)]
    final = [
        key for p in tuned for key in sweep.final_keys(p, sweep.tuning(p, trials).learning_rate)
    ]
    group = sweep.groups(sweep.tuning_keys(pairs[0], settings.grid_steps))[0]
    plan = TaskPlan(
        task=task,
        tuning=len(tuning),
        final=len(pairs) * settings.num_seeds,
        finished=sum(key in trials for key in (*tuning, *final)),
        together=len(group),
        seconds=None,
        memory=None,
        measured=False,
    )
    if not plan.remaining:
        return plan
    seconds, memory = _probe_elsewhere(group)
    timed = [trials[key].timing["seconds"] for key in (*tuning, *final) if key in trials]
    return replace(
        plan, seconds=fmean(timed) if timed else seconds, memory=memory, measured=not timed
    )


def _probe_elsewhere(group: Sequence[TrialKey]) -> tuple[float, int | None]:
    """:func:`_probe` in a fresh process, so that the peak of its memory is the task's."""
    context = get_context("spawn")
    until, alive = context.Pipe(duplex=False)
    with (
        until,
        alive,
        ProcessPoolExecutor(
            1, mp_context=context, initializer=prepare_worker, initargs=(until,)
        ) as pool,
    ):
        try:
            result = pool.submit(_probe, group).result()
        except BrokenProcessPool:
            raise UserError(
                f"a trial of task {group[0].task!r} ended its process, perhaps for want of memory"
            ) from None
        except KeyboardInterrupt:
            alive.close()  # the process ends, and nothing waits for it
            raise
    if isinstance(result, str):
        raise UserError(result)
    return result


def _probe(group: Sequence[TrialKey]) -> tuple[float, int | None] | str:
    """Seconds of one trial of the group, and this process's peak; or why it could not be run."""

    def seconds(epochs: int) -> float | str:
        keys = [replace(key, budget=replace(key.budget, epochs=epochs)) for key in group]
        started = time.perf_counter()
        result = work(keys)
        return result if isinstance(result, str) else time.perf_counter() - started

    times = [seconds(epochs) for epochs in (1, 1, 2)]  # the first loads, imports and compiles
    if problem := next((t for t in times if isinstance(t, str)), None):
        return problem
    _, one, two = (float(t) for t in times)
    further = (group[0].budget.epochs - 1) * max(0.0, two - one)
    return (one + further) / len(group), _peak_memory()


def _peak_memory() -> int | None:
    """The largest resident size of this process so far, in bytes."""
    # On Linux, what `getrusage` gives includes the parent's size at the fork.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if peak := re.search(r"VmHWM:\s*(\d+) kB", status):
            return int(peak[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
