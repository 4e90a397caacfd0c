"""`RayEngine`: a Ray cluster. Ray core tasks run the groups; this process alone stores them."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from zeta._errors import UserError, missing_extra
from zeta.evaluate.device import CPU
from zeta.evaluate.engines.shipping import Shipment, pack, unpacked
from zeta.evaluate.engines.worker import trials_of, work
from zeta.evaluate.protocol import Trial, TrialKey

# Read when Ray is first imported, here and in every process that it starts.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
except ImportError:
    raise missing_extra("--engine ray", "Ray", extra="ray") from None

# A group whose node is lost starts again on another one.
_RETRIES = 10
_SECONDS_TO_REACH, _SECONDS_TO_JOIN = 3.0, 20.0


class RayEngine:
    """The processors of a Ray cluster, one for each group of trials; a context manager.

    Zeta must be installed on every node, in the same version. Groups of a lost node are run again
    elsewhere; the results are the same, since a trial depends on its key alone. Formulas and
    tasks in files of the user's travel along, see :mod:`zeta.evaluate.engines.shipping`.

    Args:
        address: ``host:port`` of the cluster or ``auto``; None takes the one that runs on this
            machine or that ``RAY_ADDRESS`` names, and else starts one here.
        device: where the trials train. Ray gives a group one GPU to itself unless it is "cpu".
    """

    def __init__(self, address: str | None = None, device: str = CPU) -> None:
        self._address, self._device = address, device
        self._started = False

    def start(self) -> None:
        """Join the cluster.

        Raises:
            UserError: there is none at the address.
        """
        if self._started:
            return
        _check_reachable(self._address)
        on_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable(self._address or "auto") from error
        finally:
            if on_main:
                signal.signal(signal.SIGTERM, before)  # Ray sets one of its own
        self._started = True

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        """Run the trials, first group first; give out each group once it is finished.

        Raises:
            UserError: a formula or task cannot be run, or the cluster lost too many nodes.
        """
        self.start()
        shipment = ray.put(pack(key for group in groups for key in group))
        gpus = 0 if self._device == CPU else 1
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_work_remotely)
        # All at once: a cluster that grows on demand must see the demand.
        running = [task.remote(list(group), shipment, self._device) for group in groups]
        while running:
            (done, *_), running = ray.wait(running, num_returns=1)
            yield trials_of(_result(done))

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._started:
            ray.shutdown()  # the cluster ends the tasks of whoever leaves it


def _work_remotely(keys: Sequence[TrialKey], shipment: Shipment, device: str) -> list[Trial] | str:
    here = unpacked(keys, shipment)
    result = work(here, device)
    if isinstance(result, str):
        return result
    original = dict(zip(here, keys, strict=True))
    return [replace(trial, key=original[trial.key]) for trial in result]


def _result(reference: Any) -> list[Trial] | str:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise UserError(
            f"the Ray cluster could not finish a trial ({type(error).__name__}: {reason}); "
            "the same command resumes"
        ) from error


def _check_reachable(address: str | None) -> None:
    """Find out within seconds whether a cluster answers; Ray itself takes minutes to give up.

    Raises:
        UserError: none does, or the address is no address.
    """
    if address in (None, "auto", "local"):
        return
    parts = re.fullmatch(r"(?:ray://)?\[?([^/\s]+?)\]?:(\d{1,5})", address)
    if parts is None:
        raise UserError(f"{address!r} is no address of a Ray cluster; write HOST:PORT or auto")
    try:
        socket.create_connection((parts[1], int(parts[2])), timeout=_SECONDS_TO_REACH).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address) from error
    # Something listens. Whether it is Ray, a process that can be ended finds out.
    join = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"
    try:
        subprocess.run(
            [sys.executable, "-c", join, address],
            timeout=_SECONDS_TO_JOIN,
            capture_output=True,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise _unreachable(address) from error


def _unreachable(address: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address!r}: start one with `ray start --head`, which prints "
        "its address, or leave --address out to start one here"
    )
