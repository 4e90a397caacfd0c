"""`Index`: the trials' JSON files once more, in one SQLite file.

It saves opening thousands of files on every resume, and answers queries::

    sqlite3 zeta-report/trials/index.sqlite \\
        "SELECT task, activation, avg(value) FROM trials WHERE phase = 'final' GROUP BY 1, 2"
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

SUFFIX = ".json"
_SCHEMA_VERSION = 1
_QUERIED = (
    "task", "activation", "learning_rate", "seed", "phase", "protocol", "metric", "status", "value",
)  # fmt: skip
_SCHEMA = f"""
CREATE TABLE trials (
    key TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    digest TEXT NOT NULL,
    document TEXT NOT NULL,
    {", ".join(f"{name} AS (json_extract(document, '$.{name}'))" for name in _QUERIED)}
);
PRAGMA user_version = {_SCHEMA_VERSION};
"""


class Index:
    """A copy of the JSON files of a folder, brought up to date when it is opened.

    A missing, corrupt or foreign index is built anew; where SQLite cannot write at all, it is
    kept in memory. Nothing that happens to it is an error: the files are the truth.

    Args:
        path: the SQLite file. One process writes to it; any may read it meanwhile.
        folder: of the JSON files, named ``KEY.json``.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._folder = folder
        self._connection = self._opened(path)

    def read(self, key: str) -> str | None:
        """The text of ``KEY.json``; None if the file must be asked itself."""
        try:
            found = self._connection.execute(
                "SELECT document, digest FROM trials WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error:
            return None
        return found[0] if found and found[1] == _digest(found[0]) else None

    def add(self, texts: Mapping[str, str]) -> None:
        """Note files just written, text by key."""
        # What cannot be noted, on a full disk say, is found by its stamp at the next opening.
        with suppress(sqlite3.Error, OSError):
            self._put((key, _stamp((self._folder / f"{key}{SUFFIX}").stat()), text)
                      for key, text in texts.items())  # fmt: skip

    def remove(self, key: str) -> None:
        """Forget a file that was set aside."""
        with suppress(sqlite3.Error), self._connection:
            self._connection.execute("DELETE FROM trials WHERE key = ?", (key,))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _opened(self, path: Path) -> sqlite3.Connection:
        with suppress(sqlite3.Error, OSError):
            return self._connect(path)
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        with suppress(sqlite3.Error, OSError):
            return self._connect(path)
        return self._connect(":memory:")

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        self._connection = sqlite3.connect(path)
        try:
            # With a write-ahead log, a kill or a power cut loses the last rows at most.
            self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
            if self._pragma("user_version") != _SCHEMA_VERSION:
                self._connection.executescript("DROP TABLE IF EXISTS trials;" + _SCHEMA)
            if self._pragma("quick_check") != "ok":
                raise sqlite3.DatabaseError("the index is corrupt")
            self._bring_up_to_date()
        except BaseException:
            self._connection.close()
            raise
        return self._connection

    def _pragma(self, name: str) -> object:
        return self._connection.execute(f"PRAGMA {name}").fetchone()[0]

    def _bring_up_to_date(self) -> None:
        on_disk = dict(_files(self._folder))
        known = dict(self._connection.execute("SELECT key, stamp FROM trials"))
        changed = [key for key, stamp in on_disk.items() if known.get(key) != stamp]
        with self._connection:
            self._connection.executemany(
                "DELETE FROM trials WHERE key = ?",
                [(k,) for k in {*(known.keys() - on_disk), *changed}],
            )
        self._put((key, on_disk[key], text) for key in changed if (text := self._text(key)))

    def _text(self, key: str) -> str | None:
        try:
            return (self._folder / f"{key}{SUFFIX}").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return None

    def _put(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Insert key, stamp and text; what is no JSON is left to whoever loads the trial."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO trials (key, stamp, digest, document) "
                "SELECT ?1, ?2, ?3, ?4 WHERE json_valid(?4)",
                [(key, stamp, _digest(text), text) for key, stamp, text in rows],
            )


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and entry.is_file():
                yield entry.name.removesuffix(SUFFIX), _stamp(entry.stat())


def _stamp(status: os.stat_result) -> str:
    """What changes with a file's content; the last of them cannot be set back."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
