"""`LocalEngine`: this machine's cores, one worker process each."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from types import TracebackType

from zeta._errors import UserError
from zeta.evaluate.device import CPU, check_device
from zeta.evaluate.engines.worker import trials_of, work
from zeta.evaluate.protocol import Trial, TrialKey
from zeta.evaluate.signals import blocked_in_children, uninterrupted


class LocalEngine:
    """A pool of worker processes, started at the first trial; a context manager.

    The workers are spawned, so a script that calls it needs the usual
    ``if __name__ == "__main__":``.

    Args:
        workers: processes; by default one per available core.
        device: where they train their trials; all share it.

    Raises:
        UserError: the device cannot be used.
    """

    def __init__(self, workers: int | None = None, device: str = CPU) -> None:
        check_device(device)
        self._device = device
        self._workers = workers or available_cores()
        self._pool: ProcessPoolExecutor | None = None
        # The workers end when the other end is closed, which the system does too when this
        # process is killed.
        self._until, self._alive = get_context("spawn").Pipe(duplex=False)

    def start(self) -> None:
        """Start the workers without waiting for them; :meth:`run` does so itself."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=get_context("spawn"),
                initializer=prepare_worker,
                initargs=(self._until,),
            )
            with blocked_in_children(signal.SIGINT):  # the first submission starts the processes
                self._pool.submit(os.getpid)

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        """Run the trials, first group first; give out each group once it is finished.

        Raises:
            UserError: a formula or task cannot be run, or a worker process died.
        """
        self.start()
        assert self._pool is not None
        waiting, running = list(reversed(groups)), set[Future[list[Trial] | str]]()
        while waiting or running:
            # One more than there are workers, so that none of them waits for this process.
            while waiting and len(running) <= self._workers:
                running.add(self._pool.submit(work, waiting.pop(), self._device))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield trials_of(_result(future))

    def __enter__(self) -> "LocalEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            if error:
                self._alive.close()  # nobody waits for trials that will not be kept
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._alive.close()
            self._until.close()


def available_cores() -> int:
    """The cores that this process may use.

    Example:
        >>> from zeta.evaluate.engines import available_cores
        >>> available_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_worker(until: Connection) -> None:
    """Leave Ctrl-C to the parent; import what every trial needs, before the first arrives.

    Args:
        until: the process exits as soon as its other end is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_exit_when_closed, args=(until,), daemon=True).start()
    import zeta.evaluate.training  # noqa: F401


def _exit_when_closed(until: Connection) -> None:
    until.poll(None)  # nothing is ever sent
    os._exit(1)


def _result(future: "Future[list[Trial] | str]") -> list[Trial] | str:
    try:
        return future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for want of memory; the same command resumes"
        ) from None
