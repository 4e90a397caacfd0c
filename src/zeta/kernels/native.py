"""The launcher in C++: calls of CPU kernels, and their autograd function, without Python.

By :mod:`zeta.kernels.cpu` and :mod:`zeta.kernels.function`, a small tensor's call costs more than
its arithmetic; by `runtime/cpp/native.cpp` a fraction of that. It is compiled against PyTorch's
headers, which takes some ten seconds: in the background, once per machine and version of PyTorch,
as soon as a process has made so many calls that it pays. Until it is there, and where it cannot be,
Python does the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import sysconfig
import threading
from importlib import util
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import torch

from zeta import runtime
from zeta.kernels import compiler, cpu
from zeta.kernels.support import is_plain, takes_kernels

# Calls of a process from which on it is compiled.
WORTHWHILE = 2000
# Of a call that it takes: it keeps in 64 bits who wants a gradient.
MOST_PARAMETERS = 60

# What was compiled; None while there is none.
extension: Any | None = None
# Why there is none, if there cannot be.
problem = ""
_calls = 0


def count() -> None:
    """Note a call by way of Python; the first looks in the cache, a later one compiles."""
    global _calls
    _calls += 1
    if _calls == 1:
        _load_cached()
    elif _calls == WORTHWHILE:
        threading.Thread(target=_build_aside, name="zeta: compiling", daemon=True).start()


def takes(x: Any) -> bool:
    """Whether kernels take it, now; where C++ doubts, `zeta.kernels.support` decides."""
    if extension is None or torch.compiler.is_compiling() or not extension.takes(x):
        return takes_kernels() and is_plain(x)
    return not compiler.disabled()


def build() -> None:
    """Compile it, unless it is in the cache; :data:`problem` says why there is none."""
    global problem
    if extension is not None:
        return
    try:
        path = compiler.cached(_key())
        with compiler.locked(path):
            if not compiler.is_intact(path):
                compiler.replace(path, compiler.compiled(_source(), _flags()))
        _load_cached()
    except (OSError, ImportError, compiler.KernelError) as error:
        problem = str(error)


def _build_aside() -> None:
    """Behind all other work; Linux knows a thread's own priority, which the compiler inherits."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
    build()


def address(run: Any) -> int:
    """Where a kernel's code is; 0 if there is no kernel."""
    return ctypes.cast(run, ctypes.c_void_p).value or 0 if run else 0


def after_fork() -> None:
    """As `zeta.kernels.cpu`, where threads do not survive."""
    if extension is not None:
        extension.set_parallel_for(0)


def is_cached() -> bool:
    """Whether it has been compiled on this machine, for this version of PyTorch."""
    try:
        return compiler.is_intact(compiler.cached(_key()))
    except OSError:  # the cache cannot be used
        return False


def _load_cached() -> None:
    global extension
    if not is_cached():
        return
    path = compiler.cached(_key())
    loader = ExtensionFileLoader("zeta.native", str(path))
    spec = util.spec_from_file_location("native", path, loader=loader)
    assert spec is not None
    module = util.module_from_spec(spec)
    module.set_parallel_for(cpu.parallel_for)
    extension = module


def _source() -> str:
    return (Path(runtime.__file__).parent / "cpp" / "native.cpp").read_text(encoding="utf-8")


def _key() -> bytes:
    parts = (torch.__version__, torch.version.git_version, sys.version, _flags(), _source())
    return repr(parts).encode()


def _flags() -> tuple[str, ...]:
    folder = Path(torch.__file__).parent
    headers = (
        folder / "include",
        folder / "include/torch/csrc/api/include",
        sysconfig.get_path("include"),
    )
    found = ["-std=c++20", "-O2", "-fPIC", "-shared", "-w", *(f"-isystem{h}" for h in headers)]
    if platform.system() == "Darwin":
        return *found, "-undefined", "dynamic_lookup"
    abi = int(torch.compiled_with_cxx11_abi())
    libraries = ("-ltorch_python", "-ltorch_cpu", "-lc10")
    return *found, f"-D_GLIBCXX_USE_CXX11_ABI={abi}", f"-L{folder / 'lib'}", *libraries


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
