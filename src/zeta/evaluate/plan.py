"""`make_plan`: what an evaluation would cost, before it is run."""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

from zeta._errors import UserError
from zeta.evaluate import statistics
from zeta.evaluate.device import CPU, check_device
from zeta.evaluate.engines.local import available_cores, prepare_worker
from zeta.evaluate.engines.worker import trials_of, work
from zeta.evaluate.progress import Progress, Silent
from zeta.evaluate.protocol import Settings, Trial, TrialKey, half_decade, is_trained
from zeta.evaluate.store import read_trials
from zeta.evaluate.sweep import Pair, Sweep

# Of the trials that winners on the grid's edge can add, the share that they do: in a run of all
# tasks it was a twentieth, in a quick one a sixth.
_EXTENSIONS = 0.1


@dataclass(frozen=True)
class TaskPlan:
    """The trials of one task.

    Attributes:
        task: as it is named on the command line.
        tuning, final: how many trials each phase needs; winners on the grid's edge add some.
        finished: how many of them are in the store.
        together: the most trials that are trained as one.
        seconds: of one trial on one core, its share where several are trained together; the mean
            of the trials that remain, None if there are none.
        first: how much longer a worker takes over its first trials, which load the data.
        memory: the largest resident size of a worker process, in bytes; None as above, or where
            the system does not tell.
        measured: whether ``seconds`` is of a short probe, not of the finished trials.
        detectable: the difference that is found with 80 %, in standard deviations of the paired
            differences, if it is the only one of all comparisons.
        tells_apart: whether it has a part in what the tasks say together.
    """

    task: str
    tuning: int
    final: int
    finished: int
    together: int
    seconds: float | None
    memory: int | None
    measured: bool
    detectable: float
    first: float = 0.0
    tells_apart: bool = True

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
        comparisons: with the reference; one family.
        start: the seconds until a worker is ready; the report takes as long again.
        skipped: task -> why it is left out, with what to install.
        under_conditions: comparisons on variants of tasks; another family.
    """

    tasks: tuple[TaskPlan, ...]
    most_extensions: int
    workers: int
    comparisons: int
    start: float = 0.0
    skipped: Mapping[str, str] = field(default_factory=dict)
    under_conditions: int = 0

    @property
    def seconds(self) -> float:
        """The wall time to be expected of the workers' start, of all trials, and of the report."""
        work = [(t.seconds, t) for t in self.tasks if t.seconds is not None]
        if not work:
            return self.start
        trials = sum(task.remaining for _, task in work)
        more = 1 + _EXTENSIONS * self.most_extensions / trials
        evenly = more * sum(seconds * task.remaining for seconds, task in work) / self.workers
        longest = max(seconds * min(task.together, task.remaining) for seconds, task in work)
        first = [task.first for _, task in work]
        # PyTorch's own first steps are in all of them, and are taken once.
        loading = sum(first) - (len(first) - 1) * min(first)
        return 2 * self.start + loading + max(evenly, longest)

    @property
    def memory(self) -> int | None:
        """The bytes that the workers take if all of them run the largest task."""
        known = [task.memory for task in self.tasks if task.memory is not None]
        return max(known) * self.workers if known else None


def make_plan(
    settings: Settings,
    folder: Path,
    skipped: Mapping[str, str] | None = None,
    device: str = CPU,
    progress: Progress | None = None,
) -> Plan:
    """Count the trials, and measure a few short ones; the folder is read and not written.

    The probe of a task are groups of trials with one and two epochs, in a process of its own: the
    first candidate's, tuning and final, and one of an activation that trains its parameters, if
    the candidate does not, or else of one that does not. As many tasks are probed side by side as
    there are cores, since trials that run so slow each other down.

    Args:
        settings: what would be compared.
        folder: where the report would go.
        skipped: task -> why it is left out.
        device: where the trials would train.
        progress: told of each task that is measured.

    Raises:
        UserError: whatever the evaluation itself would refuse before training, or seeds too few
            to find anything.
    """
    check_device(device)
    sweep = Sweep(settings)
    _check_seeds(sweep)
    trials = {trial.key: trial for trial in read_trials(folder)}
    counts = [_count(sweep, task, trials) for task in settings.tasks]
    open_ = [task for task in counts if task.remaining]
    workers = available_cores()
    samples = [_sample(sweep, task.task) for task in open_]
    found = _probe_all(samples, device, workers, progress or Silent())
    probes = {task.task: probe for task, probe in zip(open_, found, strict=True)}
    return Plan(
        tasks=tuple(_timed(sweep, task, probes.get(task.task), trials) for task in counts),
        most_extensions=2 * settings.max_extensions * len(settings.tuning_seeds) * len(sweep.pairs),
        workers=workers,
        comparisons=len(settings.candidates) * len(settings.own_tasks),
        start=max((probe.start for probe in probes.values()), default=0.0),
        skipped=dict(skipped or {}),
        under_conditions=len(settings.candidates) * len(settings.variants),
    )


def _comparisons(settings: Settings, task: str) -> int:
    """The size of the family that a task's comparisons are in."""
    family = settings.variants if task in settings.variants else settings.own_tasks
    return len(settings.candidates) * len(family)


def _check_seeds(sweep: Sweep) -> None:
    """Refuse what cannot find anything; a quick look says so itself.

    Raises:
        UserError: too few seeds for so many comparisons.
    """
    for name, info in {} if sweep.settings.quick else sweep.infos.items():
        comparisons = _comparisons(sweep.settings, name)
        if not statistics.enough_seeds(info.seeds, info.test_to_train, comparisons):
            needed = statistics.fewest_seeds(info.test_to_train, comparisons)
            raise UserError(
                f"with {info.seeds} seeds on task {name!r} and {comparisons} comparisons in all, "
                f"hardly anything could be found; {needed} seeds would do (--seeds {needed})"
            )


def _count(sweep: Sweep, task: str, trials: Mapping[TrialKey, Trial]) -> TaskPlan:
    """How many trials a task needs; what they take is not known yet."""
    pairs, info = _pairs(sweep, task), sweep.infos[task]
    tuning, final = _keys(sweep, pairs, trials)
    return TaskPlan(
        task=task,
        tuning=len(tuning),
        final=len(pairs) * info.seeds,
        finished=sum(key in trials for key in (*tuning, *final)),
        together=max(map(len, _sample(sweep, task))),
        seconds=None,
        memory=None,
        measured=False,
        detectable=statistics.detectable(
            info.seeds, info.test_to_train, _comparisons(sweep.settings, task)
        ),
        tells_apart=info.tells_apart,
    )


def _pairs(sweep: Sweep, task: str) -> list[Pair]:
    return [pair for pair in sweep.pairs if pair[0] == task]


def _keys(
    sweep: Sweep, pairs: Sequence[Pair], trials: Mapping[TrialKey, Trial]
) -> tuple[list[TrialKey], list[TrialKey]]:
    """The tuning trials that are known to be needed, and the final ones of pairs that are tuned."""
    tuning = [key for pair in pairs for key in sweep.tuning_keys(pair, sweep.steps(pair, trials))]
    tuned = [pair for pair in pairs if not sweep.next_steps(pair, trials)]
    final = [
        key for p in tuned for key in sweep.final_keys(p, sweep.tuning(p, trials).learning_rates)
    ]
    return tuning, final


def _timed(
    sweep: Sweep, plan: TaskPlan, probe: "_Probe | None", trials: Mapping[TrialKey, Trial]
) -> TaskPlan:
    """With the seconds of the finished trials, or else those of the probe."""
    if probe is None:
        return plan
    pairs = _pairs(sweep, plan.task)
    tuning, final = _keys(sweep, pairs, trials)
    timed = [trials[key].timing["seconds"] for key in (*tuning, *final) if key in trials]
    alike = sum(is_trained(name) == is_trained(pairs[0][1]) for _, name in pairs) / len(pairs)
    left = (plan.final - sum(key in trials for key in final)) / plan.remaining
    return replace(
        plan,
        seconds=fmean(timed) if timed else probe.mean(alike, left),
        memory=probe.memory,
        measured=not timed,
        first=probe.first,
    )


def _sample(sweep: Sweep, task: str) -> list[list[TrialKey]]:
    """Groups of a task's trials: of one activation tuning and final, of one of the other kind."""
    settings, pairs = sweep.settings, _pairs(sweep, task)
    first = pairs[0]
    others = (pair for pair in pairs if is_trained(pair[1]) != is_trained(first[1]))
    other = next(others, first)
    rate = half_decade(settings.grid_steps[0])
    return [
        sweep.groups(keys)[0]
        for keys in (
            sweep.tuning_keys(first, settings.grid_steps),
            sweep.final_keys(first, [rate] * sweep.infos[task].seeds),
            sweep.tuning_keys(other, settings.grid_steps),
        )
    ]


@dataclass(frozen=True)
class _Probe:
    """What a few short trials say of a task.

    Attributes:
        tuning, final, other: seconds of one trial, of the groups of :func:`_sample`.
        first: how much longer the very first took.
        start: seconds until the process was ready.
        memory: its largest resident size, in bytes.
    """

    tuning: float
    final: float
    other: float
    first: float
    start: float
    memory: int | None

    def mean(self, like_the_first: float, final: float) -> float:
        """Seconds of one trial, given the shares of activations and of final trials."""
        tuning = like_the_first * self.tuning + (1 - like_the_first) * self.other
        return tuning * (1 + final * (self.final / self.tuning - 1))


def _probe_all(
    samples: Sequence[Sequence[Sequence[TrialKey]]], device: str, workers: int, progress: Progress
) -> list[_Probe]:
    """:func:`_probe` of all tasks, so many at a time.

    Each has a fresh process, so that the peak of its memory is the task's.
    """
    context = get_context("spawn")
    until, alive = context.Pipe(duplex=False)

    def probe(groups: Sequence[Sequence[TrialKey]]) -> _Probe:
        with ProcessPoolExecutor(
            1, mp_context=context, initializer=prepare_worker, initargs=(until,)
        ) as pool:
            try:
                return pool.submit(_probe, groups, device, time.time()).result()
            except BrokenProcessPool:
                raise UserError(
                    f"a trial of task {groups[0][0].task!r} ended its process, perhaps for want "
                    "of memory"
                ) from None

    found = []
    # Once `alive` is closed the processes end, and no thread waits for them.
    with until, ThreadPoolExecutor(workers) as threads, alive:
        for groups, measured in zip(samples, threads.map(probe, samples), strict=True):
            found.append(measured)
            progress.note(f"{len(found)} of {len(samples)} tasks measured: {groups[0][0].task}")
    return found


def _probe(groups: Sequence[Sequence[TrialKey]], device: str, asked: float) -> _Probe:
    """What the groups of :func:`_sample` take.

    Args:
        asked: when the process was asked for, as `time.time` gives it.

    Raises:
        UserError: they cannot be run.
    """
    start = time.time() - asked
    first = _seconds(groups[0], device, 1)  # loads, imports and compiles
    one, two = (_seconds(groups[0], device, epochs) for epochs in (1, 2))
    all_epochs = 1 + (groups[0][0].budget.epochs - 1) * max(0.0, two / one - 1)  # in those of one
    final = _seconds(groups[1], device, 1)
    _seconds(groups[2], device, 1)  # its activation may have to be compiled
    other = _seconds(groups[2], device, 1)
    tuning, final, other = (
        all_epochs * seconds / len(group)
        for seconds, group in zip((one, final, other), groups, strict=True)
    )
    return _Probe(tuning, final, other, max(0.0, first - one), start, _peak_memory())


def _seconds(group: Sequence[TrialKey], device: str, epochs: int) -> float:
    keys = [replace(key, budget=replace(key.budget, epochs=epochs)) for key in group]
    started = time.perf_counter()
    trials_of(work(keys, device))
    return time.perf_counter() - started


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
