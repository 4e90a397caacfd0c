"""Roles and layouts of a kernel's operands.

Elements, the formula's inputs and what is written, have one shape and lie in memory alike.
Parameters have one value, one per channel, or one per column, a channel whose elements are not
neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# What a call told as a number, of a vector as several; None where it is a tensor.
Number = float | tuple[float, ...] | None
Parameter = Number | Tensor

# Rows shorter than this are repeated, so that vectors need not straddle them.
_SHORTEST_ROW = 512


@dataclass(frozen=True)
class Layout:
    """A dense tensor seen as (outer, channels, inner) in the order of its memory.

    Attributes:
        order: the tensor's dimensions, outermost in memory first.
        channel_shape: the sizes of the adjacent dimensions that parameters vary along.
        before: how many dimensions lie outside those.
        outer, channels, inner: the product of the sizes outside, of and inside of them.
        apart: whether there is something between a row of channels and the next.
    """

    order: tuple[int, ...]
    channel_shape: tuple[int, ...]
    before: int
    outer: int
    channels: int
    inner: int
    apart: bool = False

    @property
    def columns(self) -> bool:
        """Whether neighbouring elements have different parameters."""
        return self.inner == 1

    @property
    def repeats(self) -> int:
        """How often a row of channels is repeated to make a row of decent length."""
        return max(1, _SHORTEST_ROW // self.channels) if self.columns and not self.apart else 1

    @property
    def row(self) -> int:
        """How many values of each parameter the kernel reads."""
        return self.channels * self.repeats

    def spread(self, parameter: Tensor) -> Tensor:
        """One value per channel, or per column of the repeated row."""
        if self._lies_so(parameter):
            return parameter
        aligned = parameter.reshape((1,) * (len(self.order) - parameter.dim()) + parameter.shape)
        own = aligned.permute(self.order).reshape(self._own_shape(aligned))
        flat = own.expand(self.channel_shape).reshape(-1).contiguous()
        return flat.repeat(self.repeats) if self.repeats > 1 else flat

    def gathered(self, gradient: Tensor, parameter: Tensor) -> Tensor:
        """The sum over all that shares a value of the parameter, in the parameter's shape."""
        if self._lies_so(parameter):
            return gradient.view(parameter.shape)
        if self.repeats > 1:
            gradient = gradient.view(self.repeats, self.channels).sum(0)
        whole = [1] * len(self.order)
        whole[self.before : self.before + len(self.channel_shape)] = self.channel_shape
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return gradient.view(whole).permute(back).sum_to_size(parameter.shape)

    def _lies_so(self, parameter: Tensor) -> bool:
        """Whether the parameter's memory is the row of values already, as is usual."""
        return (
            parameter.numel() == self.row
            and parameter.is_contiguous()
            and self.order == tuple(range(len(self.order)))
        )

    def _own_shape(self, aligned: Tensor) -> list[int]:
        sizes = [aligned.shape[d] for d in self.order]
        return sizes[self.before : self.before + len(self.channel_shape)]


def find_layout(x: Tensor, parameters: Sequence[Tensor], apart: bool = False) -> Layout | None:
    """The layout of a dense ``x``; None if it is empty or parameters vary along dims apart."""
    if x.numel() == 0:
        return None
    # Size-1 dimensions may have any stride; they matter nowhere.
    strides = x.stride()
    order = tuple(sorted(range(x.dim()), key=lambda d: (-strides[d], d)))
    varied = {
        x.dim() - i
        for parameter in parameters
        for i, size in enumerate(reversed(parameter.shape), start=1)
        if size != 1
    }
    places = [place for place, d in enumerate(order) if d in varied]
    first, last = places[0], places[-1]
    sizes = [x.shape[d] for d in order]
    if any(sizes[i] != 1 and order[i] not in varied for i in range(first, last + 1)):
        return None
    shape = tuple(sizes[first : last + 1])
    return Layout(
        order,
        shape,
        first,
        math.prod(sizes[:first]),
        math.prod(shape),
        math.prod(sizes[last + 1 :]),
        apart,
    )


@dataclass(frozen=True)
class Packing:
    """How two inputs lie in one tensor, along one of its dimensions.

    Attributes:
        dim: the dimension, from 0 on.
        interleaved: whether they lie in turn, a b a b …, and not one after the other.
        first: which of them comes first, 0 or 1.
        reuse: whether their gradients are written over them.
    """

    dim: int
    interleaved: bool
    first: int
    reuse: bool = False

    def views(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """The two inputs, in the formula's order."""
        if self.interleaved:
            parts = packed.unflatten(self.dim, (-1, 2)).unbind(self.dim + 1)
        else:
            parts = packed.chunk(2, self.dim)
        return (parts[1], parts[0]) if self.first else (parts[0], parts[1])

    def layout(self, packed: Tensor, parameters: Sequence[Tensor]) -> Whereabouts | None:
        """How a kernel reads the dense ``packed``; None if it cannot.

        Args:
            packed: the tensor.
            parameters: those that differ between elements.
        """
        shapes = tuple([p.shape for p in parameters])
        return _packed_layout(self, packed.shape, packed.stride(), shapes)


class Places(NamedTuple):
    """Where a kernel's operands lie in tensors that hold more than one.

    Attributes:
        size: elements of each operand.
        offsets: from the start of its tensor to an operand, in elements.
        steps: from one row of it to its next, likewise.
    """

    size: int
    offsets: tuple[int, ...]
    steps: tuple[int, ...]


class Whereabouts(NamedTuple):
    """How a kernel reads inputs that lie otherwise than dense and alike.

    Attributes:
        layout: of each input.
        own: the strides of the tensors that hold them.
        shape, strides: of the value, dense.
        pairs: whether two inputs in one tensor lie element by element in turn.
        forward, backward: the inputs and the value; the inputs and their gradients.
    """

    layout: Layout
    own: tuple[tuple[int, ...], ...]
    shape: torch.Size
    strides: tuple[int, ...]
    pairs: bool
    forward: Places
    backward: Places


@lru_cache(maxsize=256)
def _packed_layout(
    packing: Packing,
    shape: torch.Size,
    strides: tuple[int, ...],
    parameters: tuple[torch.Size, ...],
) -> Whereabouts | None:
    packed = torch.empty_strided(shape, strides, device="meta")
    views = packing.views(packed)
    view = views[0]
    if view.numel() == 0:
        return None
    like = torch.empty_like(view)
    inside = strides[packing.dim]
    pairs = packing.interleaved and inside == 1
    if pairs:
        run = view.numel()
    else:
        run = inside if packing.interleaved else shape[packing.dim] // 2 * inside
    if parameters:
        shaped = [torch.empty(p, device="meta") for p in parameters]
        layout = find_layout(like, shaped, apart=not pairs)
    else:
        layout = Layout((), (), 0, view.numel() // run, 1, run, apart=True)
    if layout is None or not (pairs or layout.channels * layout.inner == run):
        return None
    row, size = layout.row * layout.inner, view.numel()
    offsets = tuple(int(v.storage_offset()) for v in views)
    forward = Places(size, (*offsets, 0), (2 * row, 2 * row, row))
    backward = Places(size, 2 * offsets, (2 * row,) * 4)
    dense_strides = like.stride()
    return Whereabouts(layout, (strides,), view.shape, dense_strides, pairs, forward, backward)


@lru_cache(maxsize=256)
def find_rows(shape: torch.Size, strides: tuple[tuple[int, ...], ...]) -> Whereabouts | None:
    """How rows of inputs with these strides are read, not all of which are contiguous.

    None unless in each of them the rows are dense, and equally far from one to the next.
    """
    whole = torch.empty(shape, device="meta").stride()
    dims = [d for d in range(len(shape)) if shape[d] != 1]
    last = max(d for d in dims if any(own[d] != whole[d] for own in strides))
    row, outer = math.prod(shape[last + 1 :]), [d for d in dims if d <= last]
    steps = [own[last] for own in strides]
    even = all(
        step >= row and all(own[d] * row == step * whole[d] for d in outer)
        for own, step in zip(strides, steps, strict=True)
    )
    if row < 2 or not even:
        return None
    count, rows = len(strides), math.prod(shape[d] for d in outer)
    places = Places(rows * row, (0,) * 2 * count, (*steps, *[row] * count))
    layout = Layout((), (), 0, rows, 1, row, apart=True)
    return Whereabouts(layout, strides, shape, whole, False, places, places)


def extents(layout: Layout | None, size: int) -> tuple[int, int, int]:
    """(outer, channels, inner) as kernels take them; outer in elements where inner is 1.

    Args:
        layout: None if each parameter is one value.
        size: the number of elements.
    """
    if layout is None:
        return 1, 1, size
    if layout.columns:
        return size, layout.row, 1
    return layout.outer, layout.channels, layout.inner


def in_shape(
    totals: Tensor, parameter: Tensor, layout: Layout | None, is_vector: bool = False
) -> Tensor:
    """The sums that a kernel formed, as the parameter's gradient.

    Args:
        totals: one sum per scalar, or with a layout a row of them.
        parameter: a scalar, one per channel, or a vector of such.
        layout: how the parameter lies along the inputs.
        is_vector: whether the parameter's first dimension is that of the totals.
    """
    if layout is None:
        summed = totals.view(parameter.shape)
    elif is_vector:
        pairs = zip(totals, parameter, strict=True)
        summed = torch.stack([layout.gathered(total, each) for total, each in pairs])
    else:
        summed = layout.gathered(totals[0], parameter)
    return summed if parameter.dtype == totals.dtype else summed.to(parameter.dtype)


def broadcasts(parameter: Tensor, x: Tensor, length: int = 0) -> bool:
    """Whether the parameter has size 1 or the input's size in each of the input's dimensions.

    Args:
        parameter: a scalar, or one per channel.
        x: the input.
        length: of a vector, which comes first in the parameter's shape; 0 for a scalar.
    """
    shape = parameter.shape
    if length:
        if not shape or shape[0] != length:
            return False
        shape = shape[1:]
    sizes = zip(reversed(shape), reversed(x.shape), strict=False)
    return len(shape) <= x.dim() and all(size in (1, whole) for size, whole in sizes)


def dense(x: Tensor) -> Tensor:
    """``x`` itself if its elements fill one run of memory, in any order; else a copy that does."""
    if x.is_contiguous() or torch.empty_like(x, device="meta").stride() == x.stride():
        return x
    return torch.empty_like(x).copy_(x)


def alike(tensor: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The tensor itself if it lies in memory as these dense strides say; else a copy."""
    if tensor.stride() == strides:
        return tensor
    like = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    return like.copy_(tensor)
