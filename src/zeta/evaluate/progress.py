"""`Progress`: whoever wants to be told what happens during an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from zeta.evaluate.protocol import Phase, Trial


class Progress(Protocol):
    """Told what happens during an evaluation."""

    def phase(self, name: Phase, totals: Mapping[str, int]) -> None:
        """A phase begins, or its plan grew.

        Args:
            name: "tuning" or "final".
            totals: task -> the trials now planned for it in all, finished ones included.
        """

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        """These trials are finished and kept; ``resumed``: they were before this run."""

    def note(self, line: str) -> None:
        """Something the user should read."""


class Silent:
    """A :class:`Progress` that shows nothing."""

    def phase(self, name: Phase, totals: Mapping[str, int]) -> None:
        """Ignored."""

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        """Ignored."""

    def note(self, line: str) -> None:
        """Ignored."""
