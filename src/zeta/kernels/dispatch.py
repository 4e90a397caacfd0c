"""Decides whether a formula runs as a kernel.

A kernel takes plain eager CPU or CUDA tensors. Whatever wants to see operations instead (a
compiler, an exporter, a functorch transform, forward-mode differentiation, a tensor subclass, a
dispatch mode) gets the plain formula, and so does a double backward.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from zeta._backends.torch_plain import ARRAYS
from zeta._formula import Formula
from zeta.kernels import cpu, gpu, native
from zeta.kernels.build import DTYPES, Run, constant
from zeta.kernels.function import apply, gradients
from zeta.kernels.operands import (
    Layout,
    Number,
    Packing,
    Whereabouts,
    alike,
    broadcasts,
    dense,
    extents,
    find_layout,
    find_rows,
    in_shape,
)

_sound: WeakSet[Formula] = WeakSet()


class _Deciding(threading.local):
    """Whether this thread tries a formula out: those within it need no kernels of their own."""

    active = False


_deciding = _Deciding()


def fused(
    formula: Formula,
    inputs: tuple[Any, ...],
    parameters: Mapping[str, Any],
    packing: Packing | None = None,
) -> Tensor | None:
    """The formula by a kernel, differentiable; None if the plain formula must do.

    Args:
        formula: the formula.
        inputs: of whatever type; with a packing, the one tensor that holds them.
        parameters: every parameter's value by name.
        packing: how the formula's two inputs lie in one tensor.
    """
    found = prepared(formula, inputs, parameters, packing)
    if found is None:
        return None
    call, tensors = found
    y = _launched(call, tensors)
    if y is None and torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
        y = apply(call, *tensors)
    return call.forward(tensors)[0] if y is None else y


def prepared(
    formula: Formula,
    inputs: tuple[Any, ...],
    parameters: Mapping[str, Any],
    packing: Packing | None = None,
) -> tuple[_Elementwise, list[Tensor]] | None:
    """The kernels, as :func:`fused` is asked for them, and the tensors that they take."""
    x = inputs[0]
    if _deciding.active or not native.takes(x):
        return None
    tensors = [*inputs]
    for other in inputs[1:]:
        if not native.takes(other) or (other.shape, other.dtype, other.device) != (
            x.shape,
            x.dtype,
            x.device,
        ):
            return None
    device, module = x.device, gpu if x.is_cuda else cpu
    numbers: list[Number] = []
    varied: list[Tensor] = []
    for name, value in parameters.items():
        length = formula.vectors.get(name, 0)
        if type(value) is float or type(value) is int:
            if value == 1:
                numbers.append(1.0)
                continue
            # As a tensor, so that calls with another number are alike.
            value = constant(float(value), x.dtype, device)
        elif type(value) is tuple:
            if not all([type(number) is float or type(number) is int for number in value]):
                return None
            value = constant(value, x.dtype, device)
        elif not native.takes(value) or value.device != device or not broadcasts(value, x, length):
            return None
        if value.numel() != (length or 1):
            varied.append(value[0] if length else value)
        numbers.append(None)
        tensors.append(value)
    layout: Layout | Whereabouts | None = None
    if packing or varied:
        layout = packing.layout(dense(x), varied) if packing else find_layout(dense(x), varied)
        if layout is None:
            return None
    elif not all([x.is_contiguous() for x in inputs]):
        layout = find_rows(x.shape, tuple([x.stride() for x in inputs]))
    call = _call(formula, module, x.dtype, tuple(numbers), layout, packing)
    return None if call.run is None else (call, tensors)


def for_prepared(
    needed: Sequence[bool], numbers: Sequence[Number], inputs: int
) -> tuple[bool, ...]:
    """Who needs a gradient, for the tensors of :func:`prepared`: numbers but 1 are among them.

    Args:
        needed: of each input, and of each parameter that was given as a tensor.
        numbers: the parameters as they were given, in the formula's order; None for a tensor.
        inputs: how many tensors hold the inputs.
    """
    rest = iter(needed[inputs:])
    flags = [number is None and next(rest) for number in numbers if number != 1]
    return (*needed[:inputs], *flags)


class _Elementwise:
    """The kernels of a formula, and what they are told beside tensors; shared by calls alike.

    Attributes:
        launcher: the module for the device, `zeta.kernels.cpu` or `zeta.kernels.gpu`.
        numbers: the parameters in the formula's order: 1, or None for a tensor.
        run: the kernel for the value; None if there is none.
        plan: what the launcher in C++ knows these calls by; 0 if it does not take them.
    """

    plan: int | None = None

    def __init__(
        self,
        formula: Formula,
        launcher: ModuleType,
        dtype: torch.dtype,
        numbers: tuple[Number, ...],
        layout: Layout | Whereabouts | None,
    ) -> None:
        self.formula = formula
        self.launcher = launcher
        self.dtype = dtype
        self.numbers = numbers
        self.found = found = layout if isinstance(layout, Whereabouts) else None
        self.layout = layout.layout if isinstance(layout, Whereabouts) else layout
        self._reads = found.forward if found else None
        self._writes = found.backward if found else None
        self._count = self._input_tensors()
        # Of each parameter that is a tensor, how long the vector is; 0 for a scalar.
        self._lengths = [
            formula.vectors.get(name, 0)
            for name, number in zip(formula.parameters, numbers, strict=True)
            if number is None
        ]
        self.run = self._kernel(()) if is_sound(formula) else None
        self._gradient_runs: dict[tuple[bool, ...], Run | None] = {}

    def _input_tensors(self) -> int:
        """How many tensors hold the inputs."""
        return len(self.formula.inputs)

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[()]]:
        """The value; nothing is kept."""
        elements = self._elements(tensors)
        y = self._empty(elements[0])
        scalars = self._scalars(tensors)
        self.launcher.launch(self.run, elements, (y,), None, 0, scalars, self.layout, self._reads)
        return y, ()

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        upstream: Tensor,
        needed: tuple[bool, ...],
    ) -> Sequence[Tensor] | None:
        """The gradients of the tensors that need one; None if there is no kernel."""
        run = self._gradient_run(needed)
        if run is None:
            return None
        n = self._count
        elements = self._elements(tensors)
        gradients, stores = self._stores(elements, needed[:n])
        if any(upstream.stride()) or not self.launcher.READS_ONE_UPSTREAM:
            upstream = alike(upstream, self._strides(elements[0]))
        parameters = zip(tensors[n:], self._lengths, needed[n:], strict=True)
        learned = [(parameter, length) for parameter, length, need in parameters if need]
        counts = [length or 1 for _, length in learned]
        scalars = self._scalars(tensors)
        sums = self.launcher.launch(
            run, elements, stores, upstream, sum(counts), scalars, self.layout, self._writes
        )
        if sums is None:
            return gradients
        pairs = zip(sums.split(counts), learned, strict=True)
        return gradients + [
            in_shape(totals, parameter, self.layout, length > 0)
            for totals, (parameter, length) in pairs
        ]

    def gradients(
        self, tensors: Sequence[Tensor], upstream: Tensor, needed: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        """The gradients by the tensors, None where not needed, by a kernel or plain operations."""
        return gradients(self, tensors, (), upstream, needed)

    def gradient_address(self, wanted: int) -> int:
        """The kernel for the gradients of the tensors whose bits are set; for C++."""
        count = self._count + self.numbers.count(None)
        needed = tuple([bool(wanted >> i & 1) for i in range(count)])
        return native.address(self._gradient_run(needed))

    def told(self) -> tuple[Any, ...] | None:
        """What `native.cpp` is told of these calls; None if it does not take them."""
        has_rows = self.layout is not None and self.layout.channel_shape
        if self.launcher is gpu or has_rows or len(self.numbers) > native.MOST_PARAMETERS:
            return None
        is_double, is_packed = self.dtype == torch.float64, self._count < len(self.formula.inputs)
        address, lengths = native.address(self.run), tuple(self._lengths)
        return self, address, self._count, lengths, is_double, is_packed, self._lies(), -1

    def _lies(self) -> tuple[Any, ...] | None:
        """How inputs lie that are not dense and alike: see `native.cpp`."""
        if self.found is None:
            return None
        _, own, shape, strides, _, (size, *forward), (_, *backward) = self.found
        return own, shape, strides, extents(self.layout, size), *forward, *backward

    def _scalars(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The parameters as a kernel reads them, a vector's numbers one by one."""
        parameters = tensors[self._count :]
        if not any(self._lengths):
            return parameters
        arithmetic = DTYPES[self.dtype][1]
        return [
            scalar
            for parameter, length in zip(parameters, self._lengths, strict=True)
            for scalar in (parameter.to(arithmetic).unbind() if length else (parameter,))
        ]

    def _elements(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The inputs as a kernel reads them, whatever hooks made of what was saved."""
        if self.found:
            return [*map(alike, tensors, self.found.own)]
        x = dense(tensors[0])
        if self._count == 1:
            return (x,)
        return (x, *[alike(other, x.stride()) for other in tensors[1 : self._count]])

    def _empty(self, x: Tensor) -> Tensor:
        """Memory for the value."""
        if self.found is None:
            return torch.empty_like(x)
        shape, strides = self.found.shape, self.found.strides
        return torch.empty_strided(shape, strides, dtype=x.dtype, device=x.device)

    def _strides(self, x: Tensor) -> tuple[int, ...]:
        """How the value and the upstream gradient lie in memory."""
        return self.found.strides if self.found else x.stride()

    def _stores(
        self, elements: Sequence[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """Memory for the inputs' gradients: as tensors, and as the kernel writes them."""
        gradients = [self._empty(x) for x, need in zip(elements, needed, strict=True) if need]
        return gradients, gradients

    def plain(self, tensors: Sequence[Tensor]) -> Tensor:
        """The value by plain, differentiable operations."""
        rest = iter(tensors[self._count :])
        parameters = {
            name: next(rest) if number is None else number
            for name, number in zip(self.formula.parameters, self.numbers, strict=True)
        }
        y: Tensor = ARRAYS.evaluate(self.formula, self._inputs(tensors), parameters)
        return y

    def _inputs(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return tensors[: self._count]

    def _gradient_run(self, needed: tuple[bool, ...]) -> Run | None:
        """The kernel for the gradients of the tensors that need one."""
        if needed not in self._gradient_runs:
            names = zip(self.formula.parameters, self.numbers, strict=True)
            learned = (self.formula.scalars_of(name) for name, number in names if number is None)
            operands = (*self._operands(), *learned)
            wanted = (o for o, need in zip(operands, needed, strict=True) if need)
            self._gradient_runs[needed] = self._kernel(tuple(itertools.chain(*wanted)))
        return self._gradient_runs[needed]

    def _operands(self) -> Sequence[tuple[str, ...]]:
        """The inputs' names that each of the tensors with inputs holds."""
        return [(name,) for name in self.formula.inputs]

    def _kernel(self, wanted: tuple[str, ...]) -> Run | None:
        pairs = bool(self.found and self.found.pairs)
        run: Run | None = self.launcher.kernel(
            self.formula, self.dtype, self.numbers, self.layout, wanted, pairs
        )
        return run


class _Packed(_Elementwise):
    """The same where one tensor holds both inputs, which the kernels read where they lie."""

    def __init__(self, packing: Packing, *told: Any) -> None:
        self._packing = packing
        super().__init__(*told)

    def _input_tensors(self) -> int:
        return 1

    def _operands(self) -> Sequence[tuple[str, ...]]:
        return [self.formula.inputs]

    def _inputs(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._packing.views(tensors[0])

    def _elements(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        (packed,) = super()._elements(tensors)
        return packed, packed

    def _stores(
        self, elements: Sequence[Tensor], needed: Sequence[bool]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        if not needed[0]:
            return [], ()
        if not self._packing.reuse:
            gradient = torch.empty_like(elements[0])
            return [gradient], (gradient, gradient)
        # Who has saved the inputs, for a second backward say, is told by autograd.
        gradient = elements[0].detach()
        torch.autograd.graph.increment_version(gradient)
        return [gradient], (gradient, gradient)

    def told(self) -> tuple[Any, ...] | None:
        """What `native.cpp` is told of these calls; None if it does not take them."""
        return None if self._packing.reuse else super().told()


def _launched(call: _Elementwise, tensors: Sequence[Tensor]) -> Tensor | None:
    """The value by the launcher in C++; None if it is not there, or does not take the tensors."""
    if native.extension is None:
        native.count()
        return None
    if call.plan is None:
        told = call.told()
        call.plan = native.extension.plan(*told) if told else 0
    y: Tensor | None = native.extension.launch(call.plan, *tensors) if call.plan else None
    return y


@lru_cache(maxsize=256)
def _call(
    formula: Formula,
    module: ModuleType,
    dtype: torch.dtype,
    numbers: tuple[Number, ...],
    layout: Any,
    packing: Packing | None,
) -> _Elementwise:
    if packing:
        return _Packed(packing, formula, module, dtype, numbers, layout)
    return _Elementwise(formula, module, dtype, numbers, layout)


def is_sound(formula: Formula) -> bool:
    """Whether it maps a tensor to one of the same shape, which a kernel would not notice."""
    if formula not in _sound:
        _deciding.active = True
        try:
            y = formula.function(*[torch.zeros(2)] * len(formula.inputs), **formula.parameters)
        except Exception:  # which plain operations will raise again
            return False
        finally:
            _deciding.active = False
        if not isinstance(y, Tensor) or y.shape != (2,):
            return False
        _sound.add(formula)
    return True
