"""What entries cost beside the reference: time of a step, and bytes kept for the backward pass."""

import statistics
from collections.abc import Mapping

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta.bench import make_call, repeats_for, saved_bytes, seconds_per_call
from zeta.kernels import native
from zeta.leaderboard.board import Cost

_ELEMENTS = 2**20
_ROUNDS = 9


def measure_costs(formulas: Mapping[str, Formula], reference: Formula) -> dict[str, Cost]:
    """Value and all gradients of 2²⁰ float32 elements; medians of interleaved rounds.

    Args:
        formulas: of as many inputs as the reference.

    Example:
        >>> from zeta.activations import gelu, silu
        >>> from zeta.leaderboard.costs import measure_costs
        >>> measure_costs({"gelu": gelu}, silu)["gelu"].saved
        4.0
    """
    native.build()
    return {name: _cost(formula, reference) for name, formula in formulas.items()}


def _cost(formula: Formula, reference: Formula) -> Cost:
    calls = [make_call(f, _inputs(f), "both") for f in (formula, reference)]
    for call in calls:
        call()  # compiles
    repeats = [repeats_for(call) for call in calls]
    times = [
        [seconds_per_call(call, n) for call, n in zip(calls, repeats, strict=True)]
        for _ in range(_ROUNDS)
    ]
    saved = saved_bytes(formula, _inputs(formula))
    return Cost(round(statistics.median(ours / theirs for ours, theirs in times), 3), saved)


def _inputs(formula: Formula) -> list[Tensor]:
    """Its inputs, and the parameters that modules train."""
    inputs = [torch.randn(_ELEMENTS, requires_grad=True) for _ in formula.inputs]
    values = formula.parameters.values() if formula.learnable else ()
    return [*inputs, *(torch.tensor(value, requires_grad=True) for value in values)]
