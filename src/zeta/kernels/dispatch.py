"""Decides whether a formula runs as a kernel, and makes the kernel differentiable.

A kernel takes plain eager CPU or CUDA tensors. Whatever wants to see operations instead (a
compiler, an exporter, a functorch transform, forward-mode differentiation, a tensor subclass, a
dispatch mode) gets the plain formula, and so does a double backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from zeta._formula import Formula
from zeta.kernels import compiler, cpu, gpu
from zeta.kernels.operands import Layout, Parameter, broadcasts, dense, find_layout

# Evaluates a formula by plain, differentiable operations.
Plain = Callable[[Formula, Tensor, dict[str, Any]], Tensor]

# What a launcher made of a program.
Run = Any

_PLAIN_TYPES = (Tensor, nn.Parameter)
_sound: WeakSet[Formula] = WeakSet()


def fused(formula: Formula, x: Any, parameters: Mapping[str, Any], plain: Plain) -> Tensor | None:
    """The formula by a kernel, differentiable; None if the plain formula must do.

    Args:
        formula: the formula.
        x: the input, of whatever type.
        parameters: every parameter's value by name.
        plain: evaluates the formula by plain operations, for a double backward.
    """
    if not takes_kernels() or not is_plain(x):
        return None
    device, on_cpu, dtypes = x.device, x.is_cpu, cpu.DTYPES
    values: list[Parameter] = []
    numbers: list[float | None] = []
    tensors: list[Tensor] = []
    varied: list[Tensor] = []
    for value in parameters.values():
        if type(value) is float or type(value) is int:
            values.append(float(value))
            numbers.append(float(value))
            continue
        # A scalar on a processor, of which five are checked per call, is known by less than
        # `is_plain` asks; that its number is in memory, the launcher sees.
        if not (
            on_cpu
            and type(value) in _PLAIN_TYPES
            and not value.dim()
            and value.is_cpu
            and value.dtype in dtypes
            and not value.is_neg()
        ):
            if not is_plain(value) or value.device != device or not broadcasts(value, x):
                return None
            if value.numel() != 1:
                varied.append(value)
        values.append(value)
        numbers.append(None)
        tensors.append(value)
    x_dense = dense(x)
    layout = find_layout(x_dense, varied) if varied else None
    if varied and layout is None:
        return None
    call = _call(formula, gpu if x.is_cuda else cpu, x.dtype, tuple(numbers), layout, plain)
    if call.run is None:
        return None
    try:
        if torch.is_grad_enabled() and (x.requires_grad or any([t.requires_grad for t in tensors])):
            y: Tensor = _apply(call, x, *tensors)
        else:
            y = call.launcher.forward(call.run, x_dense, values, layout)
    except cpu.NoMemoryError:
        return None
    return y


class _Call:
    """What backward needs beside tensors, and the kernels; shared by all calls that are alike.

    Attributes:
        launcher: the module for the device, `zeta.kernels.cpu` or `zeta.kernels.gpu`.
        numbers: the parameters in the formula's order; None where one is a tensor.
        run: the kernel for the value; None if there is none.
    """

    def __init__(
        self,
        formula: Formula,
        launcher: ModuleType,
        dtype: torch.dtype,
        numbers: tuple[float | None, ...],
        layout: Layout | None,
        plain: Plain,
    ) -> None:
        self.formula = formula
        self.launcher = launcher
        self.dtype = dtype
        self.numbers = numbers
        self.layout = layout
        self.plain = plain
        self.run = self._kernel(()) if _is_sound(formula) else None
        self._gradient_runs: dict[tuple[bool, ...], Run | None] = {}

    def values(self, tensors: Sequence[Tensor]) -> list[Parameter]:
        """Every parameter, in the formula's order."""
        rest: Iterator[Tensor] = iter(tensors)
        return [next(rest) if number is None else number for number in self.numbers]

    def gradient_run(self, needed: tuple[bool, ...]) -> Run | None:
        """The kernel for the gradients by those of the inputs that need one."""
        if needed not in self._gradient_runs:
            names = zip(self.formula.parameters, self.numbers, strict=True)
            inputs = ("x", *(name for name, number in names if number is None))
            wanted = (name for name, need in zip(inputs, needed, strict=True) if need)
            self._gradient_runs[needed] = self._kernel(tuple(wanted))
        return self._gradient_runs[needed]

    def _kernel(self, wanted: tuple[str, ...]) -> Run | None:
        run: Run | None = self.launcher.kernel(
            self.formula, self.dtype, self.numbers, self.layout, wanted
        )
        return run


_call = lru_cache(maxsize=256)(_Call)


class _Fused(torch.autograd.Function):
    """Saves the input alone, and the parameters, which are small."""

    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.call = call
        ctx.save_for_backward(x, *tensors)
        ctx.set_materialize_grads(False)
        y: Tensor = call.launcher.forward(call.run, dense(x), call.values(tensors), call.layout)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        if upstream is None:
            return (None, *(None for _ in needed))
        gradients = iter(_gradients(ctx.call, ctx.saved_tensors, upstream, needed))
        return (None, *(next(gradients) if need else None for need in needed))


# Function.apply itself first looks for functorch transforms, as `takes_kernels` has done.
_apply = super(torch.autograd.Function, _Fused).apply


def _gradients(
    call: _Call, inputs: Sequence[Tensor], upstream: Tensor, needed: tuple[bool, ...]
) -> Sequence[Tensor | None]:
    """Of the needed inputs; by plain operations where these are to be differentiated again."""
    if torch.is_grad_enabled() or not takes_kernels() or not is_plain(upstream):
        return _plain_gradients(call, inputs, upstream, needed)
    run = call.gradient_run(needed)
    if run is None:
        return _plain_gradients(call, inputs, upstream, needed)
    x, *tensors = inputs
    learned = [tensor for tensor, need in zip(tensors, needed[1:], strict=True) if need]
    gradients: list[Tensor] = call.launcher.backward(
        run, dense(x), call.values(tensors), call.layout, upstream, needed[0], learned
    )
    return gradients


def _plain_gradients(
    call: _Call, inputs: Sequence[Tensor], upstream: Tensor, needed: tuple[bool, ...]
) -> Sequence[Tensor | None]:
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that a tensor given as two parameters gets a gradient for each.
        views = [t.view_as(t) if need else t for t, need in zip(inputs, needed, strict=True)]
        x, *tensors = views
        names = call.formula.parameters
        y = call.plain(call.formula, x, dict(zip(names, call.values(tensors), strict=True)))
    sources = [view for view, need in zip(views, needed, strict=True) if need]
    return torch.autograd.grad(y, sources, upstream, create_graph=create_graph, allow_unused=True)


def _is_sound(formula: Formula) -> bool:
    """Whether it maps a tensor to one of the same shape, which a kernel would not notice."""
    if formula not in _sound:
        try:
            y = formula.function(torch.zeros(2), **formula.parameters)
        except Exception:  # which plain operations will raise again
            return False
        if not isinstance(y, Tensor) or y.shape != (2,):
            return False
        _sound.add(formula)
    return True


def is_eager() -> bool:
    """Whether operations run one by one: no compiler, exporter, transform or dispatch mode."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
    )


def takes_kernels() -> bool:
    """Whether nothing is active that must see the single operations."""
    return is_eager() and not compiler.disabled() and forward_ad._current_level < 0


def is_plain(x: Any) -> bool:
    """Whether it is an ordinary CPU or CUDA tensor of a dtype that kernels take."""
    if type(x) not in _PLAIN_TYPES or x.dtype not in cpu.DTYPES:
        return False
    return _keys(x) in _CPU_KEYS or (x.is_cuda and _keys(x) in _plain_keys("cuda"))


def _keys(x: Tensor) -> int:
    """The dispatch keys of a tensor: what kind of tensor PyTorch takes it for."""
    keys: int = torch._C._dispatch_keys(x).raw_repr()
    return keys


@cache
def _plain_keys(device: str) -> set[int]:
    """The keys of an ordinary tensor, made in inference mode or not."""
    found = set()
    for inference in (True, False):
        with torch.inference_mode(inference):
            found.add(_keys(torch.empty(0, device=device)))
    return found


_CPU_KEYS = _plain_keys("cpu")
