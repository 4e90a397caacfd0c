"""Who runs the trials: `Engine`; `LocalEngine`, this machine's cores, one thread each."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from types import TracebackType
from typing import Protocol

from zeta._errors import UserError
from zeta.evaluate.protocol import Trial, TrialKey
from zeta.load_formula import one_line


class Engine(Protocol):
    """Runs groups of trials that are trained together; a context manager."""

    def start(self) -> None:
        """Start the workers without waiting for them; :meth:`run` does so itself."""

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        """Run the trials; a group's are given out as soon as they are finished, in any order.

        Raises:
            UserError: a formula or task cannot be run, or the workers are lost for good.
        """


class LocalEngine:
    """A pool of worker processes, started at the first trial; a context manager.

    The workers are spawned, so a script that calls it needs the usual
    ``if __name__ == "__main__":``.

    Args:
        workers: processes; by default one per available core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or available_cores()
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Start the workers without waiting for them; :meth:`run` does so itself."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=get_context("spawn"), initializer=_prepare_worker
            )
            with _held_back(signal.SIGINT):  # the first submission starts the processes
                self._pool.submit(os.getpid)

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        """Run the trials; a group's are given out as soon as they are finished, in any order.

        Left early, by an exception or Ctrl-C, it starts no further trial; those that run are
        finished and dropped.

        Raises:
            UserError: a formula or task cannot be run, or a worker process died.
        """
        self.start()
        assert self._pool is not None
        waiting, running = list(reversed(groups)), set[Future[list[Trial] | str]]()
        while waiting or running:
            # One more than there are workers, so that none of them waits for this process.
            while waiting and len(running) <= self._workers:
                running.add(self._pool.submit(_work, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield _result(future)

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            with _held_back(signal.SIGINT, signal.SIGTERM):
                self._pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_worker() -> None:
    """Leave Ctrl-C to the parent; import what every trial needs, before the first arrives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    import zeta.evaluate.training  # noqa: F401


def _end_with_parent() -> None:
    """Exit as soon as the parent is gone, however it died: nobody else would end this process."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(keys: Sequence[TrialKey]) -> list[Trial] | str:
    """The trials, or in one line why they could not be run."""
    from zeta.evaluate.training import run_trials

    try:
        return run_trials(keys)
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{keys[0].activation!r} failed on task {keys[0].task!r}: {one_line(error)}"


def _result(future: "Future[list[Trial] | str]") -> list[Trial]:
    try:
        result = future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for want of memory; the same command resumes"
        ) from None
    if isinstance(result, str):
        raise UserError(result)
    return result


@contextmanager
def _held_back(*signals: signal.Signals) -> Iterator[None]:
    """Deliver these signals after the block; processes started within never get them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
