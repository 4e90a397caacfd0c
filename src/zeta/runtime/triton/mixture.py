"""The rows of softmax heads as Triton kernels.

The counterpart of `zeta.kernels.mixture_cpu` and of ``cpp/mixture.h``, which says what is computed.
Arithmetic is in float32. The functions VALUE, SLOPE and TERM are generated from the formula between
logits and softmax. Under Triton's interpreter the kernels run on CPU tensors, as in the tests.

Shape suffixes: N tokens of the chunk, K mixtures, V classes. A tile is (KS, BLOCK): all mixtures of
a token, KS the next power of two, at some classes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta._formula import Formula
from zeta.kernels.build import functions_triton
from zeta.runtime.triton.primitives import at_least, exp, log

if TYPE_CHECKING:
    from zeta.kernels.mixture import Distribution, Joint, Rows, Scales, Statistics

# Logits that a program has in registers at once.
_BLOCK = 4096


def kernel(formula: Formula) -> Any:
    """The formula's functions by name; None if there are none."""
    return functions_triton(formula)


@triton.jit
def _logits(logits_ptr, bias_ptr, at, inside, HAS_BIAS: tl.constexpr):
    z = tl.load(logits_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(bias_ptr + at, mask=inside, other=0.0)
    return z


@triton.jit
def _statistics(
    logits_ptr, bias_ptr, target_ptr, parameters_ptr, high_ptr, total_ptr, value_ptr,
    K, V, T, token_stride, mixture_stride, bias_stride,
    VALUE: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token, k = row // K, row % K
    logits_ptr += token * token_stride + k * mixture_stride
    bias_ptr += k * bias_stride
    lane = tl.arange(0, BLOCK)
    high = tl.full((1,), -3.4028234663852886e38, tl.float32)
    total = tl.zeros((1,), tl.float32)
    for start in range(0, V, BLOCK):
        at = start + lane
        z = _logits(logits_ptr, bias_ptr, at, at < V, HAS_BIAS)
        f = tl.where(at < V, VALUE(z, parameters_ptr), float("-inf"))
        block_high = at_least(tl.max(f, 0, keep_dims=True), high)
        total = total * exp(high - block_high) + tl.sum(exp(f - block_high), 0, keep_dims=True)
        high = block_high
    one = tl.arange(0, 1)
    tl.store(high_ptr + row + one, high)
    tl.store(total_ptr + row + one, total)
    for j in range(0, T):
        target = tl.load(target_ptr + token * T + j + one)
        inside = (target >= 0) & (target < V)
        f = VALUE(_logits(logits_ptr, bias_ptr, target, inside, HAS_BIAS), parameters_ptr)
        tl.store(value_ptr + row * T + j + one, tl.where(inside, f, 0.0))


@triton.jit
def _shares(f, high, shift, ONE: tl.constexpr):
    """log p, (1, BLOCK), and the share that each mixture has in p."""
    joint = (f - high) + shift
    log_prob, share = joint, tl.full(joint.shape, 1.0, tl.float32)
    if not ONE:
        most = tl.max(joint, 0, keep_dims=True)
        share = exp(joint - most)
        total = tl.sum(share, 0, keep_dims=True)
        log_prob = most + log(total)
        share = share / total
    return log_prob, share


@triton.jit
def _distribution(
    logits_ptr, bias_ptr, parameters_ptr, high_ptr, shift_ptr, mass_ptr,
    mass_log_prob_ptr, response_ptr, entropy_ptr, best_ptr, prediction_ptr,
    K, V, token_stride, mixture_stride, bias_stride,
    VALUE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_MASS: tl.constexpr,
    ONE: tl.constexpr, KS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, KS)[:, None]
    known = k < K
    lane = tl.arange(0, BLOCK)[None, :]
    logits_ptr += token * token_stride + k * mixture_stride
    bias_ptr += k * bias_stride
    high = tl.load(high_ptr + token * K + k, mask=known, other=0.0)
    shift = tl.load(shift_ptr + token * K + k, mask=known, other=float("-inf"))
    masses = tl.zeros((1, BLOCK), tl.float32)
    entropies = tl.zeros((1, BLOCK), tl.float32)
    responses = tl.zeros((KS, BLOCK), tl.float32)
    best = tl.full((1, BLOCK), float("-inf"), tl.float32)
    prediction = tl.zeros((1, BLOCK), tl.int64)
    for start in range(0, V, BLOCK):
        at = start + lane
        inside = at < V
        f = VALUE(_logits(logits_ptr, bias_ptr, at, inside & known, HAS_BIAS), parameters_ptr)
        log_prob, share = _shares(f, high, shift, ONE)
        p = exp(log_prob)
        entropies -= tl.where(inside & (p > 0), p * log_prob, 0.0)
        key = f if ONE else log_prob
        better = inside & (key > best)
        best = tl.where(better, key, best)
        prediction = tl.where(better, at, prediction)
        if HAS_MASS:
            mass = tl.load(mass_ptr + at, mask=inside, other=0.0)
            masses += tl.where(mass != 0, mass * log_prob, 0.0)
            responses += tl.where((mass != 0) & known, mass * share, 0.0)
    most = tl.max(best, 1, keep_dims=True)
    first = tl.min(tl.where(best == most, prediction, V), 1, keep_dims=True)
    one = tl.arange(0, 1)[:, None]
    tl.store(mass_log_prob_ptr + token + one, tl.sum(masses, 1, keep_dims=True))
    tl.store(response_ptr + token * K + k, tl.sum(responses, 1, keep_dims=True), mask=known)
    tl.store(entropy_ptr + token + one, tl.sum(entropies, 1, keep_dims=True))
    tl.store(best_ptr + token + one, most)
    tl.store(prediction_ptr + token + one, first)


@triton.jit
def _write_gradient(
    logits_ptr, bias_ptr, target_ptr, parameters_ptr, high_ptr, total_ptr, shift_ptr, mass_ptr,
    entropy_ptr, by_prob_ptr, by_target_ptr, by_entropy_ptr, by_class_ptr, partial_ptr,
    K, V, T, token_stride, mixture_stride, bias_stride,
    VALUE: tl.constexpr, SLOPE: tl.constexpr, TERM: tl.constexpr, PARAMETERS: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_ENTROPY: tl.constexpr, HAS_MASS: tl.constexpr,
    ONE: tl.constexpr, KS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, KS)[:, None]
    known = k < K
    row = token * K + k
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = (at < V) & known
    logits_ptr += token * token_stride + k * mixture_stride
    bias_ptr += k * bias_stride
    high = tl.load(high_ptr + row, mask=known, other=0.0)
    total = tl.load(total_ptr + row, mask=known, other=1.0)
    shift = tl.load(shift_ptr + row, mask=known, other=float("-inf"))
    by_prob = tl.load(by_prob_ptr + row, mask=known, other=0.0)
    size = tl.abs(by_prob)  # is 0 where the gradient is, whatever the logits are
    z = _logits(logits_ptr, bias_ptr, at, inside, HAS_BIAS)
    f = VALUE(z, parameters_ptr)
    p = exp(f - high) / total
    g = by_prob * p
    if HAS_ENTROPY:
        by_entropy = tl.load(by_entropy_ptr + token)
        surprise = ((f - high) + shift) + tl.load(entropy_ptr + token)
        g += tl.where(p == 0, 0.0, by_entropy * p * surprise)
        size += tl.abs(by_entropy)
    if HAS_MASS:
        by_class = tl.load(by_class_ptr + token)
        mass = by_class * tl.load(mass_ptr + at, mask=at < V, other=0.0)
        _, share = _shares(f, high, shift, ONE)
        g -= tl.where(mass == 0, 0.0, mass * share)
        size += tl.abs(by_class)
    for j in range(0, T):
        by_target = tl.load(by_target_ptr + row * T + j, mask=known, other=0.0)
        g -= tl.where(at == tl.load(target_ptr + token * T + j), by_target, 0.0)
        size += tl.abs(by_target)
    silent = tl.sum(size, 0, keep_dims=True) == 0
    counts = inside & (g != 0) & (silent == 0)  # an impossible class may have an infinite slope
    by_logits = tl.where(counts, g * SLOPE(z, parameters_ptr), 0.0)
    tl.store(logits_ptr + at, by_logits.to(logits_ptr.dtype.element_ty), mask=inside)
    into = partial_ptr + (token * tl.num_programs(1) + tl.program_id(1)) * PARAMETERS
    one = tl.arange(0, 1)[:, None]
    for t in tl.static_range(PARAMETERS):
        term = tl.where(counts, g * TERM(z, parameters_ptr, t), 0.0)
        part = tl.sum(tl.sum(term, 0, keep_dims=True), 1, keep_dims=True)
        tl.store(into + t + one, part)


def statistics(rows: Rows, found: Statistics) -> None:
    """Fill the statistics."""
    N, K, V = rows.logits_NKV.shape
    given = (*_contiguous(rows.bias, rows.target_NT, rows.parameters_P), *found)
    functions = kernel(rows.formula)
    constants = {"VALUE": functions["value"], "BLOCK": min(_BLOCK, triton.next_power_of_2(V))}
    _launch(_statistics, (N * K,), rows, given, (K, V, rows.target_NT.shape[1]), **constants)


def distribution(rows: Rows, found: Statistics, joint: Joint, of: Distribution) -> None:
    """Fill what is wanted of all classes."""
    N, K, V = rows.logits_NKV.shape
    given = _contiguous(rows.bias, rows.parameters_P, found.high, joint.shift_NK, joint.mass_V)
    constants = {"VALUE": kernel(rows.formula)["value"], "HAS_MASS": joint.mass_V is not None}
    _launch(_distribution, (N,), rows, (*given, *of), (K, V), **constants, **_tile(K, V))


def write_gradient(
    rows: Rows,
    found: Statistics,
    joint: Joint,
    scales: Scales,
    entropy_N: Tensor | None,
    learns: bool,
) -> Tensor | None:
    """Replace the logits by the gradient by them; parts of that by the parameters, (…, P)."""
    N, K, V = rows.logits_NKV.shape
    tile, count = _tile(K, V), len(rows.parameters_P) if learns else 0
    blocks = triton.cdiv(V, tile["BLOCK"])
    partial = found.high.new_empty(N, blocks, count)
    functions = kernel(rows.formula)
    given = _contiguous(
        *(rows.bias, rows.target_NT, rows.parameters_P, found.high, found.total),
        *(joint.shift_NK, joint.mass_V, entropy_N, *scales, partial),
    )
    constants = {
        **{name.upper(): functions[name] for name in ("value", "slope", "term")},
        "PARAMETERS": count,
        "HAS_ENTROPY": scales.by_entropy is not None,
        "HAS_MASS": scales.by_class is not None,
    }
    sizes = (K, V, rows.target_NT.shape[1])
    _launch(_write_gradient, (N, blocks), rows, given, sizes, **constants, **tile)
    return partial.double() if learns else None


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.contiguous() for t in tensors]


def _tile(K: int, V: int) -> dict[str, Any]:
    KS = triton.next_power_of_2(K)
    block = min(max(1, _BLOCK // KS), triton.next_power_of_2(V))
    return {"ONE": K == 1, "KS": KS, "BLOCK": block}


def _launch(
    function: Any,
    grid: tuple[int, ...],
    rows: Rows,
    tensors: tuple[Tensor | None, ...] | list[Tensor | None],
    sizes: tuple[int, ...],
    **constants: Any,
) -> None:
    logits, bias = rows.logits_NKV, rows.bias
    with torch.cuda.device_of(logits):
        function[grid](
            logits,
            # What is not there is not read.
            *(logits if t is None else t for t in tensors),
            *sizes,
            *logits.stride()[:2],
            0 if bias is None or bias.dim() == 1 else logits.shape[2],
            HAS_BIAS=bias is not None,
            **constants,
            enable_fp_fusion=False,  # φ is the same number in every kernel
        )
