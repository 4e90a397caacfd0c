"""Launches the C++ kernels of a mixture's rows (`zeta/runtime/cpp/mixture.h`) on CPU tensors.

Shape suffixes: N tokens of the chunk, K mixtures, V classes.
"""

from __future__ import annotations

import struct

from torch import Tensor

from zeta.kernels import cpu
from zeta.kernels.build import mixture_cpp

kernel = mixture_cpp


def statistics(
    logits_NKV: Tensor,
    bias: Tensor | None,
    target_N: Tensor,
    high_NK: Tensor,
    total_NK: Tensor,
    target_logit_NK: Tensor,
) -> None:
    """Fill the statistics."""
    _launch(logits_NKV, bias, target_N, high_NK, total_NK, target_logit_NK, None)


def write_gradient(
    logits_NKV: Tensor,
    bias: Tensor | None,
    target_N: Tensor,
    high_NK: Tensor,
    total_NK: Tensor,
    scale_NK: Tensor,
) -> None:
    """Replace the logits by scale·(softmax - onehot(target)); by 0 where the scale is 0."""
    _launch(logits_NKV, bias, target_N, high_NK, total_NK, None, scale_NK)


def _launch(
    logits_NKV: Tensor, bias: Tensor | None, target_N: Tensor, *rows: Tensor | None
) -> None:
    run = kernel(logits_NKV.dtype)
    assert run is not None
    target_N = target_N.contiguous()
    bias = None if bias is None else bias.contiguous()
    pointers = [0 if t is None else t.data_ptr() for t in (logits_NKV, bias, target_N, *rows)]
    numbers = (
        *logits_NKV.shape,
        *logits_NKV.stride()[:2],
        0 if bias is None or bias.dim() == 1 else bias.stride(0),
        cpu.parallel_for,
    )
    run(struct.pack(f"{len(pointers) + len(numbers)}Q", *pointers, *numbers))
