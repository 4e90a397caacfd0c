"""The rows of a mixture of softmaxes as Triton kernels.

The counterpart of `zeta.kernels.mixture_cpu`. Arithmetic is in float32. Under
Triton's interpreter the kernels run on CPU tensors, as in the tests.

Shape suffixes: N tokens of the chunk, K mixtures, V classes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from zeta.runtime.triton.primitives import at_least, exp

# Classes that a program has in registers at once.
_BLOCK = 4096


@triton.jit
def _logits(row_ptr, bias_ptr, at, inside, HAS_BIAS: tl.constexpr):
    """z = logits + bias, -inf beyond the last class."""
    z = tl.load(row_ptr + at, mask=inside, other=float("-inf")).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(bias_ptr + at, mask=inside, other=0.0)
    return z


@triton.jit
def _statistics(
    logits_ptr, bias_ptr, target_ptr, high_ptr, total_ptr, target_logit_ptr,
    K, V, token_stride, mixture_stride, bias_stride,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token, k = row // K, row % K
    row_ptr = logits_ptr + token * token_stride + k * mixture_stride
    bias_ptr += k * bias_stride
    lane = tl.arange(0, BLOCK)
    high = tl.full((1,), -3.4028234663852886e38, tl.float32)
    total = tl.zeros((1,), tl.float32)
    for start in range(0, V, BLOCK):
        at = start + lane
        z = _logits(row_ptr, bias_ptr, at, at < V, HAS_BIAS)
        block_high = at_least(tl.max(z, 0, keep_dims=True), high)
        total = total * exp(high - block_high) + tl.sum(exp(z - block_high), 0, keep_dims=True)
        high = block_high
    one = tl.arange(0, 1)
    target = tl.load(target_ptr + token + one)
    inside = (target >= 0) & (target < V)
    target_logit = _logits(row_ptr, bias_ptr, target, inside, HAS_BIAS)
    tl.store(high_ptr + row + one, high)
    tl.store(total_ptr + row + one, total)
    tl.store(target_logit_ptr + row + one, tl.where(inside, target_logit, 0.0))


@triton.jit
def _write_gradient(
    logits_ptr, bias_ptr, target_ptr, high_ptr, total_ptr, scale_ptr,
    K, V, token_stride, mixture_stride, bias_stride,
    HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token, k = row // K, row % K
    row_ptr = logits_ptr + token * token_stride + k * mixture_stride
    bias_ptr += k * bias_stride
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < V
    scale = tl.load(scale_ptr + row)
    z = _logits(row_ptr, bias_ptr, at, inside, HAS_BIAS)
    p = exp(z - tl.load(high_ptr + row)) / tl.load(total_ptr + row)
    p = tl.where(at == tl.load(target_ptr + token), p - 1.0, p)
    gradient = tl.where(scale == 0.0, 0.0, scale * p)
    tl.store(row_ptr + at, gradient.to(logits_ptr.dtype.element_ty), mask=inside)


def statistics(
    logits_NKV: Tensor,
    bias: Tensor | None,
    target_N: Tensor,
    high_NK: Tensor,
    total_NK: Tensor,
    target_logit_NK: Tensor,
) -> None:
    """Fill the statistics."""
    N, K, V = logits_NKV.shape
    arguments = (logits_NKV, bias, target_N, high_NK, total_NK, target_logit_NK)
    _launch(_statistics, (N * K,), _block(V), *arguments)


def write_gradient(
    logits_NKV: Tensor,
    bias: Tensor | None,
    target_N: Tensor,
    high_NK: Tensor,
    total_NK: Tensor,
    scale_NK: Tensor,
) -> None:
    """Replace the logits by scale·(softmax - onehot(target)); by 0 where the scale is 0."""
    N, K, V = logits_NKV.shape
    arguments = (logits_NKV, bias, target_N, high_NK, total_NK, scale_NK)
    _launch(_write_gradient, (N * K, triton.cdiv(V, _block(V))), _block(V), *arguments)


def _launch(
    kernel,
    grid: tuple[int, ...],
    block: int,
    logits_NKV: Tensor,
    bias: Tensor | None,
    target_N: Tensor,
    *rows: Tensor,
) -> None:
    _, K, V = logits_NKV.shape
    bias = None if bias is None else bias.contiguous()
    with torch.cuda.device_of(logits_NKV):
        kernel[grid](
            logits_NKV,
            logits_NKV if bias is None else bias,
            target_N.contiguous(),
            *rows,
            K,
            V,
            *logits_NKV.stride()[:2],
            0 if bias is None or bias.dim() == 1 else V,
            HAS_BIAS=bias is not None,
            BLOCK=block,
        )


def _block(V: int) -> int:
    return min(_BLOCK, triton.next_power_of_2(V))
