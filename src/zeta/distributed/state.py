"""State dicts and gradient norms of models whose output layer is vocab-parallel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zeta.distributed.vocab_parallel import (
    CLASS_DIM,
    VocabParallelEmbedding,
    VocabParallelMixtureOfSoftmaxes,
    VocabParallelSoftmaxHead,
)
from zeta.ops.mixture import shard as shards
from zeta.ops.mixture.shard import Shard


def full_state_dict(model: nn.Module) -> dict[str, Any]:
    """The model's state dict with every vocab-parallel parameter whole, as one process has it.

    All processes must call together; each gets the same result. Parameters that FSDP2 shards are
    gathered too.

    Args:
        model: a head that :func:`vocab_parallel` split, or a module that contains some.

    Example: ``torch.save(full_state_dict(model), path)`` on the first process.

    Source: the layout is that of :class:`zeta.nn.MixtureOfSoftmaxes`.
    """
    split = _split_parameters(model)
    state = model.state_dict()
    for name, value in state.items():
        if isinstance(value, DTensor):
            state[name] = value = value.full_tensor()
        if name in split:
            shard = split[name]
            state[name] = shards.gather_classes(value, CLASS_DIM[name.rpartition(".")[2]], shard)
    return state


@torch.no_grad()
def clip_grad_norm_(model: nn.Module, max_norm: float) -> Tensor:
    """Scale all gradients so that their Euclidean norm, over all processes' parts, is bounded.

    ``torch.nn.utils.clip_grad_norm_`` would see this process's classes alone, scale differently on
    each process, and let the shared parameters drift apart. All processes must call together.

    Args:
        model: with vocab-parallel layers, and any others that are the same on every process.
        max_norm: the bound.

    Returns:
        The norm before scaling, a scalar.

    Example: ``clip_grad_norm_(model, 1.0)`` between backward and the optimiser's step.

    Source: Pascanu et al. 2013.
    """
    split = _split_parameters(model)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    squares = torch.zeros((), dtype=torch.float64)
    for name, gradient in gradients.items():
        norm = torch.linalg.vector_norm(gradient)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        square = norm.double().square()
        if name in split:
            (square,) = shards.total(split[name].group, square)
        squares = squares.to(square.device) + square
    total = squares.sqrt()
    scale = float((max_norm / (total + 1e-6)).clamp(max=1))
    for gradient in gradients.values():
        gradient.mul_(scale)
    return total


_SPLIT = (VocabParallelMixtureOfSoftmaxes, VocabParallelSoftmaxHead, VocabParallelEmbedding)


def _split_parameters(model: nn.Module) -> dict[str, Shard]:
    """Names of parameters whose classes are split."""
    return {
        f"{path}.{name}" if path else name: module.shard
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _SPLIT)
        for name in CLASS_DIM
    }
