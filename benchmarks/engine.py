"""What the road from formula to kernel costs: cold starts, formulas of one's own, float64.

    python benchmarks/engine.py [--rounds 15] [--out benchmarks/results/NAME.md]

Cold starts are medians of processes that have PyTorch loaded and no kernel compiled. All else are
ratios of two contenders timed in turn in one process, medians over rounds; below 1 the kernel is
the faster one. `zeta bench` has the catalogue in float32 and bfloat16.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tables
from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta._formula import Formula
from zeta.math import clip, maximum, minimum, piecewise, sqrt

ELEMENTS = 1 << 20
COLD = """
import sys, time, torch
sys.path.insert(0, {folder!r})
import engine
f = engine.{name}
x = torch.randn(1000, requires_grad=True)
start = time.perf_counter()
f(x, *engine.learned(f, {learns})).sum().backward()
print(time.perf_counter() - start)
"""


@formula(a0=1e-3, a1=0.9, a2=0.3, a3=0.02, a4=4e-3, a5=1e-4, b1=0.5, b2=0.1, b3=0.02, b4=0.03)
def pade(x, a0, a1, a2, a3, a4, a5, b1, b2, b3, b4):
    """A rational function of degrees 5 and 4 without poles."""
    above = a0 + x * (a1 + x * (a2 + x * (a3 + x * (a4 + x * a5))))
    return above / (1 + abs(x * (b1 + x * (b2 + x * (b3 + x * b4)))))


@formula(a=1.0)
def isru(x, a):
    """x / √(1 + a·x²)"""
    return x / sqrt(1 + a * x**2)


@formula(p=1.5)
def learnable_power(x, p):
    """max(x, 0)^p"""
    return maximum(x, 0) ** p


@formula(low=-1.0, high=1.0)
def learnable_hardtanh(x, low, high):
    """x within two bounds that are learned."""
    return clip(x, low, high)


def _spline(x: Any, *coefficients: Any) -> Any:
    n = len(coefficients)
    step = 6 / (n - 1)
    hats = (maximum(1 - abs(x + 3 - k * step) / step, 0) for k in range(n))
    return sum(c * hat for c, hat in zip(coefficients, hats, strict=True))


def _with_parameters(name: str, function: Callable[..., Any], count: int) -> Formula:
    """The function of x and a tuple as a formula of x and so many parameters."""
    names = [f"c{k}" for k in range(count)]
    space: dict[str, Any] = {"function": function}
    exec(f"def {name}(x, {', '.join(names)}): return function(x, {', '.join(names)})", space)
    values = {n: 0.1 * (-1) ** k for k, n in enumerate(names)}
    return formula(**values)(space[name])


def _chebyshev(x: Any) -> Any:
    """T_64 of x kept within ±1."""
    z = minimum(maximum(x, -1), 1)
    before, here = 1, z
    for _ in range(63):
        before, here = here, 2 * z * here - before
    return piecewise(x, positive=lambda _: here, otherwise=lambda _: here)


spline = _with_parameters("spline", _spline, 32)
chebyshev = formula(_chebyshev)
exo = activations.exo


def learned(f: Formula, learns: bool) -> list[Tensor]:
    """The parameters as tensors that want gradients, or none, so that the defaults are taken."""
    return [torch.tensor(v, requires_grad=True) for v in f.parameters.values() if learns]


# ---- Cold starts ------------------------------------------------------------------------------


def cold_starts(rounds: int) -> Iterator[tuple[str, str]]:
    """Seconds to the first value and gradients."""
    rounds = min(rounds, 5)
    for name, learns in (("exo", False), ("spline", True), ("chebyshev", False)):
        seconds = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                code = COLD.format(folder=str(Path(__file__).parent), name=name, learns=learns)
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    env=os.environ | {"ZETA_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds.append(float(done.stdout))
        yield f"cold first use of {name}, value and gradients", f"{_median(seconds):.2f} s"


# ---- Ratios -----------------------------------------------------------------------------------


def ratio(ours: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    """The time of the one over that of the other, timed in turn."""
    for warm in (ours, other, ours, other):
        warm()
    return _median([_seconds(ours) / _seconds(other) for _ in range(rounds)])


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _median(values: list[float]) -> float:
    return statistics.median(values)


def step(
    function: Callable[..., Tensor], x: Tensor, parameters: list[Tensor]
) -> Callable[[], object]:
    """Forward and backward."""
    upstream = torch.randn_like(x)
    wanted = [t for t in (x, *parameters) if t.requires_grad]
    return lambda: torch.autograd.grad(function(x, *parameters), wanted, upstream)


def over_compiled(rounds: int) -> Iterator[tuple[str, str]]:
    """Formulas of one's own in float32 over what torch.compile makes of their plain operations."""
    for f in (pade, isru, learnable_power, learnable_hardtanh):

        def plain(x: Tensor, *p: Tensor, f: Formula = f) -> Tensor:
            return evaluate_plain(f, x, f.bind(*p))

        x, parameters = torch.randn(ELEMENTS, requires_grad=True), learned(f, True)
        compiled = torch.compile(plain, dynamic=False)
        got = ratio(step(f, x, parameters), step(compiled, x, parameters), rounds)
        yield f"{f.name}, forward + backward, float32, over torch.compile", f"{got:.2f}"


def over_eager(rounds: int) -> Iterator[tuple[str, str]]:
    """The catalogue in float64 over its plain operations."""
    for name in ("exo", "gelu", "mish", "laplace"):
        f = activations.CATALOGUE[name]
        x = torch.randn(ELEMENTS, dtype=torch.float64)

        def plain(x: Tensor, f: Formula = f) -> Tensor:
            return evaluate_plain(f, x, dict(f.parameters))

        with torch.no_grad():
            forward = ratio(lambda f=f, x=x: f(x), lambda x=x, p=plain: p(x), rounds)
        x = x.requires_grad_()
        both = ratio(step(f, x, []), step(plain, x, []), rounds)
        yield f"{name}, float64, over eager: forward; with backward", f"{forward:.2f}; {both:.2f}"


def compiled_networks(rounds: int) -> Iterator[tuple[str, str]]:
    """A compiled perceptron with the activation over the same with Zeta's eager kernel."""
    for f in (activations.exo, activations.laplace, activations.gelu):
        width, act = 1024, f.module()
        network = nn.Sequential(nn.Linear(width, 4 * width), act, nn.Linear(4 * width, width))
        compiled = torch.compile(network, dynamic=False)
        x = torch.randn(512, width)
        inputs = list(network.parameters())

        def train(run: Callable[[Tensor], Tensor], inputs: list[Any] = inputs, x: Tensor = x):
            return lambda: torch.autograd.grad(run(x).sum(), inputs)

        got = ratio(train(compiled), train(network), rounds)
        yield f"perceptron with {act}, compiled over eager", f"{got:.2f}"


if __name__ == "__main__":
    tables.run(__doc__, cold_starts, over_compiled, over_eager, compiled_networks)
