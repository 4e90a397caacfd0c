"""The user's own files on other machines: their source text travels with the trials.

A file goes with the modules beside it that it imported, and nothing else does. Where the same
files are in the same places already, on a shared file system, they are used there, so that data
beside them are found; otherwise copies are run, and data must be at the same path on every node.
"""

import atexit
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from zeta._errors import UserError
from zeta.evaluate.protocol import TrialKey, formula_source
from zeta.load_formula import is_file_source


@dataclass(frozen=True)
class Shipment:
    """Source files, and where they were.

    Attributes:
        sources: a source as keys have it -> the same with an absolute path.
        files: absolute path and content of each file.
    """

    sources: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, bytes], ...]


def pack(keys: Iterable[TrialKey]) -> Shipment:
    """The files that these trials need.

    Raises:
        UserError: one cannot be read.
    """
    named = {name for key in keys for name in (key.task, formula_source(key.activation))}
    sources = {name: _absolute(name) for name in sorted(named) if is_file_source(name)}
    paths = {Path(source.rpartition(":")[0]) for source in sources.values()}
    beside = {module for path in paths for module in _modules_beside(path)}
    try:
        files = tuple((str(path), path.read_bytes()) for path in sorted(paths | beside))
    except OSError as error:
        raise UserError(f"cannot read {error.filename!r}: {error.strerror}") from error
    return Shipment(tuple(sources.items()), files)


def unpacked(keys: Sequence[TrialKey], shipment: Shipment) -> list[TrialKey]:
    """The keys as this machine's processes must call them: with the files' paths here."""
    root = _root(shipment.files)
    here = {name: f"{root}{source}" for name, source in shipment.sources}

    def moved(key: TrialKey) -> TrialKey:
        source = formula_source(key.activation)
        activation = here.get(source, source) + key.activation.removeprefix(source)
        return replace(key, task=here.get(key.task, key.task), activation=activation)

    return [moved(key) for key in keys]


def _absolute(source: str) -> str:
    path, _, name = source.rpartition(":")
    return f"{Path(path).resolve()}:{name}"


def _modules_beside(path: Path) -> set[Path]:
    """The files of modules that were imported from the folder of ``path``."""
    installed = [Path(p).resolve() for p in sysconfig.get_paths().values()]
    installed.append(Path(__file__).parents[2])  # Zeta itself, installed or not
    files = {Path(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
    # A name like "_classes.py" is made up by the module itself.
    imported = {file.resolve() for file in files if file.suffix == ".py" and file.is_absolute()}
    return {
        file
        for file in imported
        if path.parent in file.parents and not any(p in file.parents for p in installed)
    }


@lru_cache(maxsize=8)
def _root(files: tuple[tuple[str, bytes], ...]) -> str:
    """The folder below which the files lie with their absolute paths; "" if they are in place."""
    if all(_same(Path(path), content) for path, content in files):
        return ""
    root = tempfile.mkdtemp(prefix="zeta-sources-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for path, content in files:
        copy = Path(f"{root}{path}")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return root


def _same(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
