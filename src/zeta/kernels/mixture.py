"""The rows of a mixture of softmaxes: what its loss computes that is not a matrix product.

A chunk of tokens has the logits of all its K mixtures in memory. Its *statistics* are each row's
maximum and sum of exponentials. From those of a token's K rows follow its log-probability and the
responsibilities r_k, and from these the gradient by the logits, which replaces them. C++ does it on
CPU (`mixture_cpu`), Triton on CUDA (`zeta.runtime.triton.mixture`), plain operations elsewhere and
for label smoothing.

Shape suffixes: N tokens of the chunk, K mixtures, V classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from zeta._backends.torch_plain import compute_dtype
from zeta.kernels import compiler, gpu, mixture_cpu
from zeta.kernels.build import has_triton

# Logits that plain operations make temporaries of at once.
_PLAIN_LOGITS = 1 << 20


class Rows(NamedTuple):
    """The logits of some tokens.

    Attributes:
        logits_NKV: classes contiguous, any other strides; without the bias.
        bias: (V,), (K, V) or None, in the dtype that arithmetic runs in, as all other floats here.
        target_N: int64; negative where the target is none of these classes.
    """

    logits_NKV: Tensor
    bias: Tensor | None
    target_N: Tensor


class Statistics(NamedTuple):
    """Of each row, (N, K).

    Attributes:
        high: the largest logit.
        total: Σ_v e^(logit_v - high).
        target_logit: the target's; 0 if it is none of these classes.
    """

    high: Tensor
    total: Tensor
    target_logit: Tensor


class Mass(NamedTuple):
    """How much each class counts in a token's loss, -Σ_v mass_v·log p(v).

    Attributes:
        target_N: on the token's target.
        class_V: on every class, or None.
    """

    target_N: Tensor
    class_V: Tensor | None


def statistics(rows: Rows) -> Statistics:
    """Each row's maximum, sum of exponentials and target logit."""
    N, K, _ = rows.logits_NKV.shape
    dtype = compute_dtype(rows.logits_NKV.dtype)
    found = Statistics(*rows.logits_NKV.new_empty((3, N, K), dtype=dtype))
    if kernels := _kernels(rows):
        kernels.statistics(*rows, *found)
        return found
    for tokens, logits_NKV in _parts(rows):
        high_NK1 = logits_NKV.amax(-1, keepdim=True)
        target_N11 = rows.target_N[tokens, None, None]
        target_logit_NK1 = logits_NKV.take_along_dim(target_N11.clamp(min=0), 2)
        found.high[tokens] = high_NK1.squeeze(2)
        found.total[tokens] = (logits_NKV - high_NK1).exp_().sum(2)
        found.target_logit[tokens] = target_logit_NK1.masked_fill(target_N11 < 0, 0).squeeze(2)
    return found


def respond(
    found: Statistics, log_prior_NK: Tensor, coefficient_N: Tensor
) -> tuple[Tensor, Tensor]:
    """log p(target), (N,), and scale = coefficient·responsibility, (N, K)."""
    joint_NK = log_prior_NK + (found.target_logit - found.high) - found.total.log()
    return joint_NK.logsumexp(1), coefficient_N.unsqueeze(1) * joint_NK.softmax(1)


def write_gradient(rows: Rows, found: Statistics, scale_NK: Tensor) -> None:
    """Replace the logits by scale·(softmax - onehot(target)); by 0 where the scale is 0."""
    if kernels := _kernels(rows):
        kernels.write_gradient(*rows, found.high, found.total, scale_NK.contiguous())
        return
    for tokens, log_softmax_NKV in _log_softmax(rows, found):
        gradient_NKV = log_softmax_NKV.exp_()
        _add_to_target(gradient_NKV, rows.target_N[tokens, None], -1)
        scale_NK1 = scale_NK[tokens].unsqueeze(2)
        rows.logits_NKV[tokens] = (gradient_NKV * scale_NK1).masked_fill_(scale_NK1 == 0, 0)


# ---- Where every class counts: label smoothing -------------------------------------------------


def respond_with_mass(
    rows: Rows, found: Statistics, log_prior_NK: Tensor, mass: Mass
) -> tuple[Tensor, Tensor]:
    """Σ_v mass_v·log p(v), (N,), and response = Σ_v mass_v·r_kv, (N, K), over these classes."""
    log_prob_N, response_NK = torch.empty_like(mass.target_N), torch.empty_like(log_prior_NK)
    for part in _responsibilities(rows, found, log_prior_NK, mass):
        log_prob_N[part.tokens] = part.mass_log_prob_NV.sum(1)
        response_NK[part.tokens] = part.mass_responsibility_NKV.sum(2)
    return log_prob_N, response_NK


def write_gradient_with_mass(
    rows: Rows,
    found: Statistics,
    log_prior_NK: Tensor,
    mass: Mass,
    response_NK: Tensor,
    coefficient_N: Tensor,
) -> None:
    """Replace the logits by coefficient·(response_k·softmax_kv - mass_v·r_kv)."""
    for part in _responsibilities(rows, found, log_prior_NK, mass):
        coefficient_N11 = coefficient_N[part.tokens, None, None]
        response_NK1 = response_NK[part.tokens].unsqueeze(2)
        gradient_NKV = response_NK1 * part.softmax_NKV - part.mass_responsibility_NKV
        gradient_NKV = (gradient_NKV * coefficient_N11).masked_fill_(coefficient_N11 == 0, 0)
        rows.logits_NKV[part.tokens] = gradient_NKV.to(rows.logits_NKV.dtype)


class _Responsibilities(NamedTuple):
    tokens: slice
    softmax_NKV: Tensor
    mass_log_prob_NV: Tensor  # mass_v · log p(v)
    mass_responsibility_NKV: Tensor  # mass_v · r_kv


def _responsibilities(
    rows: Rows, found: Statistics, log_prior_NK: Tensor, mass: Mass
) -> Iterator[_Responsibilities]:
    for tokens, log_softmax_NKV in _log_softmax(rows, found):
        joint_NKV = log_softmax_NKV + log_prior_NK[tokens].unsqueeze(2)
        log_prob_NV = joint_NKV.logsumexp(1)
        mass_NV = torch.zeros_like(log_prob_NV)
        if mass.class_V is not None:
            mass_NV += mass.class_V
        _add_to_target(mass_NV, rows.target_N[tokens], mass.target_N[tokens])
        responsibility_NKV = (joint_NKV - log_prob_NV.unsqueeze(1)).exp_()
        # A class without mass may be impossible, and 0 · inf is NaN.
        massless_NV = mass_NV == 0
        yield _Responsibilities(
            tokens,
            log_softmax_NKV.exp_(),
            (mass_NV * log_prob_NV).masked_fill_(massless_NV, 0),
            (mass_NV.unsqueeze(1) * responsibility_NKV).masked_fill_(massless_NV.unsqueeze(1), 0),
        )


# ---- Kernels or plain operations ---------------------------------------------------------------


def _kernels(rows: Rows) -> ModuleType | None:
    """The module whose kernels take these rows; None for plain operations."""
    logits = rows.logits_NKV
    if compiler.disabled() or not logits.numel():
        return None
    if logits.is_cpu and mixture_cpu.kernel(logits.dtype):
        return mixture_cpu
    if has_triton() and logits.dtype in gpu.DTYPES and logits.is_cuda:
        from zeta.runtime.triton import mixture as mixture_triton

        return mixture_triton
    return None


def _parts(rows: Rows) -> Iterator[tuple[slice, Tensor]]:
    """A few tokens at a time: their place, and their logits with the bias."""
    N, K, V = rows.logits_NKV.shape
    size = max(1, _PLAIN_LOGITS // max(1, K * V))
    for start in range(0, N, size):
        tokens = slice(start, start + size)
        logits_NKV = rows.logits_NKV[tokens].to(compute_dtype(rows.logits_NKV.dtype))
        yield tokens, logits_NKV if rows.bias is None else logits_NKV + rows.bias


def _log_softmax(rows: Rows, found: Statistics) -> Iterator[tuple[slice, Tensor]]:
    for tokens, logits_NKV in _parts(rows):
        high_NK1, total_NK1 = found.high[tokens].unsqueeze(2), found.total[tokens].unsqueeze(2)
        yield tokens, (logits_NKV - high_NK1).sub_(total_NK1.log())


def _add_to_target(values: Tensor, target: Tensor, amount: Tensor | float) -> None:
    """Add to the target's class, the last dimension, in place; nothing where it is negative."""
    here = target.expand(values.shape[:-1]).unsqueeze(-1)
    amounts = torch.where(target >= 0, amount, 0.0).to(values.dtype)
    values.scatter_add_(-1, here.clamp(min=0), amounts.expand(values.shape[:-1]).unsqueeze(-1))
