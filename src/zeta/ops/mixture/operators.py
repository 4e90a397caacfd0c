"""The chunked loss as PyTorch operators, which compilers take as they are.

``zeta::mixture_losses`` gives every token's loss; it forms gradients in backward, since only then
is each token's upstream gradient known. ``zeta::mixture_weighted_loss`` gives a weighted sum of the
losses together with its gradients, which backward multiplies by one number.

They are defined by `torch.library`'s single steps: ``custom_op`` would import PyTorch's compiler
at the first call, and Triton with it, which cannot share a process with TensorFlow.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from zeta.kernels.mixture import Mass
from zeta.kernels.support import is_eager, is_plain
from zeta.ops.mixture import chunks, plain
from zeta.ops.mixture.chunks import Problem, Wanted, stored_dtype

_INPUTS = (
    "Tensor hidden, Tensor log_prior, Tensor weight, Tensor? bias, Tensor target, "
    "Tensor target_mass, Tensor? class_mass, ScalarType matmul_dtype, int tokens_per_chunk, "
    "str? group"
)
# The first of them are differentiated, the rest is not.
_DIFFERENTIABLE = 4
# The first of them are tensors, the rest options.
_TENSORS = 7


_LOSSES, _WEIGHTED_LOSS = "zeta::mixture_losses", "zeta::mixture_weighted_loss"
define(_LOSSES, f"({_INPUTS}) -> Tensor losses", tags=torch.Tag.pt2_compliant_tag)
define(
    _WEIGHTED_LOSS,
    f"({_INPUTS}, Tensor coefficient, bool[] wanted) -> "
    "(Tensor loss, Tensor d_hidden, Tensor d_log_prior, Tensor d_weight, Tensor d_bias)",
    tags=torch.Tag.pt2_compliant_tag,
)


def losses(problem: Problem) -> Tensor:
    """Every token's loss, (N,), differentiable."""
    result: Tensor = torch.ops.zeta.mixture_losses(*_arguments(problem))
    return result


def weighted_loss(problem: Problem, coefficient_N: Tensor) -> Tensor:
    """Σ_n coefficient_n · loss_n, differentiable."""
    inputs = (problem.hidden_NKD, problem.log_prior_NK, problem.weight, problem.bias)
    wanted = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in inputs]
    loss: Tensor
    loss, *_ = torch.ops.zeta.mixture_weighted_loss(*_arguments(problem), coefficient_N, wanted)
    return loss


def _losses(*arguments: Any) -> Tensor:
    return chunks.losses(_problem(arguments))


def _losses_fake(hidden: Tensor, log_prior: Tensor, *_: Any) -> Tensor:
    return log_prior.new_empty(hidden.shape[0])


def _losses_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _save(ctx, inputs)


def _losses_backward(ctx: Any, upstream_N: Tensor | None) -> tuple[Tensor | None, ...]:
    arguments, wanted = _saved(ctx)
    if upstream_N is None:
        return _padded(ctx, [])
    if torch.is_grad_enabled():
        return _padded(ctx, _plain_gradients(arguments, upstream_N, wanted))
    _, *gradients = torch.ops.zeta.mixture_weighted_loss(*arguments, upstream_N, wanted)
    return _padded(ctx, _cast(gradients, arguments, wanted))


impl(_LOSSES, "default", _losses)
register_fake(_LOSSES, _losses_fake)
register_autograd(_LOSSES, _losses_backward, setup_context=_losses_setup)


def _weighted_loss(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, coefficient_N, wanted = arguments
    problem = _problem(inputs)
    losses_N, gradients = chunks.losses_and_gradients(problem, coefficient_N, Wanted(*wanted))
    loss = (coefficient_N * losses_N).masked_fill_(problem.ignored_N, 0).sum()
    return (loss, *(losses_N.new_empty(0) if g is None else g for g in gradients))


def _weighted_loss_fake(*arguments: Any) -> tuple[Tensor, ...]:
    log_prior, wanted = arguments[1], arguments[-1]
    gradients = (
        tensor.new_empty(tensor.shape, dtype=stored_dtype(tensor.dtype))
        if want
        else log_prior.new_empty(0)
        for tensor, want in zip(arguments[:_DIFFERENTIABLE], wanted, strict=True)
    )
    return (log_prior.new_empty(()), *gradients)


def _weighted_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *arguments, coefficient_N, _ = inputs
    _, *gradients = output
    ctx.mark_non_differentiable(*gradients)
    _save(ctx, arguments, coefficient_N, *gradients)


def _weighted_loss_backward(
    ctx: Any, upstream: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    arguments, wanted, coefficient_N, *gradients = _saved(ctx)
    if upstream is None:
        return _padded(ctx, [])
    if torch.is_grad_enabled():
        return _padded(ctx, _plain_gradients(arguments, upstream * coefficient_N, wanted))
    # The usual upstream gradient, seen without waiting for a device: nothing to multiply by.
    if not (upstream.is_cpu and is_eager() and is_plain(upstream) and upstream == 1):
        gradients = [gradient * upstream for gradient in gradients]
    return _padded(ctx, _cast(gradients, arguments, wanted))


impl(_WEIGHTED_LOSS, "default", _weighted_loss)
register_fake(_WEIGHTED_LOSS, _weighted_loss_fake)
register_autograd(_WEIGHTED_LOSS, _weighted_loss_backward, setup_context=_weighted_loss_setup)


def _plain_gradients(
    arguments: Sequence[Any], upstream_N: Tensor, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """By plain operations, to be differentiated again."""
    inputs = [
        t.view_as(t) if want else t
        for t, want in zip(arguments[:_DIFFERENTIABLE], wanted, strict=True)
    ]
    losses_N = plain.losses(_problem([*inputs, *arguments[_DIFFERENTIABLE:]]))
    sources = [t for t, want in zip(inputs, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(losses_N, sources, upstream_N, create_graph=True))
    return [next(found) if want else None for want in wanted]


def _cast(
    gradients: Sequence[Tensor], arguments: Sequence[Any], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """In their inputs' dtypes; None where not wanted."""
    triples = zip(gradients, arguments[:_DIFFERENTIABLE], wanted, strict=True)
    return [gradient.to(tensor.dtype) if want else None for gradient, tensor, want in triples]


def _padded(ctx: Any, gradients: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """One for each argument."""
    return (*gradients, *(None,) * (len(ctx.needs_input_grad) - len(gradients)))


# ---- Arguments --------------------------------------------------------------------------------


def _arguments(problem: Problem) -> tuple[Any, ...]:
    return (
        problem.hidden_NKD,
        problem.log_prior_NK,
        problem.weight,
        problem.bias,
        problem.target_N,
        *problem.mass,
        problem.matmul_dtype,
        problem.tokens_per_chunk,
        problem.group,
    )


def _problem(arguments: Sequence[Any]) -> Problem:
    hidden_NKD, log_prior_NK, weight, bias, target_N, *rest = arguments
    target_mass_N, class_mass_V, *options = rest
    return Problem(
        hidden_NKD,
        log_prior_NK,
        weight,
        bias,
        target_N,
        Mass(target_mass_N, class_mass_V),
        *options,
    )


def _save(ctx: Any, arguments: Sequence[Any], *more: Tensor) -> None:
    tensors, options = arguments[:_TENSORS], arguments[_TENSORS:]
    ctx.set_materialize_grads(False)
    ctx.options = tuple(options)
    ctx.save_for_backward(*tensors, *more)


def _saved(ctx: Any) -> tuple[Any, ...]:
    """The arguments, whose gradients are wanted, and what else was saved."""
    tensors = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:_DIFFERENTIABLE])
    return (*tensors[:_TENSORS], *ctx.options), wanted, *tensors[_TENSORS:]
