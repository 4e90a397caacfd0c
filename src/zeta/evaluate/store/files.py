"""Files that a crash, a kill or a full disk leaves whole or absent, never in part."""

import os
from collections.abc import Mapping
from pathlib import Path

TEMPORARY = ".*.tmp"  # what a kill may leave behind


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` for good: once this returns, a power cut does not undo it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the old file stays.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from zeta.evaluate.store import write_atomically
        >>> path = Path(tempfile.mkdtemp()) / "greeting.txt"
        >>> write_atomically(path, "hello")
        >>> path.read_text()
        'hello'
    """
    write_each_atomically(path.parent, {path.name: text})


def write_each_atomically(folder: Path, texts: Mapping[str, str]) -> None:
    """As :func:`write_atomically`, several files of one folder by name; some may be written."""
    for name, text in texts.items():
        _replace(folder / name, text)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable; a file's own fsync does not cover its name."""
    if not hasattr(os, "O_DIRECTORY"):  # no such thing on Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
