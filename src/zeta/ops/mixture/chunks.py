"""A softmax head's loss and its gradients, chunk by chunk: three matrix products, no recompute.

A chunk holds all K mixtures of its tokens, so it knows their responsibilities, and forms its part
of every gradient before the next chunk overwrites its logits (one softmax is K = 1):

    logits = hidden @ weightᵀ     d_hidden = d_logits @ weight     d_weight += d_logitsᵀ @ hidden

Shape suffixes: N tokens, K mixtures, D features, V classes, T targets of a token, P parameters of
the formula between logits and softmax. With a shared decoder each product is
of B = 1 pair of matrices and R = N·K rows; with separate decoders of B = K pairs and R = N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zeta import activations
from zeta._formula import Formula
from zeta.kernels import mixture
from zeta.kernels.mixture import Distribution, Joint, Rows, Scales, Statistics
from zeta.kernels.support import is_eager
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
    """What the loss is computed from; see :class:`zeta.ops.LossOptions`.

    ``-Σ_t mass_t·log p(target_t) - Σ_v class_mass_v·log p_v + z_loss·mean_k lse_k²`` of each token.

    Attributes:
        hidden_NKD, weight, bias: as given.
        log_prior_NK: in the dtype that arithmetic runs in, as are all masses and parameters.
        parameters_P: of the formula; empty if it has none.
        target_NT: int64; IGNORED for tokens that count for nothing, ELSEWHERE where another
            process holds the target.
        mass_NT: how much each target counts.
        class_mass_V: how much each class counts besides, or None.
        matmul_dtype: of the matrix products.
        tokens_per_chunk: how many tokens' logits are held at once.
        z_loss: how much the squared logarithm of the softmax's denominator counts.
        formula: what stands between logits and softmax.
        group: the processes that hold the other classes (`zeta.ops.mixture.shard`), or None.
        first_class: of this process.
    """

    hidden_NKD: Tensor
    log_prior_NK: Tensor
    weight: Tensor
    bias: Tensor | None
    parameters_P: Tensor
    target_NT: Tensor
    mass_NT: Tensor
    class_mass_V: Tensor | None
    matmul_dtype: torch.dtype
    tokens_per_chunk: int
    z_loss: float
    formula: Formula
    group: str | None = None
    first_class: int = 0

    @property
    def ignored_N(self) -> Tensor:
        """The tokens that count for nothing."""
        return self.target_NT[:, 0] == IGNORED


class Upstream(NamedTuple):
    """How much each token's loss and entropy, (N,), count; an entropy needs one mixture."""

    loss_N: Tensor
    entropy_N: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Upstream:
        """The function of what there is."""
        entropy_N = None if self.entropy_N is None else function(self.entropy_N)
        return Upstream(function(self.loss_N), entropy_N)


class Wanted(NamedTuple):
    """What is wanted beside the losses: gradients by the problem's first fields, and outputs."""

    hidden: bool = False
    log_prior: bool = False
    weight: bool = False
    bias: bool = False
    parameters: bool = False
    distribution: bool = False

    @property
    def by_logits(self) -> bool:
        """Whether a gradient by the logits is needed."""
        return self.hidden or self.weight or self.bias or self.parameters


class Found(NamedTuple):
    """Of each token, (N,): 0 and class -1 where ignored; the last two only where wanted."""

    loss_N: Tensor
    log_sum_exp_N: Tensor
    entropy_N: Tensor
    prediction_N: Tensor


class Gradients(NamedTuple):
    """Gradients by the inputs: None where not wanted, in float32 where the input is float16."""

    hidden: Tensor | None
    log_prior: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    parameters: Tensor | None


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


def found(problem: Problem, wanted: Wanted) -> Found:
    """Every token's loss and what else is wanted, in the dtype that arithmetic runs in."""
    return _by_chunks(problem, None, wanted)[0]


def found_and_gradients(
    problem: Problem, upstream: Upstream, wanted: Wanted
) -> tuple[Found, Gradients]:
    """As :func:`found`, and the gradients of Σ_n loss_n·upstream + entropy_n·upstream."""
    upstream = upstream.map(lambda u: u.masked_fill(problem.ignored_N, 0))
    if problem.matmul_dtype != torch.float16 or not len(upstream.loss_N):
        return _by_chunks(problem, upstream, wanted)
    largest = [u.abs().amax() for u in upstream if u is not None]
    unit = torch.stack(largest).amax() / _FLOAT16_UNIT
    unit = unit.where(unit > 0, 1)
    of_tokens, gradients = _by_chunks(problem, upstream.map(lambda u: u / unit), wanted)
    return of_tokens, Gradients(*(None if g is None else g.mul_(unit) for g in gradients))


def _by_chunks(
    problem: Problem, upstream: Upstream | None, wanted: Wanted
) -> tuple[Found, Gradients]:
    N, K, D = problem.hidden_NKD.shape
    V, B = problem.weight.shape[-2], K if problem.weight.dim() == 3 else 1
    weight_BVD = problem.weight.to(problem.matmul_dtype).view(B, V, D)
    bias = None if problem.bias is None else problem.bias.to(problem.log_prior_NK.dtype)
    of_tokens = _nothing_found(problem)
    sums = _Sums(problem, weight_BVD, wanted)
    kept = _kept(problem)
    count = N if kept is None else len(kept)
    size = min(problem.tokens_per_chunk, count)
    buffer = weight_BVD.new_empty(size * K * V)
    for start in range(0, count, max(size, 1)):
        stop = min(start + size, count)
        tokens = slice(start, stop) if kept is None else kept[start:stop]
        hidden_BRD = by_matrix(problem.hidden_NKD[tokens], B).to(problem.matmul_dtype)
        logits_BRV = buffer[: (stop - start) * K * V].view(B, -1, V)
        for hidden_RD, weight_VD, logits_RV in zip(hidden_BRD, weight_BVD, logits_BRV, strict=True):
            torch.mm(hidden_RD, weight_VD.t(), out=logits_RV)
        chunk = _Chunk(problem, tokens, by_token(logits_BRV, K), bias)
        for values, part in zip(of_tokens, chunk.found(wanted, upstream), strict=True):
            values[tokens] = part
        if upstream is not None:
            response_NK, total_P = chunk.differentiate(upstream, wanted)
            sums.add(tokens, hidden_BRD, logits_BRV, response_NK, total_P)
    return of_tokens, sums.gradients()


def _kept(problem: Problem) -> Tensor | None:
    """The tokens that count; None for all of them, and while a CUDA graph is captured."""
    ignored_N = problem.ignored_N
    if ignored_N.is_cuda and torch.cuda.is_current_stream_capturing():
        return None
    kept = (~ignored_N).nonzero().squeeze(1)
    return None if len(kept) == len(ignored_N) else kept


def _nothing_found(problem: Problem) -> Found:
    new = problem.mass_NT.new_zeros
    N = len(problem.mass_NT)
    return Found(new(N), new(N), new(N), problem.target_NT.new_full((N,), -1))


class _Chunk:
    """Some tokens, whose logits are in memory until their gradient replaces them."""

    def __init__(
        self, problem: Problem, tokens: slice | Tensor, logits_NKV: Tensor, bias: Tensor | None
    ) -> None:
        self.problem, self.tokens = problem, tokens
        target_NT, formula = problem.target_NT[tokens], problem.formula
        self.ignored_N = target_NT[:, 0] == IGNORED
        self.log_prior_NK = problem.log_prior_NK[tokens]
        self.mass_NT = problem.mass_NT[tokens].masked_fill(self.ignored_N.unsqueeze(1), 0)
        self.rows = Rows(logits_NKV, bias, target_NT, formula, problem.parameters_P)
        statistics = mixture.statistics(self.rows)
        _check_values(self.rows, statistics)
        if problem.group is not None:
            statistics = shard.combine(statistics, problem.group)
        self.statistics = statistics
        log_total_NK = statistics.total.log()
        self.log_sum_exp_NK = statistics.high + log_total_NK
        self.joint = Joint(self.log_prior_NK - log_total_NK, problem.class_mass_V)
        self.distribution: Distribution | None = None

    def found(self, wanted: Wanted, upstream: Upstream | None) -> Found:
        """What is found of each token; the losses, at least."""
        problem = self.problem
        value_NKT = self.statistics.value - self.statistics.high.unsqueeze(2)
        self.joint_NKT = value_NKT + self.joint.shift_NK.unsqueeze(2)
        log_prob_NT = self.joint_NKT.logsumexp(1)
        # A target without mass may be impossible, and 0 · inf is NaN.
        loss_N = -(self.mass_NT * log_prob_NT).masked_fill(self.mass_NT == 0, 0).sum(1)
        entropy_N, prediction_N = _nothing_found(problem)[2:]
        entropy_N, prediction_N = entropy_N[: len(loss_N)], prediction_N[: len(loss_N)]
        differentiates_entropy = upstream is not None and upstream.entropy_N is not None
        if wanted.distribution or problem.class_mass_V is not None or differentiates_entropy:
            of = mixture.distribution(self.rows, self.statistics, self.joint)
            if problem.group is not None:
                of = shard.whole(of, problem.group, problem.first_class)
            self.distribution = of
            loss_N -= self.distribution.mass_log_prob
            entropy_N, prediction_N = self.distribution.entropy, self.distribution.prediction
        if problem.z_loss:
            loss_N += problem.z_loss * self.log_sum_exp_NK.square().mean(1)
        ignored_N = self.ignored_N
        return Found(
            loss_N.masked_fill_(ignored_N, 0),
            self.log_sum_exp_NK.mean(1).masked_fill_(ignored_N, 0),
            entropy_N.masked_fill(ignored_N, 0),
            prediction_N.masked_fill(ignored_N, -1),
        )

    def differentiate(self, upstream: Upstream, wanted: Wanted) -> tuple[Tensor, Tensor | None]:
        """The gradients by log p of each mixture, and by φ's parameters; the logits become theirs.

        Σ_v mass_v·r_kv is how much of a token's loss is a mixture's.
        """
        problem, K = self.problem, self.log_prior_NK.shape[1]
        upstream_N1 = upstream.loss_N[self.tokens].unsqueeze(1)
        response_NKT = self.joint_NKT.softmax(1) if K > 1 else torch.ones_like(self.joint_NKT)
        mass_N1T = self.mass_NT.unsqueeze(1)
        by_target_NKT = (mass_N1T * response_NKT).masked_fill_(mass_N1T == 0, 0)
        response_NK = by_target_NKT.sum(2)
        if problem.class_mass_V is not None and self.distribution is not None:
            response_NK = response_NK + self.distribution.response
        response_NK = upstream_N1 * response_NK
        by_prob_NK = response_NK
        if problem.z_loss:
            by_prob_NK = response_NK + upstream_N1 * (2 * problem.z_loss / K) * self.log_sum_exp_NK
        silent_N1 = self.ignored_N.unsqueeze(1)
        scales = Scales(
            by_prob_NK.masked_fill(silent_N1, 0),
            upstream_N1.unsqueeze(2) * by_target_NKT,
            None if upstream.entropy_N is None else -upstream.entropy_N[self.tokens],
            None if problem.class_mass_V is None else upstream.loss_N[self.tokens],
        )
        total_P = None
        if wanted.by_logits:
            entropy_N = None if self.distribution is None else self.distribution.entropy
            total_P = mixture.write_gradient(
                self.rows, self.statistics, self.joint, scales, entropy_N, wanted.parameters
            )
        return response_NK.masked_fill_(silent_N1, 0), total_P


def _check_values(rows: Rows, statistics: Statistics) -> None:
    """Raise where the formula makes NaN or +inf of a finite logit, as far as that is seen here."""
    if not (statistics.total.is_cpu and is_eager()) or rows.formula is activations.identity:
        return  # a device would have to be waited for
    bad_NK = statistics.total.isnan()
    if not bad_NK.any():
        return
    token, k = bad_NK.nonzero()[0].tolist()
    logits_V = rows.logits_NKV[token, k].to(rows.parameters_P.dtype)
    if rows.bias is not None:
        logits_V = logits_V + (rows.bias if rows.bias.dim() == 1 else rows.bias[k])
    value_V = rows.formula(logits_V, *rows.parameters_P)
    bad_V = logits_V.isfinite() & (value_V.isnan() | (value_V == torch.inf))
    if bad_V.any():
        logit, value = logits_V[bad_V][0].item(), value_V[bad_V][0].item()
        raise ValueError(
            f"{rows.formula.name} maps the logit {logit:g} to {value}, of which there is no "
            "softmax: logits need a formula that is finite, or -inf, at every finite number"
        )


class _Sums:
    """The gradients, as chunks add to them: a weight's in float32 or better."""

    def __init__(self, problem: Problem, weight_BVD: Tensor, wanted: Wanted) -> None:
        hidden_NKD, wide = problem.hidden_NKD, problem.log_prior_NK.dtype
        self.problem, self.weight_BVD = problem, weight_BVD
        self.log_prior_NK = torch.zeros_like(problem.log_prior_NK) if wanted.log_prior else None
        self.hidden_NKD = self.d_weight_BVD = self.d_bias_BV = self.d_parameters_P = None
        if wanted.hidden:
            stored = stored_dtype(hidden_NKD.dtype)
            self.hidden_NKD = hidden_NKD.new_zeros(hidden_NKD.shape, dtype=stored)
        if wanted.weight:
            self.d_weight_BVD = torch.empty_like(weight_BVD, dtype=wide)
        if wanted.bias:
            self.d_bias_BV = torch.zeros_like(weight_BVD[..., 0], dtype=wide)
        if wanted.parameters:
            self.d_parameters_P = torch.zeros_like(problem.parameters_P, dtype=torch.float64)
        self.is_empty = True  # the weight's gradient, to which no chunk has added
        narrow = wanted.weight and weight_BVD.dtype != wide
        self.product_VD = torch.empty_like(weight_BVD[0]) if narrow else None

    def add(
        self,
        tokens: slice | Tensor,
        hidden_BRD: Tensor,
        d_logits_BRV: Tensor,
        response_NK: Tensor,
        total_P: Tensor | None,
    ) -> None:
        """Add what a chunk's gradients by the logits contribute."""
        if self.log_prior_NK is not None:
            self.log_prior_NK[tokens] = -response_NK
        if self.hidden_NKD is not None:
            pairs = zip(d_logits_BRV, self.weight_BVD, strict=True)
            d_hidden_BRD = torch.stack([torch.mm(d, weight) for d, weight in pairs])
            d_hidden_NKD = by_token(d_hidden_BRD, response_NK.shape[1])
            self.hidden_NKD[tokens] = d_hidden_NKD.to(self.hidden_NKD.dtype)
        if self.d_weight_BVD is not None:
            for total, d, hidden in zip(self.d_weight_BVD, d_logits_BRV, hidden_BRD, strict=True):
                if self.product_VD is not None:  # a product of half types is one too
                    product_VD = torch.mm(d.t(), hidden, out=self.product_VD)
                    total.copy_(product_VD) if self.is_empty else total.add_(product_VD)
                else:  # the first overwrites what is there
                    torch.addmm(total, d.t(), hidden, beta=float(not self.is_empty), out=total)
            self.is_empty = False
        if self.d_bias_BV is not None:
            self.d_bias_BV += d_logits_BRV.sum(1, dtype=self.d_bias_BV.dtype)
        if self.d_parameters_P is not None and total_P is not None:
            self.d_parameters_P += total_P

    def gradients(self) -> Gradients:
        """The whole sums, in the inputs' shapes."""
        weight, bias, group = self.problem.weight, self.problem.bias, self.problem.group
        if self.is_empty and self.d_weight_BVD is not None:
            self.d_weight_BVD.zero_()
        if group is not None and self.hidden_NKD is not None:
            (self.hidden_NKD,) = shard.total(group, self.hidden_NKD)
        if group is not None and self.d_parameters_P is not None:
            (self.d_parameters_P,) = shard.total(group, self.d_parameters_P)
        return Gradients(
            self.hidden_NKD,
            self.log_prior_NK,
            _as(self.d_weight_BVD, weight),
            _as(self.d_bias_BV, bias),
            _as(self.d_parameters_P, self.problem.parameters_P),
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
