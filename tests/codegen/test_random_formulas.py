"""Random formulas have kernels, which mostly agree with plain operations where these are right.

This finds a rule of differentiation that is wrong, not a few wrong points: see the allowances in
`wrong_points`, which a kernel that is not finite where plain operations are may pass too. How often
that is stands in docs/kernels.md.
"""

import math
import time
import warnings

import pytest
import torch

from codegen.random_formulas import PARAMETERS, random_formula
from zeta._backends.torch import evaluate_plain
from zeta.codegen import cpp, trace, triton

NAMES = ("x", *PARAMETERS)
KINDS = ("value", *NAMES)
EPS = torch.finfo(torch.float32).eps


def points() -> torch.Tensor:
    """Numbers of every size, exact in float32, from a fixed seed."""
    draw = torch.Generator().manual_seed(0)
    moderate = 3 * torch.randn(61, generator=draw)
    far = torch.logspace(-10, 30, 30)
    return torch.cat([moderate, far, -far]).double()


def outcomes(function, x, dtype):
    """The value and the derivatives by x and each parameter, point by point."""
    leaves = [x.to(dtype).requires_grad_()]
    leaves += [torch.full_like(leaves[0], v, requires_grad=True) for v in PARAMETERS.values()]
    y = function(leaves[0], *leaves[1:])
    slopes = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(y) if slope is None else slope for slope in slopes]
    return torch.stack([y, *slopes]).detach().double()


def wrong_points(formula, dtype):
    """Where a kernel is wrong, as text, and how many points could be judged."""
    x = points()
    plain = lambda x, *values: evaluate_plain(formula, x, formula.bind(*values))
    truth = outcomes(plain, x, torch.float64)
    # What plain operations in float32 are off by, at these points and at their neighbours.
    off = EPS * truth.abs()
    for k in (0, -3, -1, 1, 2, 5):
        off = torch.maximum(off, (outcomes(plain, x * (1 + k * EPS), torch.float32) - truth).abs())
    has_digits = off <= 1e-2 * truth.abs() + torch.finfo(torch.float32).tiny
    single = torch.finfo(torch.float32)
    inside = truth.isfinite() & (truth.abs() < single.max) & (truth.abs() > single.tiny)
    judged = has_digits & (inside | (truth == 0))
    finite = truth.abs().nan_to_num(posinf=0.0)
    # A derivative may be 0 in plain operations where 1 - tanh² has cancelled.
    allowed = 16 * off * (torch.finfo(dtype).eps / EPS) + EPS * finite.amax(0) + single.tiny
    wrong = ~((outcomes(formula, x, dtype) - truth).abs() <= allowed) & judged
    found = [f"{KINDS[kind]} at {x[i]:g}" for kind, i in wrong.nonzero().tolist()]
    # Where terms cancel, plain operations have digits by luck at a few points.
    found = found if len(found) > 0.03 * judged.sum() else []
    nan = torch.full((3,), math.nan, dtype=dtype)
    if formula(nan).isnan().all() != plain(nan, *PARAMETERS.values()).isnan().all():
        found.append("value at nan")
    return found, int(judged.sum())


def check(seeds):
    """Formulas of these seeds that have no kernels, are wrong or slow; points that were judged."""
    problems, total = [], 0
    for seed in seeds:
        formula = random_formula(seed)
        dtype = (torch.float32, torch.float64)[seed % 2]
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of a formula without a kernel
            try:
                found, judged = wrong_points(formula, dtype)
            except RuntimeWarning as error:
                found, judged = [str(error)], 0
        total += judged
        if (seconds := time.perf_counter() - start) > 20:  # measured: one, for two kernels
            found.append(f"{seconds:.0f} s")
        if found:
            problems.append(f"{seed}, {dtype}: {formula.name}: {found[:3]}")
    return problems, total


def test_random_formulas_have_programs():
    without = []
    for seed in range(200):
        formula = random_formula(seed)
        try:
            program = trace.gradient_program(formula, {}, NAMES)
            cpp.source(program, "float32", False)
            compile(triton.source(program), formula.name, "exec")
        except ValueError as error:
            without.append(f"{seed} {formula.name}: {error}")
    assert len(without) <= 2, without


def test_random_formulas():
    problems, judged = check(range(10))
    assert not problems
    assert judged > 10 * 150  # of 484 each; the others overflow, or have no digits in float32


@pytest.mark.slow
def test_many_random_formulas():
    problems, _ = check(range(10, 800))
    assert not problems
