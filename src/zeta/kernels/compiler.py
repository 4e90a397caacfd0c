"""Compiles C++ to a shared library, keeps it in the user's cache, loads it.

A library is loaded only if this user owns it and nobody else could have written it, and only if
the digest at its end is that of its content. Files are replaced in one step, so any number of
processes may compile the same kernel at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from weakref import WeakSet

from zeta._errors import NoKernelError
from zeta._formula import Formula

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-shared",
    "-w",
)
# All that this processor has. Elsewhere than on x86 -march names the architecture alone.
_X86_FLAGS = ("-march=native", "-mprefer-vector-width=512")
_OTHER_FLAGS = ("-mcpu=native",)
_DIGEST_BYTES = hashlib.sha256().digest_size
_COMPILE_TIMEOUT = 120  # seconds


class KernelError(Exception):
    """There is no kernel; the message says why and what to do."""


@dataclass(frozen=True)
class Status:
    """Whether fused CPU kernels run, and with what.

    Attributes:
        enabled: whether they run.
        reason: why not, or what is amiss; "" if nothing is.
        compiler: path of the C++ compiler, "" if there is none.
        cache_folder: where compiled kernels are kept.
    """

    enabled: bool
    reason: str
    compiler: str
    cache_folder: str


_problems: list[str] = []
_without_kernels: WeakSet[Formula] = WeakSet()


def status() -> Status:
    """Whether fused CPU kernels run here, and if not, why."""
    path = find_compiler()
    reason = "" if path else _NO_COMPILER
    if disabled():
        reason = "switched off by ZETA_KERNELS=0"
    reason = reason or next(iter(_problems), "")
    return Status(bool(path) and not disabled(), reason, path or "", str(cache_folder()))


@cache
def disabled() -> bool:
    """Whether the environment variable ZETA_KERNELS says 0; read once."""
    return os.environ.get("ZETA_KERNELS") == "0"


def warn_once(problem: str) -> None:
    """One RuntimeWarning per process: the first problem."""
    _problems.append(problem)
    if len(_problems) == 1:
        warnings.warn(problem, RuntimeWarning, stacklevel=2)


def warn_without_kernel(formula: Formula, why: NoKernelError) -> None:
    """One RuntimeWarning per formula, however many of its kernels there cannot be."""
    if formula not in _without_kernels:
        _without_kernels.add(formula)
        warnings.warn(f"{formula.name} runs as plain operations: {why}", RuntimeWarning, 2)


def load(key: bytes | None, source: Callable[[], str]) -> ctypes.CDLL:
    """The compiled library, from the cache where possible.

    Args:
        key: what determines the source; None if only the source itself does.
        source: makes the C++ text; not called if the library is in the cache.

    Raises:
        KernelError: it cannot be compiled.
    """
    text = "" if key else source()
    folder = cache_folder()
    try:
        path = cached(key or text.encode())
        if not is_intact(path):
            replace(path, _kernel(text or source()))
        return ctypes.CDLL(str(path))
    except OSError as error:
        warn_once(
            f"zeta: the kernel cache {folder} cannot be used ({error}), so every process compiles "
            "its kernels again; set ZETA_CACHE_DIR to a folder that only you can write to"
        )
        return _load_uncached(_kernel(text or source()))


def cached(key: bytes) -> Path:
    """The place of a library in the cache; OSError if the cache cannot be used."""
    folder = cache_folder()
    _make_private(folder)
    return folder / f"{hashlib.sha256(_machine_key() + key).hexdigest()}.so"


def cache_folder() -> Path:
    """Where libraries are kept: $ZETA_CACHE_DIR, else $XDG_CACHE_HOME/zeta, else ~/.cache/zeta."""
    if folder := os.environ.get("ZETA_CACHE_DIR"):
        return Path(folder).expanduser() / "kernels"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "zeta" / "kernels"


_NO_COMPILER = (
    "no C++ compiler was found: install g++ or clang++, or name one in the environment variable CXX"
)


@cache
def find_compiler() -> str | None:
    """The path of $CXX, or of the first of the usual names."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def flags(machine: str) -> tuple[str, ...]:
    """The flags for a processor, by its name in `platform.machine`."""
    is_x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686")
    return _FLAGS + (_X86_FLAGS if is_x86 else _OTHER_FLAGS)


@cache
def accepted(compiler: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the flags that the compiler takes; it is asked once."""

    def takes(*flags: str) -> bool:
        command = [compiler, *flags, "-fsyntax-only", "-x", "c++", os.devnull]
        done = subprocess.run(command, capture_output=True, timeout=_COMPILE_TIMEOUT)
        return done.returncode == 0

    return wanted if takes(*wanted) else tuple(flag for flag in wanted if takes(flag))


@cache
def _machine_key() -> bytes:
    """Compiler, flags and processor: a home folder may serve several machines."""
    path = find_compiler()
    found = os.stat(path) if path else None
    identity = found and (os.path.realpath(path or ""), found.st_size, found.st_mtime_ns)
    machine = platform.machine()
    parts = (identity, flags(machine), sys.platform, machine, cpu_features())
    return hashlib.sha256(repr(parts).encode()).digest()


def cpu_features() -> str:
    """The instruction sets that the flags for this processor may use."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read(1 << 14).splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    first = {line.partition(":")[0].strip(): line for line in reversed(lines)}
    return "\n".join(first[name] for name in wanted if name in first)


def _kernel(source: str) -> bytes:
    """The shared library of a kernel; see :func:`compiled`."""
    # If it fails, perhaps a compiler without the builtins we know of.
    return compiled(source, flags(platform.machine()), otherwise=("-DZETA_PORTABLE",))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While no other process of this machine has the same library locked."""
    with open(path.with_suffix(".lock"), "w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compiled(source: str, flags: tuple[str, ...], otherwise: Sequence[str] = ()) -> bytes:
    """The shared library's content.

    Args:
        source: the C++ text.
        flags: for the compiler, where it takes them.
        otherwise: further flags for a second attempt.

    Raises:
        KernelError: there is no compiler, or it fails.
    """
    path = find_compiler()
    if not path:
        raise KernelError(_NO_COMPILER)
    try:
        command = [path, "source.cpp", "-o", "library.so", *accepted(path, flags)]
        with tempfile.TemporaryDirectory(prefix="zeta-") as folder:
            Path(folder, "source.cpp").write_text(source, encoding="utf-8")
            run = partial(subprocess.run, cwd=folder, capture_output=True, text=True)
            first = run(command, timeout=_COMPILE_TIMEOUT, check=not otherwise)
            if first.returncode:
                run([*command, *otherwise], timeout=_COMPILE_TIMEOUT, check=True)
            return Path(folder, "library.so").read_bytes()
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()
        said = next((line for line in lines if "error" in line), "it did not say why")
        raise KernelError(
            f"the C++ compiler {path} failed ({said}): try another one by setting CXX"
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        raise KernelError(f"the C++ compiler {path} could not be run ({error})") from error


def _load_uncached(content: bytes) -> ctypes.CDLL:
    """Load from a private file that is gone as soon as it is mapped."""
    try:
        with tempfile.TemporaryDirectory(prefix="zeta-") as folder:
            path = Path(folder, "kernel.so")
            path.write_bytes(content)
            return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"a compiled kernel could not be loaded ({error})") from error


def _make_private(folder: Path) -> None:
    """Create the folder for this user alone; OSError if it is or may be someone else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or not _is_own(found):
        raise PermissionError("it is not this user's own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        if any(folder.iterdir()) and stat.S_IMODE(found.st_mode) & 0o022:
            raise PermissionError("others may write to it: run chmod 700 on it, after emptying it")
        folder.chmod(0o700)


def is_intact(path: Path) -> bool:
    """Whether the file is this user's own, written by no one else, and complete."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if not _is_own(found) or stat.S_IMODE(found.st_mode) & 0o022:
                return False
            content = file.read()
    except FileNotFoundError:
        return False
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return digest == _digest(path.name, body)


def _is_own(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def replace(path: Path, content: bytes) -> None:
    """Write the library with its digest under its final name, in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content + _digest(path.name, content))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + content).digest()
