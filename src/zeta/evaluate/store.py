"""The finished trials on disk, one JSON file each: none is lost, none is run twice."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from zeta._errors import UserError
from zeta.evaluate.protocol import Trial, TrialKey


class TrialStore:
    """Trials in ``folder/trials``, named by their keys.

    Args:
        folder: the report's folder; made if it does not exist.
        warn: told, in one line, of a file that cannot be used.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder / "trials"
        self._warn = warn
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error

    def is_empty(self) -> bool:
        """Whether no trial is stored at all."""
        return next(self.folder.glob("*.json"), None) is None

    def load(self, key: TrialKey) -> Trial | None:
        """The finished trial of this key, if there is one.

        Whatever else is in its place is renamed to ``*.corrupt`` and reported; the trial counts
        as not run.
        """
        path = self._path(key)
        try:
            trial = Trial.from_json(json.loads(path.read_bytes(), parse_constant=_refuse))
            if trial.key != key:
                raise ValueError("it holds another trial")
        except FileNotFoundError:
            return None
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError
        ) as error:  # fmt: skip
            aside = _unused(path)
            path.replace(aside)
            reason = f"{type(error).__name__}: {error}"
            self._warn(f"unusable trial file set aside as {aside} ({reason}); running it again")
            return None
        return trial

    def save(self, trials: Sequence[Trial]) -> None:
        """Write trials so that each file is either whole or absent, whatever happens."""
        for trial in trials:
            text = json.dumps(trial.to_json(), indent=1, allow_nan=False)
            write_atomically(self._path(trial.key), text)

    def _path(self, key: TrialKey) -> Path:
        return self.folder / f"{key.hex()}.json"


def _unused(path: Path) -> Path:
    """A name for a file to be set aside; a folder may have the usual one."""
    names = (path.with_suffix(f".{n}.corrupt" if n else ".corrupt") for n in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of a trial")


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``: a crash leaves the old file or the new one, never a part.

    Raises:
        OSError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
