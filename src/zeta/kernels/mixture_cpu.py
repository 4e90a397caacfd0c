"""Launches the C++ kernels of softmax heads' rows (`zeta/runtime/cpp/mixture.h`) on CPU tensors."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zeta.kernels import cpu
from zeta.kernels.build import mixture_cpp

if TYPE_CHECKING:
    from zeta.kernels.mixture import Distribution, Joint, Rows, Scales, Statistics

kernel = mixture_cpp


class _Task(IntEnum):
    STATISTICS = 0
    DISTRIBUTION = 1
    GRADIENT = 2


# The pointers of `Arguments` in mixture.h, in their order.
_POINTERS = (
    *("logits", "bias", "target", "parameters", "high", "total", "value", "shift", "mass"),
    *("mass_log_prob", "response", "entropy", "best", "prediction"),
    *("by_prob", "by_target", "by_entropy", "by_class", "totals"),
)
_pack = struct.Struct(f"{len(_POINTERS) + 9}Q").pack


def statistics(rows: Rows, found: Statistics) -> None:
    """Fill the statistics."""
    _launch(_Task.STATISTICS, rows, **found._asdict())


def distribution(rows: Rows, found: Statistics, joint: Joint, of: Distribution) -> None:
    """Fill what is wanted of all classes."""
    given = {"high": found.high, "shift": joint.shift_NK, "mass": joint.mass_V}
    _launch(_Task.DISTRIBUTION, rows, **given, **of._asdict())


def write_gradient(
    rows: Rows,
    found: Statistics,
    joint: Joint,
    scales: Scales,
    entropy_N: Tensor | None,
    learns: bool,
) -> Tensor | None:
    """Replace the logits by the gradient by them; each row's by the parameters, (N, K, P)."""
    totals = None
    if learns:
        count = len(rows.parameters_P)
        totals = found.high.new_empty((*found.high.shape, count), dtype=torch.float64)
    _launch(
        _Task.GRADIENT,
        rows,
        high=found.high,
        total=found.total,
        shift=joint.shift_NK,
        mass=joint.mass_V,
        entropy=entropy_N,
        totals=totals,
        **scales._asdict(),
    )
    return totals


def _launch(task: _Task, rows: Rows, **tensors: Tensor | None) -> None:
    logits = rows.logits_NKV
    run = kernel(rows.formula, logits.dtype)
    assert run is not None
    tensors |= {"bias": rows.bias, "target": rows.target_NT, "parameters": rows.parameters_P}
    # Held until the kernel has run.
    kept = {name: t.contiguous() for name, t in tensors.items() if t is not None}
    bias = kept.get("bias")
    pointers = {name: t.data_ptr() for name, t in kept.items()} | {"logits": logits.data_ptr()}
    run(
        _pack(
            *(pointers.get(name, 0) for name in _POINTERS),
            *logits.shape,
            rows.target_NT.shape[1],
            *logits.stride()[:2],
            0 if bias is None or bias.dim() == 1 else bias.stride(0),
            cpu.parallel_for,
            task,
        )
    )
