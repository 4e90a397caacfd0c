"""`TrialStore`: none of the finished trials is lost, none is run twice."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from zeta._errors import UserError
from zeta.evaluate.protocol import PROTOCOL_VERSION, Trial, TrialKey
from zeta.evaluate.store.files import TEMPORARY, write_atomically, write_each_atomically
from zeta.evaluate.store.index import SUFFIX, Index

# Raise it with any change to what lies in the folder that an older Zeta would misread.
FORMAT = 2
_GROUP = ".group"
# What reading a file that is not a trial may raise.
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError)


class TrialStore:
    """Trials in ``folder/trials``, one JSON file each, named by their keys; a context manager.

    One process at a time adds trials to a folder.

    Args:
        folder: the report's folder; made if it does not exist.
        warn: told, in one line, of a file that cannot be used.

    Raises:
        UserError: the folder cannot be made or written to, another process adds trials to it, or
            a newer version of Zeta wrote it. Nothing is changed then.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from zeta.evaluate import Budget, Trial, TrialKey
        >>> from zeta.evaluate.store import TrialStore
        >>> key = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
        >>> timing = {"seconds": 1.0, "step_ms": 0.5}
        >>> trial = Trial(key, "accuracy", "ok", 0.5, 7, curve=(0.1,), timing=timing)
        >>> with TrialStore(Path(tempfile.mkdtemp()), warn=print) as store:
        ...     store.save([trial])
        ...     store.load(key) == trial
        True
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder / "trials"
        self._warn = warn
        _refuse_newer(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            self._lock = filelock.FileLock(self.folder / ".lock", timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"another evaluation is writing to {str(folder)!r}: "
                "wait until it is finished, or choose another folder with --out"
            ) from None
        except OSError as error:
            raise _unwritable(folder, error) from error
        try:
            self._tidy()
            self._index = Index(self.folder / "index.sqlite", self.folder)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise _unwritable(folder, error) from error
            raise

    def load(self, key: TrialKey) -> Trial | None:
        """The finished trial of this key, if there is one.

        Whatever else is in its place is renamed to ``*.corrupt`` and reported; the trial counts
        as not run.
        """
        path = self._path(key)
        try:
            trial = _parse(self._index.read(key.hex()) or path.read_text(encoding="utf-8"))
            if trial.key != key:
                raise ValueError("it holds another trial")
        except FileNotFoundError:
            return None
        except _UNUSABLE as error:
            self._set_aside(path, error, "running it again")
            self._index.remove(key.hex())
            return None
        return trial

    def save(self, group: Sequence[Trial]) -> None:
        """Write trials that were trained together: whatever happens, all are kept or none is.

        Raises:
            UserError: the disk is full, or the folder cannot be written to any more.
        """
        texts = {trial.key.hex(): _text(trial) for trial in group}
        try:
            if len(group) > 1:
                # With this file the whole group is finished; a kill from here on leaves it, and
                # the next opening does the rest.
                together = self.folder / f"{group[0].key.hex()}{_GROUP}"
                write_atomically(together, json.dumps([trial.to_json() for trial in group]))
                self._write(texts)
                together.unlink()
            else:
                self._write(texts)
        except OSError as error:
            raise UserError(
                f"cannot write to {str(self.folder)!r}: {error.strerror}; the trials finished "
                "so far are kept; mend that, and the same command resumes"
            ) from error
        self._index.add(texts)

    def close(self) -> None:
        """Let another process write to the folder."""
        self._index.close()
        self._lock.release()

    def __enter__(self) -> "TrialStore":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _path(self, key: TrialKey) -> Path:
        return self.folder / f"{key.hex()}{SUFFIX}"

    def _write(self, texts: dict[str, str]) -> None:
        write_each_atomically(self.folder, {f"{key}{SUFFIX}": t for key, t in texts.items()})

    def _tidy(self) -> None:
        """Finish what a killed run was doing."""
        for path in self.folder.glob(TEMPORARY):
            path.unlink()
        for path in self.folder.glob(f"*{_GROUP}"):
            try:
                trials = [Trial.from_json(fields) for fields in json.loads(path.read_bytes())]
            except _UNUSABLE as error:
                self._set_aside(path, error, "running its trials again")
            else:
                self._write({trial.key.hex(): _text(trial) for trial in trials})
                path.unlink()
        if _version(self.folder) != (FORMAT, PROTOCOL_VERSION):
            written_by = {"format": FORMAT, "protocol": PROTOCOL_VERSION}
            write_atomically(self.folder / "VERSION", json.dumps(written_by))

    def _set_aside(self, path: Path, error: Exception, consequence: str) -> None:
        aside = _unused(path)
        path.replace(aside)
        reason = f"{type(error).__name__}: {error}"
        self._warn(f"unusable trial file set aside as {aside} ({reason}); {consequence}")


def read_trials(folder: Path) -> list[Trial]:
    """The finished trials of a report's folder, in the order of their keys; nothing is changed.

    Files that hold no trial of this version's protocol are left out.

    Args:
        folder: as given to ``--out``; it need not exist.

    Raises:
        UserError: a newer version of Zeta wrote it.

    Example:
        >>> from pathlib import Path
        >>> from zeta.evaluate.store import read_trials
        >>> read_trials(Path("no such folder"))
        []
    """
    _refuse_newer(folder / "trials")
    found = list[Trial]()
    for path in sorted((folder / "trials").glob(f"*{SUFFIX}")):
        try:
            found.append(_parse(path.read_text(encoding="utf-8")))
        except _UNUSABLE:
            continue
    return [trial for trial in found if trial.key.protocol == PROTOCOL_VERSION]


def _parse(text: str) -> Trial:
    return Trial.from_json(json.loads(text, parse_constant=_refuse))


def _text(trial: Trial) -> str:
    return json.dumps(trial.to_json(), indent=1, allow_nan=False)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value of a trial")


def _refuse_newer(folder: Path) -> None:
    """Raise if a newer version wrote there: what this one makes of it cannot be right."""
    format_version, protocol = _version(folder) or (0, 0)
    if format_version > FORMAT or protocol > PROTOCOL_VERSION:
        raise UserError(
            f"a newer version of Zeta wrote {str(folder)!r} (format {format_version}, protocol "
            f"{protocol}; this one knows {FORMAT} and {PROTOCOL_VERSION}): "
            "update zeta-nn, or choose another folder with --out"
        )


def _version(folder: Path) -> tuple[int, int] | None:
    """Format and protocol of what wrote the folder; None if nothing did."""
    path = folder / "VERSION"
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        return int(fields["format"]), int(fields["protocol"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except _UNUSABLE as error:
        raise UserError(
            f"cannot tell which version of Zeta wrote {str(folder)!r}: {str(path)!r} is damaged; "
            "delete it if this version did, or choose another folder with --out"
        ) from error


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {str(folder)!r}: {error.strerror}")


def _unused(path: Path) -> Path:
    """A name for a file to be set aside; a folder may have the usual one."""
    names = (path.with_suffix(f".{n}.corrupt" if n else ".corrupt") for n in itertools.count())
    return next(name for name in names if not os.path.lexists(name))
