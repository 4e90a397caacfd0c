"""`Engine`: what every engine does; `make_engine`: one by name."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Literal, Protocol, get_args

from zeta._errors import UnknownNameError, UserError
from zeta.evaluate.device import CPU
from zeta.evaluate.engines.local import LocalEngine
from zeta.evaluate.protocol import Trial, TrialKey

EngineName = Literal["local", "ray"]
NAMES: tuple[str, ...] = get_args(EngineName)


class Engine(Protocol):
    """Runs groups of trials that are trained together; a context manager."""

    def start(self) -> None:
        """Start the workers without waiting for them; :meth:`run` does so itself.

        Raises:
            UserError: there are none to be had.
        """

    def run(self, groups: Sequence[Sequence[TrialKey]]) -> Iterator[list[Trial]]:
        """Run the trials, first group first; give out each group once it is finished.

        Raises:
            UserError: a formula or task cannot be run, or the workers are lost for good.
        """

    def __enter__(self) -> "Engine":
        """Nothing is started yet."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers; after an exception without waiting for the trials that run."""


def make_engine(name: EngineName, address: str | None = None, device: str = CPU) -> Engine:
    """The engine of that name.

    Args:
        name: "local", this machine's cores, or "ray", a cluster.
        address: of the Ray cluster; None for the one that runs here, or else a new one.
        device: where the workers train; a cluster finds out on its nodes whether it is there.

    Raises:
        UserError: an unknown name, an address without a cluster, or a device that is not here.
        ImportError: Ray is not installed.

    Example:
        >>> from zeta.evaluate.engines import make_engine
        >>> with make_engine("local") as engine:
        ...     list(engine.run([]))
        []
    """
    if name not in NAMES:
        raise UnknownNameError("engine", name, NAMES)
    if name == "local":
        if address is not None:
            raise UserError("an address is a Ray cluster's; add --engine ray")
        return LocalEngine(device=device)
    from zeta.evaluate.engines.ray import RayEngine

    return RayEngine(address, device)
