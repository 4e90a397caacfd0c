"""The mixture's distribution, a chunk of tokens at a time: never (N, K, V) in memory.

A chunk holds all K mixtures of its tokens at every class, so one matrix product suffices. Tiles of
the vocabulary would need a second one, since log p(v) wants each whole row's logsumexp first.

Shape suffixes: N tokens, K mixtures, D features, V classes, S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zeta.kernels.dispatch import is_eager
from zeta.ops.mixture.chunks import tokens_per_chunk
from zeta.ops.mixture.plain import mixture_log_prob, mixture_logits


class Mixture(NamedTuple):
    """The mixtures of some tokens: (N, K, D), (N, K), and the decoder's weight and bias."""

    hidden_NKD: Tensor
    log_prior_NK: Tensor
    weight: Tensor
    bias: Tensor | None


def probabilities(mixture: Mixture) -> Tensor:
    """p(v), (N, V), in the dtype that the softmax is computed in."""

    def mixed(chunk: Mixture) -> tuple[Tensor]:
        prior_NK1 = chunk.log_prior_NK.exp().unsqueeze(-1)
        # Not a matrix product, which autocast would round to a half type.
        return ((prior_NK1 * _logits(chunk).softmax(-1)).sum(1),)

    return _by_chunks(mixed, mixture)[0]


def log_prob(mixture: Mixture) -> Tensor:
    """log p(v), (N, V), in log space."""
    return _by_chunks(lambda chunk: (_log_prob(chunk),), mixture)[0]


def topk(mixture: Mixture, k: int) -> tuple[Tensor, Tensor]:
    """The k largest log p(v) and their classes, (N, k), best first."""
    values, indices = _by_chunks(lambda chunk: tuple(_log_prob(chunk).topk(k)), mixture)
    return values, indices


def sample(mixture: Mixture, num_samples: int, generator: torch.Generator | None) -> Tensor:
    """Classes drawn with replacement, (N, S): the mixture first, then from its softmax alone.

    In float64, where a class of probability 1e-9 keeps it: a running sum in float32 would lose it.
    """
    hidden_NKD, log_prior_NK, weight, bias = mixture
    mixture_NS = _draw(log_prior_NK, num_samples, generator)
    drawn_NS = torch.empty_like(mixture_NS)
    size = tokens_per_chunk(None, weight, 1, torch.float64)
    for k in range(log_prior_NK.shape[1]):
        weight_VD = weight if weight.dim() == 2 else weight[k]
        bias_V = bias if bias is None or bias.dim() == 1 else bias[k]
        for tokens in (mixture_NS == k).any(1).nonzero().squeeze(1).split(size):
            logits_NV = mixture_logits(hidden_NKD[tokens, k], weight_VD, bias_V)
            classes_NS = _draw(logits_NV, num_samples, generator)
            from_k_NS = mixture_NS[tokens] == k
            drawn_NS[tokens] = torch.where(from_k_NS, classes_NS, drawn_NS[tokens])
    return drawn_NS


def _draw(logits_NX: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    p_NX = logits_NX.double().softmax(-1)
    return torch.multinomial(p_NX, num_samples, replacement=True, generator=generator)


def _logits(mixture: Mixture) -> Tensor:
    return mixture_logits(mixture.hidden_NKD, mixture.weight, mixture.bias)


def _log_prob(mixture: Mixture) -> Tensor:
    return mixture_log_prob(_logits(mixture), mixture.log_prior_NK)


def _by_chunks(
    function: Callable[[Mixture], tuple[Tensor, ...]], mixture: Mixture
) -> tuple[Tensor, ...]:
    """What the function gives for all tokens; in backward its logits are computed again."""
    hidden_NKD, log_prior_NK, weight, bias = mixture
    N, K, _ = hidden_NKD.shape
    size = tokens_per_chunk(None, weight, K, log_prior_NK.dtype)
    if size >= N or not is_eager():  # a transform sees one expression
        return function(mixture)

    def of_chunk(hidden_NKD: Tensor, log_prior_NK: Tensor, *decoder: Any) -> tuple[Tensor, ...]:
        return function(Mixture(hidden_NKD, log_prior_NK, *decoder))

    chunks = zip(hidden_NKD.split(size), log_prior_NK.split(size), strict=True)
    if torch.is_grad_enabled():
        parts = [
            checkpoint(of_chunk, *chunk, weight, bias, use_reentrant=False) for chunk in chunks
        ]
    else:
        parts = [of_chunk(*chunk, weight, bias) for chunk in chunks]
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))
