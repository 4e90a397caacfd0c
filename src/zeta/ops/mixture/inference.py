"""The mixture's distribution, a chunk of tokens at a time: never (N, K, V) in memory.

A chunk holds all K mixtures of its tokens at every class, so one matrix product suffices. Tiles of
the vocabulary would need a second one, since log p(v) wants each whole row's logsumexp first.

Shape suffixes: N tokens, K mixtures, D features, V classes (of this process, where several share
them), S samples, M classes that may be drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zeta._formula import Formula
from zeta._mixture import warped_logits
from zeta.activations import identity
from zeta.kernels.mixture import Rows, statistics
from zeta.kernels.support import is_eager
from zeta.ops.mixture import shard as shards
from zeta.ops.mixture.chunks import ELSEWHERE, tokens_per_chunk
from zeta.ops.mixture.plain import mixture_log_prob, mixture_logits
from zeta.ops.mixture.shard import Shard


class Mixture(NamedTuple):
    """The mixtures of some tokens.

    Attributes:
        hidden_NKD, log_prior_NK: what goes into the decoder, and the mixtures' log-weights.
        weight, bias: the decoder's.
        formula, parameters_P: what stands between logits and softmax.
        shard: which classes these are of, where several processes share them.
    """

    hidden_NKD: Tensor
    log_prior_NK: Tensor
    weight: Tensor
    bias: Tensor | None
    formula: Formula
    parameters_P: Tensor
    shard: Shard | None = None


def probabilities(mixture: Mixture) -> Tensor:
    """p(v) of all classes, (N, V), in the dtype that the softmax is computed in."""
    return _of_all_classes(_by_chunks(lambda chunk: (_probabilities(chunk),), mixture)[0], mixture)


def log_prob(mixture: Mixture) -> Tensor:
    """log p(v) of all classes, (N, V), in log space."""
    return _of_all_classes(_by_chunks(lambda chunk: (_log_prob(chunk),), mixture)[0], mixture)


def topk(mixture: Mixture, k: int) -> tuple[Tensor, Tensor]:
    """The k largest log p(v) and their classes, (N, k), best first."""
    values, classes = _by_chunks(lambda chunk: _topk(chunk, k), mixture)
    if mixture.shard is None:
        return values, classes
    group = mixture.shard.group
    values, order = torch.cat(shards.gather(values, group), 1).topk(k)
    return values, torch.cat(shards.gather(classes, group), 1).gather(1, order)


def sample(
    mixture: Mixture,
    num_samples: int,
    generator: torch.Generator | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Tensor:
    """Classes drawn with replacement, (N, S), as `zeta._mixture.warped_logits` says.

    In float64, where a class of probability 1e-9 keeps it: a running sum in float32 would lose it.
    Several processes gather a chunk's classes and draw alike.
    """
    # How many tokens draw a mixture is not known to a compiler or exporter.
    if is_eager() and temperature == 1 and top_k is None and top_p is None:
        return _sample_ancestral(mixture, num_samples, generator)
    if mixture.shard is not None:
        generator, _ = shards.generators(mixture.shard, generator, mixture.weight.device)

    def drawn(chunk: Mixture) -> tuple[Tensor]:
        log_prob_NV = _of_all_classes(_log_prob(chunk), chunk).double()
        logits_NM, classes_NM = warped_logits(
            torch, torch.topk, log_prob_NV, temperature, top_k, top_p
        )
        drawn_NS = _draw(logits_NM, num_samples, generator)
        return (drawn_NS if classes_NM is None else classes_NM.gather(1, drawn_NS),)

    return _by_chunks(drawn, mixture)[0]


def _sample_ancestral(
    mixture: Mixture, num_samples: int, generator: torch.Generator | None
) -> Tensor:
    """The mixture is drawn first, then the class from its softmax alone: one softmax, not K.

    Of several processes, one is drawn by its share of that softmax, and draws the class.
    """
    hidden_NKD, log_prior_NK, weight, bias, formula, parameters_P, shard = mixture
    alike, own = generator, generator
    if shard is not None:
        alike, own = shards.generators(shard, generator, log_prior_NK.device)
    mixture_NS = _draw(log_prior_NK.double(), num_samples, alike)
    drawn_NS = torch.zeros_like(mixture_NS)
    for k in range(log_prior_NK.shape[1]):
        weight_VD = weight if weight.dim() == 2 else weight[k]
        bias_V = bias if bias is None or bias.dim() == 1 else bias[k]
        for tokens in (mixture_NS == k).any(1).nonzero().squeeze(1).split(_chunk_size(mixture, 1)):
            logits_NV = mixture_logits(
                hidden_NKD[tokens, k], weight_VD, bias_V, formula, parameters_P
            ).double()
            classes_NS = _draw(logits_NV, num_samples, own)
            counts_NS = mixture_NS[tokens] == k
            if shard is not None:
                share_NP = torch.stack(shards.gather(logits_NV.logsumexp(1), shard.group), 1)
                counts_NS &= _draw(share_NP, num_samples, alike) == shard.rank
                classes_NS += shard.start
            drawn_NS[tokens] = classes_NS.where(counts_NS, drawn_NS[tokens])
    return drawn_NS if shard is None else shards.total(shard.group, drawn_NS)[0]


def _draw(logits_NX: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(logits_NX.softmax(-1), num_samples, True, generator=generator)


def _logits(mixture: Mixture) -> Tensor:
    return mixture_logits(
        mixture.hidden_NKD, mixture.weight, mixture.bias, mixture.formula, mixture.parameters_P
    )


def _probabilities(mixture: Mixture) -> Tensor:
    if mixture.shard is not None:
        return _log_prob(mixture).exp()
    if mixture.log_prior_NK.shape[1] == 1:
        return _logits(mixture).squeeze(1).softmax(-1)
    prior_NK1 = mixture.log_prior_NK.exp().unsqueeze(-1)
    # Not a matrix product, which autocast would round to a half type.
    return (prior_NK1 * _logits(mixture).softmax(-1)).sum(1)


def _log_prob(mixture: Mixture) -> Tensor:
    logits_NKV = _logits(mixture)
    if mixture.shard is None:
        return mixture_log_prob(logits_NKV, mixture.log_prior_NK)
    no_target_N1 = torch.full((len(logits_NKV), 1), ELSEWHERE, device=logits_NKV.device)
    # The formula has been applied already.
    rows = Rows(logits_NKV, None, no_target_N1, identity, logits_NKV.new_empty(0))
    found = shards.combine(statistics(rows), mixture.shard.group)
    joint_NKV = logits_NKV.sub_(found.high.unsqueeze(2))
    return joint_NKV.add_((mixture.log_prior_NK - found.total.log()).unsqueeze(2)).logsumexp(1)


def _topk(mixture: Mixture, k: int) -> tuple[Tensor, Tensor]:
    log_prob_NV = _log_prob(mixture)
    values, classes = log_prob_NV.topk(min(k, log_prob_NV.shape[1]))
    if mixture.shard is None:
        return values, classes
    absent = k - values.shape[1]  # more are asked for than this process holds
    values = torch.nn.functional.pad(values, (0, absent), value=-torch.inf)
    return values, torch.nn.functional.pad(classes + mixture.shard.start, (0, absent))


def _of_all_classes(values_NV: Tensor, mixture: Mixture) -> Tensor:
    if mixture.shard is None:
        return values_NV
    return shards.gather_classes(values_NV, -1, mixture.shard)


def _chunk_size(mixture: Mixture, num_mixtures: int) -> int:
    V = mixture.weight.shape[-2] if mixture.shard is None else max(mixture.shard.sizes)
    return tokens_per_chunk(None, 0, num_mixtures, V, torch.float64)


def _by_chunks(
    function: Callable[[Mixture], tuple[Tensor, ...]], mixture: Mixture
) -> tuple[Tensor, ...]:
    """What the function gives for all tokens; in backward its logits are computed again."""
    tensors = (*mixture[:4], mixture.parameters_P)
    differentiable = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in tensors
    )
    if differentiable and mixture.shard is not None:
        raise RuntimeError(
            "a vocab-parallel mixture's distribution has no gradient: call it under "
            "torch.no_grad(), or use loss or log_prob(x, target)"
        )
    size = _chunk_size(mixture, mixture.hidden_NKD.shape[1])
    # A transform sees one expression; an exporter must not be asked for the number of tokens.
    if not is_eager() or size >= mixture.hidden_NKD.shape[0]:
        return function(mixture)

    def of_chunk(hidden_NKD: Tensor, log_prior_NK: Tensor) -> tuple[Tensor, ...]:
        return function(mixture._replace(hidden_NKD=hidden_NKD, log_prior_NK=log_prior_NK))

    parts = []
    for chunk in zip(mixture.hidden_NKD.split(size), mixture.log_prior_NK.split(size), strict=True):
        if differentiable:
            parts.append(checkpoint(of_chunk, *chunk, use_reentrant=False))
        else:
            parts.append(of_chunk(*chunk))
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))
