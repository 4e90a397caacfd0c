"""The mixture by plain operations in log space, with all logits in memory.

For whatever must see single operations (functorch transforms, forward-mode differentiation, tensor
subclasses), for second derivatives, and for a chunk at a time.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta._backends.torch_plain import compute_dtype
from zeta.ops.mixture.chunks import Problem


def mixture_logits(hidden_NKD: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every mixture's logits, (N, K, V), in the dtype that the softmax is computed in."""
    if weight.dim() == 2:
        logits_NKV = F.linear(hidden_NKD, weight, bias)
    else:
        logits_NKV = torch.einsum("nkd,kvd->nkv", hidden_NKD, weight)
        logits_NKV = logits_NKV if bias is None else logits_NKV + bias
    return logits_NKV.to(compute_dtype(hidden_NKD.dtype))


def mixture_log_prob(logits_NKV: Tensor, log_prior_NK: Tensor) -> Tensor:
    """log p(v) = logsumexp_k(log_prior_k + log_softmax(logits_k)_v), (N, V)."""
    log_prior_NK1 = log_prior_NK.to(logits_NKV.dtype).unsqueeze(-1)
    return torch.logsumexp(log_prior_NK1 + torch.log_softmax(logits_NKV, -1), dim=1)


def losses(problem: Problem) -> Tensor:
    """Every token's loss, (N,), in the dtype that arithmetic runs in; 0 where ignored."""
    dtype, mass, ignored_N = problem.matmul_dtype, problem.mass, problem.ignored_N
    bias = None if problem.bias is None else problem.bias.to(dtype)
    logits_NKV = mixture_logits(problem.hidden_NKD.to(dtype), problem.weight.to(dtype), bias)
    target_N1 = problem.target_N.masked_fill(ignored_N, 0).unsqueeze(1)
    # An ignored token's class may be impossible, and 0 · inf is NaN in backward.
    log_prior_NK = problem.log_prior_NK.masked_fill(ignored_N.unsqueeze(1), 0)
    if mass.class_V is None:
        log_softmax_NK = _log_softmax_of(logits_NKV, target_N1)
        joint_NK = log_prior_NK + log_softmax_NK.masked_fill(ignored_N.unsqueeze(1), 0)
        return -(mass.target_N * joint_NK.logsumexp(1)).masked_fill(ignored_N, 0)
    logits_NKV = logits_NKV.masked_fill(ignored_N[:, None, None], 0)
    log_prob_NV = mixture_log_prob(logits_NKV, log_prior_NK)
    target_log_prob_N = log_prob_NV.gather(1, target_N1).squeeze(1)
    total_N = mass.target_N * target_log_prob_N + (mass.class_V * log_prob_NV).sum(1)
    return -total_N.masked_fill(ignored_N, 0)


def _log_softmax_of(logits_NKV: Tensor, target_N1: Tensor) -> Tensor:
    """One class's log-softmax in every mixture, (N, K)."""
    target_NK1 = target_N1.unsqueeze(2).expand(-1, logits_NKV.shape[1], 1)
    return logits_NKV.gather(2, target_NK1).squeeze(2) - logits_NKV.logsumexp(2)
