"""The chunked loss as PyTorch operators, which compilers take as they are.

``zeta::head_losses`` gives every token's loss and entropy; it forms gradients in backward, since
only then is each token's upstream gradient known. ``zeta::head_weighted_loss`` gives a weighted sum
of the losses together with its gradients, which backward multiplies by one number.

They are defined by `torch.library`'s single steps: ``custom_op`` would import PyTorch's compiler
at the first call, and Triton with it, which cannot share a process with TensorFlow.

Shape suffixes: N tokens, K mixtures, D features, V classes, T targets of a token, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.library import define, impl, register_autograd, register_fake

from zeta.kernels import operator
from zeta.kernels.support import is_eager, is_plain
from zeta.ops.mixture import chunks, plain
from zeta.ops.mixture.chunks import Found, Problem, Upstream, Wanted, stored_dtype

# The fields of a problem, of which the formula is named. The first are differentiated, and the
# first that many are tensors.
_PROBLEM = (
    "Tensor hidden, Tensor log_prior, Tensor weight, Tensor? bias, Tensor parameters, "
    "Tensor target, Tensor mass, Tensor? class_mass, ScalarType matmul_dtype, "
    "int tokens_per_chunk, float z_loss, str formula, str? group, int first_class"
)
_DIFFERENTIABLE, _TENSORS = 5, 8
_FORMULA = Problem._fields.index("formula")
_FOUND = "Tensor loss, Tensor log_sum_exp, Tensor entropy, Tensor prediction"
_GRADIENTS = (
    "Tensor d_hidden, Tensor d_log_prior, Tensor d_weight, Tensor d_bias, Tensor d_parameters"
)

_LOSSES, _WEIGHTED_LOSS = "zeta::head_losses", "zeta::head_weighted_loss"
define(
    _LOSSES,
    f"({_PROBLEM}, bool distribution) -> ({_FOUND})",
    tags=torch.Tag.pt2_compliant_tag,
)
define(
    _WEIGHTED_LOSS,
    f"({_PROBLEM}, Tensor upstream, Tensor? entropy_upstream, bool[] wanted) -> "
    f"(Tensor sum, {_FOUND}, {_GRADIENTS})",
    tags=torch.Tag.pt2_compliant_tag,
)


def found(problem: Problem, distribution: bool) -> Found:
    """Every token's loss and entropy, both differentiable, and what else there is of it.

    Args:
        problem: the problem.
        distribution: whether entropy and prediction are wanted.
    """
    return Found(*torch.ops.zeta.head_losses(*_arguments(problem), distribution))


def weighted_loss(
    problem: Problem, coefficient_N: Tensor, distribution: bool
) -> tuple[Tensor, Found]:
    """Σ_n coefficient_n · loss_n, differentiable, and what there is of each token, which is not."""
    inputs = cast(Sequence[Tensor | None], problem[:_DIFFERENTIABLE])
    needs = [t is not None and t.requires_grad for t in inputs]
    wanted = [torch.is_grad_enabled() and need for need in needs]
    loss, *rest = torch.ops.zeta.head_weighted_loss(
        *_arguments(problem), coefficient_N, None, [*wanted, distribution]
    )
    return loss, Found(*rest[: len(Found._fields)])


def _losses(*arguments: Any) -> Found:
    *inputs, distribution = arguments
    return chunks.found(_problem(inputs), Wanted(distribution=distribution))


def _losses_fake(*arguments: Any) -> Found:
    problem = Problem(*arguments[:-1])
    N = problem.hidden_NKD.shape[0]
    loss_N, lse_N, entropy_N = (problem.mass_NT.new_empty(N) for _ in range(3))
    return Found(loss_N, lse_N, entropy_N, problem.target_NT.new_empty(N))


def _losses_setup(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    _, log_sum_exp, _, prediction = output
    ctx.mark_non_differentiable(log_sum_exp, prediction)
    _save(ctx, inputs[:-1])


def _losses_backward(
    ctx: Any, upstream_N: Tensor | None, _: Any, entropy_N: Tensor | None, *__: Any
) -> tuple[Tensor | None, ...]:
    arguments, wanted = _saved(ctx)
    if upstream_N is None and entropy_N is None:
        return _padded(ctx, [])
    if upstream_N is None:
        assert entropy_N is not None
        upstream_N = torch.zeros_like(entropy_N)
    if torch.is_grad_enabled():
        return _padded(ctx, _plain_gradients(arguments, upstream_N, entropy_N, wanted))
    results = torch.ops.zeta.head_weighted_loss(*arguments, upstream_N, entropy_N, [*wanted, False])
    gradients = results[1 + len(Found._fields) :]
    return _padded(ctx, _cast(gradients, arguments, wanted))


impl(_LOSSES, "default", _losses)
register_fake(_LOSSES, _losses_fake)
register_autograd(_LOSSES, _losses_backward, setup_context=_losses_setup)


def _weighted_loss(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, upstream_N, entropy_upstream_N, wanted = arguments
    problem = _problem(inputs)
    of_tokens, gradients = chunks.found_and_gradients(
        problem, Upstream(upstream_N, entropy_upstream_N), Wanted(*wanted)
    )
    loss_N = of_tokens.loss_N
    products_N = (upstream_N.double() * loss_N).masked_fill_(problem.ignored_N, 0)
    loss = products_N.sum().to(loss_N.dtype)
    return (loss, *of_tokens, *(loss_N.new_empty(0) if g is None else g for g in gradients))


def _weighted_loss_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, _, _, wanted = arguments
    of_tokens = _losses_fake(*inputs, False)
    new_empty = of_tokens.loss_N.new_empty
    gradients = (
        tensor.new_empty(tensor.shape, dtype=stored_dtype(tensor.dtype)) if want else new_empty(0)
        for tensor, want in zip(inputs[:_DIFFERENTIABLE], wanted, strict=False)
    )
    return (new_empty(()), *of_tokens, *gradients)


def _weighted_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *arguments, upstream_N, _, _ = inputs
    _, *rest = output
    ctx.mark_non_differentiable(*rest)
    _save(ctx, arguments, upstream_N, *rest[len(Found._fields) :])


def _weighted_loss_backward(
    ctx: Any, upstream: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    arguments, wanted, coefficient_N, *gradients = _saved(ctx)
    if upstream is None:
        return _padded(ctx, [])
    if torch.is_grad_enabled():
        upstream_N = upstream * coefficient_N
        return _padded(ctx, _plain_gradients(arguments, upstream_N, None, wanted))
    # The usual upstream gradient, seen without waiting for a device: nothing to multiply by.
    if not (upstream.is_cpu and is_eager() and is_plain(upstream) and upstream == 1):
        gradients = [gradient * upstream for gradient in gradients]
    return _padded(ctx, _cast(gradients, arguments, wanted))


impl(_WEIGHTED_LOSS, "default", _weighted_loss)
register_fake(_WEIGHTED_LOSS, _weighted_loss_fake)
register_autograd(_WEIGHTED_LOSS, _weighted_loss_backward, setup_context=_weighted_loss_setup)


def _plain_gradients(
    arguments: Sequence[Any],
    upstream_N: Tensor,
    entropy_upstream_N: Tensor | None,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """By plain operations, to be differentiated again."""
    inputs = [
        t.view_as(t) if want else t
        for t, want in zip(arguments[:_DIFFERENTIABLE], wanted, strict=True)
    ]
    has_entropy = entropy_upstream_N is not None
    of_tokens = plain.found(_problem([*inputs, *arguments[_DIFFERENTIABLE:]]), has_entropy)
    results, upstreams = [of_tokens.loss_N], [upstream_N]
    if entropy_upstream_N is not None:
        results.append(of_tokens.entropy_N)
        upstreams.append(entropy_upstream_N)
    sources = [t for t, want in zip(inputs, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(results, sources, upstreams, create_graph=True))
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
    name = operator.name_of(problem.formula)
    return (*problem[:_FORMULA], name, *problem[_FORMULA + 1 :])


def _problem(arguments: Sequence[Any]) -> Problem:
    fields = [*arguments]
    fields[_FORMULA] = operator.found(arguments[_FORMULA]).formula
    return Problem(*fields)


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
