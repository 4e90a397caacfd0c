"""`Progress`: whoever wants to be told what happens during an evaluation."""

from collections import Counter
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


class Onward:
    """A :class:`Progress` of several sweeps in turn, whose trials add up.

    Args:
        progress: told of all of them as of one.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before, self._now = Counter[str](), Counter[str]()

    def next(self) -> None:
        """Another sweep begins; its trials come on top of those so far."""
        self._before += self._now
        self._now.clear()

    def phase(self, name: Phase, totals: Mapping[str, int]) -> None:
        """As :meth:`Progress.phase`, of this sweep."""
        self._progress.phase(name, {t: n + self._before[t] for t, n in totals.items()})

    def finished(self, trials: Sequence[Trial], *, resumed: bool) -> None:
        """As :meth:`Progress.finished`."""
        self._now.update(trial.key.task for trial in trials)
        self._progress.finished(trials, resumed=resumed)

    def note(self, line: str) -> None:
        """As :meth:`Progress.note`."""
        self._progress.note(line)
