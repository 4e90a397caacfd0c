"""What a worker process does, whichever engine it belongs to."""

from collections.abc import Sequence

from zeta._errors import UserError, one_line
from zeta.evaluate.device import CPU
from zeta.evaluate.protocol import PROTOCOL_VERSION, Trial, TrialKey


def work(keys: Sequence[TrialKey], device: str = CPU) -> list[Trial] | str:
    """The trials, trained together on the device, or in one line why they could not be run."""
    from zeta.evaluate.training import run_trials

    if keys[0].protocol != PROTOCOL_VERSION:
        return (
            f"a worker has a version of Zeta whose protocol is {PROTOCOL_VERSION} and not "
            f"{keys[0].protocol}: install the same version everywhere"
        )
    try:
        return run_trials(keys, device)
    except UserError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # of a user's file
        return f"{keys[0].activation!r} failed on task {keys[0].task!r}: {one_line(error)}"


def trials_of(result: list[Trial] | str) -> list[Trial]:
    """What :func:`work` gave, its line raised as an error.

    Raises:
        UserError: the trials could not be run.
    """
    if isinstance(result, str):
        raise UserError(result)
    return result
