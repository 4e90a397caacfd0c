"""Softmax heads by plain operations in log space, with all logits in memory.

For whatever must see single operations (functorch transforms, forward-mode differentiation, tensor
subclasses), for second derivatives, and for a chunk at a time.

Shape suffixes: N tokens, K mixtures, D features, V classes, T targets of a token, P parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta._backends.torch_plain import compute_dtype
from zeta._formula import Formula
from zeta.ops.mixture.chunks import Found, Problem


def mixture_logits(
    hidden_NKD: Tensor, weight: Tensor, bias: Tensor | None, formula: Formula, parameters_P: Tensor
) -> Tensor:
    """Every mixture's logits, (N, K, V), in the dtype that the softmax is computed in."""
    if weight.dim() == 2:
        logits_NKV = F.linear(hidden_NKD, weight, bias)
    else:
        logits_NKV = torch.einsum("nkd,kvd->nkv", hidden_NKD, weight)
        logits_NKV = logits_NKV if bias is None else logits_NKV + bias
    # One by one: an exported program does not load that takes an empty tensor apart.
    scalars = {name: parameters_P[i] for i, name in enumerate(formula.scalars)}
    wide_NKV: Tensor = formula(
        logits_NKV.to(compute_dtype(hidden_NKD.dtype)), **formula.grouped(scalars)
    )
    return wide_NKV


def mixture_log_prob(logits_NKV: Tensor, log_prior_NK: Tensor) -> Tensor:
    """log p(v) = logsumexp_k(log_prior_k + log_softmax(logits_k)_v), (N, V)."""
    log_prior_NK1 = log_prior_NK.to(logits_NKV.dtype).unsqueeze(-1)
    return torch.logsumexp(log_prior_NK1 + torch.log_softmax(logits_NKV, -1), dim=1)


def found(problem: Problem, entropy: bool = False, prediction: bool = False) -> Found:
    """Every token's loss and what else is wanted, in the dtype that arithmetic runs in."""
    dtype, ignored_N = problem.matmul_dtype, problem.ignored_N
    bias = None if problem.bias is None else problem.bias.to(dtype)
    logits_NKV = mixture_logits(
        problem.hidden_NKD.to(dtype),
        problem.weight.to(dtype),
        bias,
        problem.formula,
        problem.parameters_P,
    )
    # An ignored token's class may be impossible, and 0 · inf is NaN in backward.
    logits_NKV = logits_NKV.masked_fill(ignored_N[:, None, None], 0)
    log_prior_NK = problem.log_prior_NK.masked_fill(ignored_N.unsqueeze(1), 0)
    lse_NK = logits_NKV.logsumexp(2)
    loss_N = _target_loss(problem, logits_NKV, log_prior_NK - lse_NK)
    entropy_N, prediction_N = torch.zeros_like(loss_N), problem.target_NT[:, 0]
    if entropy or prediction or problem.class_mass_V is not None:
        log_prob_NV = mixture_log_prob(logits_NKV, log_prior_NK)
        entropy_N = _expected(log_prob_NV.exp(), log_prob_NV)
        best_NV = logits_NKV.squeeze(1) if logits_NKV.shape[1] == 1 else log_prob_NV
        prediction_N = best_NV.argmax(1)
        if problem.class_mass_V is not None:
            loss_N = loss_N + _expected(problem.class_mass_V, log_prob_NV)
    if problem.z_loss:
        loss_N = loss_N + problem.z_loss * lse_NK.square().mean(1)
    return Found(
        loss_N.masked_fill(ignored_N, 0),
        lse_NK.mean(1).masked_fill(ignored_N, 0),
        entropy_N.masked_fill(ignored_N, 0),
        prediction_N.masked_fill(ignored_N, -1),
    )


def _target_loss(problem: Problem, logits_NKV: Tensor, log_scale_NK: Tensor) -> Tensor:
    """-Σ_t mass_t·log p(target_t), (N,)."""
    target_NKT = problem.target_NT.clamp(min=0).unsqueeze(1).expand(-1, logits_NKV.shape[1], -1)
    joint_NKT = logits_NKV.gather(2, target_NKT) + log_scale_NK.unsqueeze(2)
    log_prob_NT = joint_NKT.squeeze(1) if joint_NKT.shape[1] == 1 else joint_NKT.logsumexp(1)
    return _expected(problem.mass_NT, log_prob_NT)


def _expected(mass: Tensor, log_prob_NX: Tensor) -> Tensor:
    """-Σ mass·log p; what has no mass may be impossible, and 0 · inf is NaN, in backward too."""
    massless = mass == 0
    return -(mass * log_prob_NX.masked_fill(massless, 0)).sum(1)
