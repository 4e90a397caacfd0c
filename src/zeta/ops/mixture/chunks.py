"""The mixture's loss and its gradients, chunk by chunk: three matrix products and no recompute.

A chunk holds all K mixtures of its tokens, so it knows their responsibilities, and forms its part
of every gradient before the next chunk overwrites its logits:

    logits = hidden @ weightᵀ     d_hidden = d_logits @ weight     d_weight += d_logitsᵀ @ hidden

Shape suffixes: N tokens, K mixtures, D features, V classes. With a shared decoder each product is
of B = 1 pair of matrices and R = N·K rows; with separate decoders of B = K pairs and R = N rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from zeta.kernels import mixture
from zeta.kernels.mixture import Mass, Rows
from zeta.ops.mixture import shard

# Logits held at once, in bytes, where the caller sets no bound: enough for efficient products, and
# in proportion to the weight's gradient where that is large.
_CHUNK_BYTES = 28 << 20
_WEIGHT_SHARE = 4

# Targets that are no class of this process.
IGNORED, ELSEWHERE = -1, -2

# The largest gradient by a logit in float16: small probabilities stay representable, and so does
# a sum over a chunk's tokens.
_FLOAT16_UNIT = 16.0


class Problem(NamedTuple):
    """What the loss is computed from; see :func:`zeta.ops.mixture_cross_entropy`.

    Attributes:
        hidden_NKD, weight, bias: as given.
        log_prior_NK: in the dtype that arithmetic runs in, as is the mass.
        target_N: int64; IGNORED for tokens that count for nothing, ELSEWHERE where another
            process holds the target.
        mass: how much each class counts in a token's loss.
        matmul_dtype: of the matrix products.
        tokens_per_chunk: how many tokens' logits are held at once.
        group: the processes that hold the other classes (`zeta.ops.mixture.shard`), or None.
    """

    hidden_NKD: Tensor
    log_prior_NK: Tensor
    weight: Tensor
    bias: Tensor | None
    target_N: Tensor
    mass: Mass
    matmul_dtype: torch.dtype
    tokens_per_chunk: int
    group: str | None = None

    @property
    def ignored_N(self) -> Tensor:
        """The tokens that count for nothing."""
        return self.target_N == IGNORED


class Wanted(NamedTuple):
    """Whose gradients are wanted."""

    hidden: bool
    log_prior: bool
    weight: bool
    bias: bool


class Gradients(NamedTuple):
    """Gradients by the inputs: None where not wanted, in float32 where the input is float16."""

    hidden: Tensor | None
    log_prior: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def tokens_per_chunk(
    max_bytes: int | None, weight_bytes: int, num_mixtures: int, V: int, dtype: torch.dtype
) -> int:
    """How many tokens' logits fit the bound, or the default one.

    Args:
        max_bytes: the bound, or None.
        weight_bytes: the size of the weight's gradient while it grows.
        num_mixtures, V, dtype: of the logits.
    """
    max_bytes = max_bytes or max(_CHUNK_BYTES, weight_bytes // _WEIGHT_SHARE)
    return max(1, max_bytes // max(1, num_mixtures * V * dtype.itemsize))


def losses(problem: Problem) -> Tensor:
    """Every token's loss, (N,), in the dtype that arithmetic runs in; 0 where ignored."""
    return _by_chunks(problem, None, Wanted(False, False, False, False))[0]


def losses_and_gradients(
    problem: Problem, coefficient_N: Tensor, wanted: Wanted
) -> tuple[Tensor, Gradients]:
    """Every token's loss, and the gradients of Σ_n coefficient_n · loss_n."""
    coefficient_N = coefficient_N.masked_fill(problem.ignored_N, 0)
    if problem.matmul_dtype != torch.float16 or not len(coefficient_N):
        return _by_chunks(problem, coefficient_N, wanted)
    unit = coefficient_N.abs().amax() / _FLOAT16_UNIT
    unit = unit.where(unit > 0, 1)
    losses_N, gradients = _by_chunks(problem, coefficient_N / unit, wanted)
    return losses_N, Gradients(*(None if g is None else g.mul_(unit) for g in gradients))


def _by_chunks(
    problem: Problem, coefficient_N: Tensor | None, wanted: Wanted
) -> tuple[Tensor, Gradients]:
    N, K, D = problem.hidden_NKD.shape
    V, B = problem.weight.shape[-2], K if problem.weight.dim() == 3 else 1
    size = min(problem.tokens_per_chunk, N)
    weight_BVD = problem.weight.to(problem.matmul_dtype).view(B, V, D)
    bias = None if problem.bias is None else problem.bias.to(problem.log_prior_NK.dtype)
    buffer = weight_BVD.new_empty(size * K * V)
    losses_N = torch.empty_like(problem.mass.target_N)
    sums = _Sums(problem, weight_BVD, wanted)
    for start in range(0, N, max(size, 1)):
        tokens = slice(start, min(start + size, N))
        hidden_BRD = by_matrix(problem.hidden_NKD[tokens], B).to(problem.matmul_dtype)
        logits_BRV = buffer[: (tokens.stop - start) * K * V].view(B, -1, V)
        for hidden_RD, weight_VD, logits_RV in zip(hidden_BRD, weight_BVD, logits_BRV, strict=True):
            torch.mm(hidden_RD, weight_VD.t(), out=logits_RV)
        rows = Rows(by_token(logits_BRV, K), bias, problem.target_N[tokens])
        coefficient = None if coefficient_N is None else coefficient_N[tokens]
        losses_N[tokens], scale_NK = _respond(problem, tokens, rows, coefficient, wanted)
        sums.add(tokens, hidden_BRD, logits_BRV, scale_NK)
    return losses_N, sums.gradients()


def _respond(
    problem: Problem,
    tokens: slice,
    rows: Rows,
    coefficient_N: Tensor | None,
    wanted: Wanted,
) -> tuple[Tensor, Tensor]:
    """The tokens' losses, and coefficient·responsibility; the logits become their gradient."""
    mass_N, class_mass_V = problem.mass.target_N[tokens], problem.mass.class_V
    log_prior_NK, ignored_N = problem.log_prior_NK[tokens], problem.ignored_N[tokens]
    coefficient_N = torch.zeros_like(mass_N) if coefficient_N is None else coefficient_N
    writes = wanted.hidden or wanted.weight or wanted.bias
    found = mixture.statistics(rows)
    found = found if problem.group is None else shard.combine(found, problem.group)
    if class_mass_V is None:
        log_prob_N, scale_NK = mixture.respond(found, log_prior_NK, coefficient_N * mass_N)
        scale_NK.masked_fill_(ignored_N.unsqueeze(1), 0)
        if writes:
            mixture.write_gradient(rows, found, scale_NK)
        return (-mass_N * log_prob_N).masked_fill_(ignored_N, 0), scale_NK

    mass = Mass(mass_N, class_mass_V)
    log_prob_N, response_NK = mixture.respond_with_mass(rows, found, log_prior_NK, mass)
    if problem.group is not None:
        log_prob_N, response_NK = shard.total(problem.group, log_prob_N, response_NK)
    response_NK = response_NK.masked_fill(ignored_N.unsqueeze(1), 0)
    if writes:
        mixture.write_gradient_with_mass(
            rows, found, log_prior_NK, mass, response_NK, coefficient_N
        )
    return -log_prob_N.masked_fill(ignored_N, 0), coefficient_N.unsqueeze(1) * response_NK


class _Sums:
    """The gradients, as chunks add to them: a weight's in float32 or better."""

    def __init__(self, problem: Problem, weight_BVD: Tensor, wanted: Wanted) -> None:
        hidden_NKD, wide = problem.hidden_NKD, problem.log_prior_NK.dtype
        self.problem, self.weight_BVD = problem, weight_BVD
        self.log_prior_NK = torch.empty_like(problem.log_prior_NK) if wanted.log_prior else None
        self.hidden_NKD = self.d_weight_BVD = self.d_bias_BV = None
        if wanted.hidden:
            stored = stored_dtype(hidden_NKD.dtype)
            self.hidden_NKD = hidden_NKD.new_empty(hidden_NKD.shape, dtype=stored)
        if wanted.weight:
            self.d_weight_BVD = torch.zeros_like(weight_BVD, dtype=wide)
        if wanted.bias:
            self.d_bias_BV = torch.zeros_like(weight_BVD[..., 0], dtype=wide)
        narrow = wanted.weight and weight_BVD.dtype != wide
        self.product_VD = torch.empty_like(weight_BVD[0]) if narrow else None

    def add(
        self, tokens: slice, hidden_BRD: Tensor, d_logits_BRV: Tensor, scale_NK: Tensor
    ) -> None:
        """Add what a chunk's gradients by the logits contribute."""
        if self.log_prior_NK is not None:
            self.log_prior_NK[tokens] = -scale_NK
        if self.hidden_NKD is not None:
            pairs = zip(d_logits_BRV, self.weight_BVD, strict=True)
            d_hidden_BRD = torch.stack([torch.mm(d, weight) for d, weight in pairs])
            self.hidden_NKD[tokens] = by_token(d_hidden_BRD, scale_NK.shape[1])
        if self.d_weight_BVD is not None:
            for total, d, hidden in zip(self.d_weight_BVD, d_logits_BRV, hidden_BRD, strict=True):
                if self.product_VD is None:
                    total.addmm_(d.t(), hidden)
                else:  # a product of half types is one too
                    total += torch.mm(d.t(), hidden, out=self.product_VD)
        if self.d_bias_BV is not None:
            self.d_bias_BV += d_logits_BRV.sum(1, dtype=self.d_bias_BV.dtype)

    def gradients(self) -> Gradients:
        """The whole sums, in the inputs' shapes."""
        weight, bias, group = self.problem.weight, self.problem.bias, self.problem.group
        if group is not None and self.hidden_NKD is not None:
            (self.hidden_NKD,) = shard.total(group, self.hidden_NKD)
        return Gradients(
            self.hidden_NKD,
            self.log_prior_NK,
            _as(self.d_weight_BVD, weight),
            _as(self.d_bias_BV, bias),
        )


def by_token(rows_BRX: Tensor, K: int) -> Tensor:
    """(B, R, …) as (N, K, …)."""
    return (
        rows_BRX.unflatten(1, (-1, K)).squeeze(0)
        if len(rows_BRX) == 1
        else rows_BRX.transpose(0, 1)
    )


def by_matrix(rows_NKX: Tensor, B: int) -> Tensor:
    """(N, K, …) as (B, R, …)."""
    return rows_NKX.flatten(0, 1).unsqueeze(0) if B == 1 else rows_NKX.transpose(0, 1)


def _as(total: Tensor | None, like: Tensor | None) -> Tensor | None:
    if total is None or like is None:
        return None
    return total.view(like.shape).to(stored_dtype(like.dtype))


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of a gradient on its way to its input: float16 lacks the range."""
    return torch.float32 if dtype == torch.float16 else dtype
