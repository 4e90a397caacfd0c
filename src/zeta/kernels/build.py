"""From a formula to a kernel that can be launched: one cache, one way to say that there is none."""

from __future__ import annotations

import ctypes
import hashlib
import linecache
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.kernels import compiler
from zeta.kernels.fingerprint import fingerprint
from zeta.kernels.operands import Layout, Parameter

# What a launcher calls: a C function of the packed arguments, or a Triton kernel.
Run = Any

# Name for the code generator, and the dtype that arithmetic runs in.
DTYPES = {
    torch.float16: ("float16", torch.float32),
    torch.bfloat16: ("bfloat16", torch.float32),
    torch.float32: ("float32", torch.float32),
    torch.float64: ("float64", torch.float64),
}

# By the formula that they were made of.
_kernels: WeakKeyDictionary[Formula, dict[object, Run | None]] = WeakKeyDictionary()
# Held while a kernel is made; a fork replaces it.
_making = threading.Lock()


def elementwise_cpp(
    formula: Formula,
    dtype: torch.dtype,
    parameters: Sequence[Parameter],
    layout: Layout | None,
    wanted: tuple[str, ...],
    pairs: bool = False,
) -> Run | None:
    """The C++ kernel of these gradients, or of the value if none are wanted; None if there is none.

    A number that is 1 is compiled in: with exo's alpha, two exponentials become one.

    Args:
        formula: the formula.
        dtype: of the inputs.
        parameters: in the formula's order; of interest are those that are numbers.
        layout: how the parameters lie along the inputs; None if each is one value.
        wanted: names of inputs, and of scalars that are in tensors; in the formula's order.
        pairs: whether two inputs, and what is written for them, lie element by element in turn.
    """
    ones = are_one(parameters)
    variant = (DTYPES[dtype][0], layout is not None and layout.columns, pairs)

    def source() -> str:
        from zeta.codegen import cpp

        return cpp.source(_program(formula, ones, wanted), *variant)

    return _kept(
        formula,
        ("cpp", *variant, ones, wanted),
        lambda: _library(formula, (variant, ones, wanted), source),
    )


def elementwise_triton(
    formula: Formula,
    parameters: Sequence[Parameter],
    wanted: tuple[str, ...],
    pairs: bool = False,
) -> Run | None:
    """As :func:`elementwise_cpp`; one Triton kernel serves all dtypes and layouts."""
    ones = are_one(parameters)

    def make() -> Run:
        from zeta.codegen import triton

        program = _program(formula, ones, wanted)
        return _triton_kernel(formula.name, triton.source(program, pairs))

    return _kept(formula, ("triton", ones, wanted, pairs), make)


def softmax_cpp(formula: Formula, dtype: torch.dtype, logs: bool) -> Run | None:
    """The kernel of softmax(formula(x)), or its logarithm, both ways; None if there is none."""
    name = DTYPES[dtype][0]

    def source() -> str:
        from zeta.codegen import cpp

        return cpp.softmax_source(*_value_and_slope(formula), name, logs)

    key = ("softmax", name, logs)
    return _kept(formula, key, lambda: _library(formula, key, source))


def mixture_cpp(formula: Formula, dtype: torch.dtype) -> Run | None:
    """The kernel of softmax heads' rows, with this formula of logits; None if there is none."""
    name = DTYPES[dtype][0]

    def source() -> str:
        from zeta.codegen import cpp

        return cpp.mixture_source(*_value_and_slope(formula), name)

    key = ("mixture", name)
    return _kept(formula, key, lambda: _library(formula, key, source))


def functions_triton(formula: Formula) -> Run | None:
    """What the Triton kernels around a formula are told of it: functions by name, for all dtypes.

    As :func:`mixture_cpp` and :func:`softmax_cpp`, None if there are none.
    """

    def make() -> Run:
        from zeta.codegen import triton

        return _triton_module(formula.name, triton.functions_source(*_value_and_slope(formula)))

    return _kept(formula, "triton functions", make)


def are_one(parameters: Sequence[Parameter]) -> tuple[bool, ...]:
    """Which parameters are the number 1, which kernels have compiled in."""
    return tuple([type(p) is float and p == 1 for p in parameters])


@lru_cache(maxsize=256)
def constant(value: float | tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A parameter that is a number, or a vector of them, as a tensor beside those of a dtype."""
    with torch.inference_mode(False):  # for backward may keep it
        return torch.tensor(value, dtype=DTYPES[dtype][1], device=device)


def _program(formula: Formula, ones: tuple[bool, ...], wanted: tuple[str, ...]) -> Any:
    from zeta.codegen import trace

    constants = {name: 1.0 for name, one in zip(formula.parameters, ones, strict=True) if one}
    if wanted:
        return trace.gradient_program(formula, constants, wanted)
    return trace.value_program(formula, constants)


def _value_and_slope(formula: Formula) -> tuple[Any, Any]:
    """Programs of the value, and of the derivatives by the input and by every parameter."""
    from zeta.codegen import trace

    wanted = (*formula.inputs, *formula.scalars)
    return trace.value_program(formula, {}), trace.gradient_program(formula, {}, wanted)


def _kept(owner: Formula, key: object, make: Callable[[], Run]) -> Run | None:
    """What was made at first use; None, said once, where nothing could be made."""
    try:
        return _kernels[owner][key]
    except KeyError:
        with _making:
            kernels = _kernels.setdefault(owner, {})
            if key not in kernels:
                kernels[key] = _made(owner, make)
            return kernels[key]


def _made(owner: Formula, make: Callable[[], Run]) -> Run | None:
    try:
        return make()
    except compiler.KernelError as error:
        compiler.warn_once(f"zeta: {owner.name} runs as plain PyTorch operations: {error}")
    except NoKernelError as error:
        compiler.warn_without_kernel(owner, error)
    return None


def _library(formula: Formula, key: object, source: Callable[[], str]) -> Run:
    content = fingerprint(formula)
    run = compiler.load(content and repr((content, key)).encode(), source).zeta_kernel
    run.argtypes, run.restype = [ctypes.c_char_p], ctypes.c_int
    return run


def _triton_kernel(formula: str, source: str) -> Run:
    return _triton_module(formula, source)["kernel"]


def _triton_module(formula: str, source: str) -> dict[str, Any]:
    # Triton reads a kernel's source through its file; this one exists in linecache alone.
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    name = f"<zeta kernel {formula} {digest}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "zeta.kernels.generated"}
    exec(compile(source, name, "exec"), namespace)
    return namespace


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _after_fork() -> None:
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
