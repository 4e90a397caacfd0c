"""Which tensors kernels take, and when."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from zeta.kernels import compiler
from zeta.kernels.build import DTYPES

PLAIN_TYPES = (Tensor, nn.Parameter)


def is_eager() -> bool:
    """Whether operations run one by one: no compiler, exporter, transform or dispatch mode."""
    return (
        not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
    )


def takes_kernels() -> bool:
    """Whether nothing is active that must see the single operations."""
    return is_eager() and not compiler.disabled() and forward_ad._current_level < 0


def is_plain(x: Any) -> bool:
    """Whether it is an ordinary CPU or CUDA tensor of a dtype that kernels take."""
    if type(x) not in PLAIN_TYPES or x.dtype not in DTYPES:
        return False
    return _keys(x) in _CPU_KEYS or (x.is_cuda and _keys(x) in _plain_keys("cuda"))


def _keys(x: Tensor) -> int:
    """The dispatch keys of a tensor: what kind of tensor PyTorch takes it for."""
    keys: int = torch._C._dispatch_keys(x).raw_repr()
    return keys


@cache
def _plain_keys(device: str) -> set[int]:
    """The keys of an ordinary tensor, made in inference mode or not."""
    found = set()
    for inference in (True, False):
        with torch.inference_mode(inference):
            found.add(_keys(torch.empty(0, device=device)))
    return found


_CPU_KEYS = _plain_keys("cpu")
