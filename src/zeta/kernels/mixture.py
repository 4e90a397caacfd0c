"""The rows of softmax heads: what their loss computes that is not a matrix product.

A chunk of tokens has the logits of all its K mixtures in memory; a formula φ of each stands between
these and a softmax. Of each row the *statistics* are known first, the maximum of φ and the sum of
exponentials; from those of a token's K rows follows its *distribution*, where more is wanted of
this than the targets' probabilities; and at last the *gradient* by the logits, which replaces them.
C++ does it on CPU (`mixture_cpu`), Triton on CUDA (`zeta.runtime.triton.mixture`), plain operations
elsewhere.

Shape suffixes: N tokens of the chunk, K mixtures, V classes, T targets of a token, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from zeta._backends.torch_plain import evaluate_plain
from zeta._formula import Formula
from zeta.kernels import compiler, gpu, mixture_cpu
from zeta.kernels.build import has_triton

# Logits that plain operations make temporaries of at once.
_PLAIN_LOGITS = 1 << 20


class Rows(NamedTuple):
    """The logits of some tokens.

    Attributes:
        logits_NKV: classes contiguous, any other strides; without the bias.
        bias: (V,), (K, V) or None, in the dtype that arithmetic runs in, as all other floats here.
        target_NT: int64; negative where a target is none of these classes.
        formula: what stands between logits and softmax.
        parameters_P: its parameters, in its order.
    """

    logits_NKV: Tensor
    bias: Tensor | None
    target_NT: Tensor
    formula: Formula
    parameters_P: Tensor


class Statistics(NamedTuple):
    """Of each row.

    Attributes:
        high: (N, K), the largest φ.
        total: (N, K), Σ_v e^(φ_v - high).
        value: (N, K, T), φ of the targets; 0 for those that are none of these classes.
    """

    high: Tensor
    total: Tensor
    value: Tensor


class Joint(NamedTuple):
    """What joins a token's rows, and how much each class counts in Σ_v mass_v·log p_v.

    Attributes:
        shift_NK: log prior - log total.
        mass_V: or None, where no class counts but the targets.
    """

    shift_NK: Tensor
    mass_V: Tensor | None


class Distribution(NamedTuple):
    """Of each token, over these classes.

    Attributes:
        mass_log_prob: (N,), Σ_v mass_v·log p_v.
        response: (N, K), Σ_v mass_v·r_kv, with r_kv the share that mixture k has in p_v.
        entropy: (N,), -Σ_v p_v·log p_v.
        best: (N,), what the most probable class has the most of.
        prediction: (N,), int64, that class.
    """

    mass_log_prob: Tensor
    response: Tensor
    entropy: Tensor
    best: Tensor
    prediction: Tensor


class Scales(NamedTuple):
    """The gradient by φ: a·p_v - Σ_j b_j·[v = y_j] + c·p_v·(log p_v + entropy) - d·mass_v·r_v.

    Attributes:
        by_prob: (N, K), a.
        by_target: (N, K, T), b.
        by_entropy: (N,), c, or None; of one mixture only.
        by_class: (N,), d, or None.
    """

    by_prob: Tensor
    by_target: Tensor
    by_entropy: Tensor | None = None
    by_class: Tensor | None = None


def statistics(rows: Rows) -> Statistics:
    """Each row's maximum, sum of exponentials and targets' values."""
    N, K, _ = rows.logits_NKV.shape
    new = rows.parameters_P.new_empty
    found = Statistics(new(N, K), new(N, K), new(N, K, rows.target_NT.shape[1]))
    if kernels := _kernels(rows):
        kernels.statistics(rows, found)
        return found
    for tokens, value_NKV in _values(rows):
        high_NK1 = value_NKV.amax(-1, keepdim=True)
        target_N1T = rows.target_NT[tokens].unsqueeze(1)
        of_target_NKT = value_NKV.take_along_dim(target_N1T.clamp(min=0), 2)
        found.high[tokens] = high_NK1.squeeze(2)
        found.total[tokens] = (value_NKV - high_NK1).exp_().sum(2)
        found.value[tokens] = of_target_NKT.masked_fill(target_N1T < 0, 0)
    return found


def distribution(rows: Rows, found: Statistics, joint: Joint) -> Distribution:
    """What is wanted of all classes."""
    N, K, _ = rows.logits_NKV.shape
    new = rows.parameters_P.new_empty
    of = Distribution(new(N), new(N, K), new(N), new(N), torch.empty_like(rows.target_NT[:, 0]))
    if kernels := _kernels(rows):
        kernels.distribution(rows, found, joint, of)
        return of
    for tokens, value_NKV in _values(rows):
        log_prob_NV, share_NKV = _shares(value_NKV, found, joint, tokens)
        p_NV = log_prob_NV.exp()
        mass_V = torch.zeros_like(log_prob_NV[0]) if joint.mass_V is None else joint.mass_V
        # A class without mass may be impossible, and 0 · inf is NaN.
        massless_V = mass_V == 0
        of.mass_log_prob[tokens] = (mass_V * log_prob_NV).masked_fill(massless_V, 0).sum(1)
        of.response[tokens] = (mass_V * share_NKV).masked_fill(massless_V, 0).sum(2)
        of.entropy[tokens] = -(p_NV * log_prob_NV).masked_fill(p_NV == 0, 0).sum(1)
        key_NV = value_NKV[:, 0] if K == 1 else log_prob_NV
        of.best[tokens], of.prediction[tokens] = key_NV.max(1)
    return of


def write_gradient(
    rows: Rows,
    found: Statistics,
    joint: Joint,
    scales: Scales,
    entropy_N: Tensor | None,
    learns: bool,
) -> Tensor | None:
    """Replace the logits by the gradient by them: by 0 where all scales are 0.

    Returns:
        The gradients by the parameters, (P,), in float64; None unless ``learns``.
    """
    if kernels := _kernels(rows):
        totals = kernels.write_gradient(rows, found, joint, scales, entropy_N, learns)
        # One after the other: a sum in parallel would depend on the number of threads.
        return None if totals is None else totals.flatten(0, -2).cumsum(0)[-1]
    total_P = torch.zeros_like(rows.parameters_P, dtype=torch.float64)
    for tokens in _parts(rows):
        logits_NKV = _biased(rows, tokens).requires_grad_()
        parameters_P = rows.parameters_P.detach().requires_grad_()
        with _recording():
            value_NKV = _value(rows.formula, logits_NKV, parameters_P)
        by_value_NKV = _by_value(rows, value_NKV.detach(), found, joint, scales, entropy_N, tokens)
        by_logits_NKV, by_parameters_P = torch.autograd.grad(
            value_NKV, (logits_NKV, parameters_P), by_value_NKV, allow_unused=True
        )
        # An impossible class may have an infinite slope.
        by_logits_NKV = by_logits_NKV.masked_fill(by_value_NKV == 0, 0)
        rows.logits_NKV[tokens] = by_logits_NKV.to(rows.logits_NKV.dtype)
        total_P += 0 if by_parameters_P is None else by_parameters_P
    return total_P if learns else None


# ---- Kernels or plain operations ---------------------------------------------------------------


def _kernels(rows: Rows) -> ModuleType | None:
    """The module whose kernels take these rows; None for plain operations."""
    logits = rows.logits_NKV
    if compiler.disabled() or not logits.numel():
        return None
    if logits.is_cpu and mixture_cpu.kernel(rows.formula, logits.dtype):
        return mixture_cpu
    if has_triton() and logits.dtype in gpu.DTYPES and logits.is_cuda:
        from zeta.runtime.triton import mixture as mixture_triton

        return mixture_triton if mixture_triton.kernel(rows.formula) else None
    return None


def _parts(rows: Rows) -> Iterator[slice]:
    """A few tokens at a time."""
    N, K, V = rows.logits_NKV.shape
    size = max(1, _PLAIN_LOGITS // max(1, K * V))
    for start in range(0, N, size):
        yield slice(start, start + size)


@contextmanager
def _recording() -> Iterator[None]:
    """Record operations for a derivative within an operator too, below which nothing is else."""
    core = torch._C
    hidden = core._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor"):
        hidden = hidden.remove(getattr(core.DispatchKey, key))
    included = core._dispatch_tls_local_include_set()
    with core._ForceDispatchKeyGuard(included, hidden), torch.enable_grad():
        yield


def _biased(rows: Rows, tokens: slice) -> Tensor:
    logits_NKV = rows.logits_NKV[tokens].to(rows.parameters_P.dtype)
    return logits_NKV.clone() if rows.bias is None else logits_NKV + rows.bias


def _value(formula: Formula, logits_NKV: Tensor, parameters_P: Tensor) -> Tensor:
    scalars = dict(zip(formula.scalars, parameters_P, strict=True))
    return evaluate_plain(formula, logits_NKV, formula.grouped(scalars))


def _values(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """φ of a few tokens at a time, and their place."""
    for tokens in _parts(rows):
        yield tokens, _value(rows.formula, _biased(rows, tokens), rows.parameters_P)


def _shares(
    value_NKV: Tensor, found: Statistics, joint: Joint, tokens: slice
) -> tuple[Tensor, Tensor]:
    """log p_v, (N, V), and what share each mixture has in p_v, (N, K, V)."""
    shift_NK1 = joint.shift_NK[tokens].unsqueeze(2)
    joint_NKV = (value_NKV - found.high[tokens].unsqueeze(2)) + shift_NK1
    if joint_NKV.shape[1] == 1:
        return joint_NKV.squeeze(1), torch.ones_like(joint_NKV)
    return joint_NKV.logsumexp(1), joint_NKV.softmax(1)


def _by_value(
    rows: Rows,
    value_NKV: Tensor,
    found: Statistics,
    joint: Joint,
    scales: Scales,
    entropy_N: Tensor | None,
    tokens: slice,
) -> Tensor:
    """The gradient by φ; see :class:`Scales`."""

    def per_row(coefficient: Tensor) -> Tensor:
        return coefficient[tokens].view(-1, *coefficient.shape[1:], *[1] * (3 - coefficient.dim()))

    p_NKV = (value_NKV - per_row(found.high)).exp_() / per_row(found.total)
    gradient_NKV = per_row(scales.by_prob) * p_NKV
    log_prob_NV, share_NKV = _shares(value_NKV, found, joint, tokens)
    silent_N = (scales.by_prob[tokens] == 0).all(1) & (scales.by_target[tokens] == 0).all(2).all(1)
    if scales.by_entropy is not None and entropy_N is not None:
        surprise_NKV = (log_prob_NV.unsqueeze(1) + per_row(entropy_N)).masked_fill(p_NKV == 0, 0)
        gradient_NKV += per_row(scales.by_entropy) * p_NKV * surprise_NKV
        silent_N &= scales.by_entropy[tokens] == 0
    if scales.by_class is not None and joint.mass_V is not None:
        mass_NKV = per_row(scales.by_class) * joint.mass_V * share_NKV
        gradient_NKV -= mass_NKV.masked_fill(joint.mass_V == 0, 0)
        silent_N &= scales.by_class[tokens] == 0
    target_N1T = rows.target_NT[tokens].unsqueeze(1)
    by_target_NKT = scales.by_target[tokens].masked_fill(target_N1T < 0, 0)
    index_NKT = target_N1T.clamp(min=0).expand_as(by_target_NKT)
    gradient_NKV.scatter_add_(2, index_NKT, -by_target_NKT)
    return gradient_NKV.masked_fill_(silent_N[:, None, None], 0)
