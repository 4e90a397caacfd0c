"""Launches the C++ kernels of a mixture's rows (`zeta/runtime/cpp/mixture.h`) on CPU tensors.

Shape suffixes: N tokens of the chunk, K mixtures, V classes.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable

import torch
from torch import Tensor

from zeta.kernels import compiler, cpu
from zeta.kernels.fingerprint import package_digest

# Takes the packed `Arguments` of mixture.h.
Run = Callable[[bytes], None]

_kernels: dict[torch.dtype, Run | None] = {}


def kernel(dtype: torch.dtype) -> Run | None:
    """The kernel for logits of this dtype; None if it cannot be compiled."""
    if dtype not in _kernels:
        with cpu.compiling:
            if dtype not in _kernels:
                _kernels[dtype] = _compiled(cpu.DTYPES[dtype][0])
    return _kernels[dtype]


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


def _compiled(dtype: str) -> Run | None:
    def source() -> str:
        from zeta.codegen import cpp

        return cpp.mixture_source(dtype)

    try:
        run = compiler.load(repr(("mixture", package_digest(), dtype)).encode(), source).zeta_kernel
    except compiler.KernelError as error:
        compiler.warn_once(f"zeta: a mixture's loss runs as plain operations: {error}")
        return None
    run.argtypes, run.restype = [ctypes.c_char_p], None
    checked: Run = run
    return checked
