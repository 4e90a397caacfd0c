"""The one autograd function around kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from zeta.kernels.support import is_plain, takes_kernels


class Call(Protocol):
    """An operation on tensors with kernels both ways, and what these are told beside tensors."""

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value, and what is kept for backward beside the tensors."""

    def backward(
        self,
        tensors: Sequence[Tensor],
        kept: Sequence[Tensor],
        upstream: Tensor,
        needed: tuple[bool, ...],
    ) -> Sequence[Tensor] | None:
        """The gradients of the tensors that need one; None if there is no kernel."""

    def plain(self, tensors: Sequence[Tensor]) -> Tensor:
        """The value by plain, differentiable operations."""


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> Tensor:
        y, kept = call.forward(tensors)
        ctx.call = call
        ctx.save_for_backward(*tensors, *kept)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        if upstream is None:
            return (None, *(None for _ in needed))
        saved = ctx.saved_tensors
        tensors, kept = saved[: len(needed)], saved[len(needed) :]
        return None, *gradients(ctx.call, tensors, kept, upstream, needed)


# Function.apply itself first looks for functorch transforms, as `takes_kernels` has done.
apply = super(torch.autograd.Function, _Fused).apply


def gradients(
    call: Call,
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    upstream: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients by the tensors, None where not needed."""
    found: Sequence[Tensor | None] | None = None
    # Plain operations where the gradients are to be differentiated again.
    if not torch.is_grad_enabled() and takes_kernels() and is_plain(upstream):
        found = call.backward(tensors, kept, upstream, needed)
    if found is None:
        found = _plain_gradients(call, tensors, upstream, needed)
    rest = iter(found)
    return tuple([next(rest) if need else None for need in needed])


def _plain_gradients(
    call: Call, tensors: Sequence[Tensor], upstream: Tensor, needed: tuple[bool, ...]
) -> Sequence[Tensor | None]:
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that a tensor given as two parameters gets a gradient for each.
        views = [t.view_as(t) if need else t for t, need in zip(tensors, needed, strict=True)]
        y = call.plain(views)
    sources = [view for view, need in zip(views, needed, strict=True) if need]
    return torch.autograd.grad(y, sources, upstream, create_graph=create_graph, allow_unused=True)
