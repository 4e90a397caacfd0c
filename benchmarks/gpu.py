"""Checks the Triton kernels on a GPU and measures what they cost.

Activations against a device copy, a formula's softmax against PyTorch's, the mixture's loss
against its three matrix products:

    python benchmarks/gpu.py [--elements N] [--out benchmarks/results/NAME.md]

Needs PyTorch and Triton and nothing else that is not in Zeta's base install; no network.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import torch.nn.functional as F
import triton

from mixture import log_space, make_call, make_inputs, make_products, zeta
from zeta import activations
from zeta._backends.torch_plain import evaluate_plain
from zeta._formula import Formula
from zeta.kernels import softmax

# With gradients by their parameters where the documents learn these.
FORMULAS = {"exo": False, "learnable_selu_variation": True, "laplace": False}
DTYPES = (torch.float32, torch.bfloat16)
# Distributions, classes.
SOFTMAXES = [(2**18, 10), (2**14, 1024), (2**10, 50257)]
# N, K, D, V of the mixture's loss, in bfloat16.
MIXTURES = [(2048, 4, 2048, 131072), (2048, 4, 4096, 131072)]


def main() -> None:
    """Check, measure, print, and write the table if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=int, default=2**26)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: the kernels are tested in Triton's interpreter by the test suite")
    lines = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, "
        f"{options.elements} elements.",
        "",
        "| activation | dtype | error | forward | backward |",
        "|---|---|---|---|---|",
    ]
    for name in FORMULAS:
        for dtype in DTYPES:
            formula = activations.get(name)
            error = relative_error(formula, dtype)
            forward, backward = bandwidths(formula, dtype, options.elements)
            kind = str(dtype).removeprefix("torch.")
            lines.append(f"| {name} | {kind} | {error:.2f} eps | {forward:.0%} | {backward:.0%} |")
    lines += ["", "Bandwidth as a fraction of a device copy's; error relative to max(1, |y|)."]
    lines += [
        "",
        "| selu.softmax, shape | dtype | time / F.softmax | error / plain operations' |",
        "|---|---|---|---|",
    ]
    for shape in SOFTMAXES:
        for dtype in DTYPES:
            time, error = softmax_time(shape, dtype), softmax_error(shape[1], dtype)
            kind = str(dtype).removeprefix("torch.")
            lines.append(f"| {shape} | {kind} | {time:.2f} | {error:.2f} |")
    lines += [
        "",
        "| mixture's loss, N, K, D, V | time / three products | error / log space's |",
        "|---|---|---|",
    ]
    for sizes in MIXTURES:
        name = ", ".join(map(str, sizes))
        lines.append(f"| {name} | {mixture_time(sizes):.2f} | {mixture_error():.2f} |")
    print("\n".join(lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def inputs(formula: Formula, x: torch.Tensor) -> list[torch.Tensor]:
    """x, and the parameters that are learned."""
    learned = formula.parameters.values() if FORMULAS[formula.name] else ()
    return [x, *(torch.tensor(v, device=x.device, requires_grad=True) for v in learned)]


def relative_error(formula: Formula, dtype: torch.dtype) -> float:
    """The worst error of values and gradients, in units of the dtype's eps."""
    x = (4 * torch.randn(2**20, device="cuda")).to(dtype).requires_grad_()
    ours, upstream = inputs(formula, x), torch.ones_like(x)
    truth = [t.detach().double().requires_grad_() for t in ours]
    y = formula(*ours)
    expected = evaluate_plain(formula, truth[0], formula.bind(*truth[1:]))
    got = [y, *torch.autograd.grad(y, ours, upstream)]
    wanted = [expected, *torch.autograd.grad(expected, truth, upstream.double())]
    errors = []
    for a, b in zip(got, wanted, strict=True):
        # A sum over a million terms is judged by their size.
        scale = b.abs().clamp(min=1.0) if b.dim() else torch.tensor(2.0**20, device="cuda")
        errors.append(((a.double() - b).abs() / scale).max().item())
    return max(errors) / torch.finfo(dtype).eps


def bandwidths(formula: Formula, dtype: torch.dtype, elements: int) -> tuple[float, float]:
    """Forward's and backward's bytes per second over a device copy's."""
    x = torch.randn(elements, device="cuda").to(dtype)
    target = torch.empty_like(x)
    copy = 2 / seconds(lambda: target.copy_(x))
    with torch.no_grad():
        forward = 2 / seconds(lambda: formula(*inputs(formula, x)))
    leaves = inputs(formula, x.requires_grad_())
    y, upstream = formula(*leaves), torch.randn_like(x)
    backward = 3 / seconds(lambda: torch.autograd.grad(y, leaves, upstream, retain_graph=True))
    return forward / copy, backward / copy


def softmax_time(shape: tuple[int, int], dtype: torch.dtype) -> float:
    """Forward and backward of selu's softmax over F.softmax."""
    x = torch.randn(shape, device="cuda", dtype=dtype, requires_grad=True)
    upstream = torch.randn_like(x)
    ours, plain = (
        seconds(lambda function=function: torch.autograd.grad(function(x), x, upstream))
        for function in (activations.selu.softmax, lambda x: F.softmax(x, -1))
    )
    return ours / plain


def softmax_error(classes: int, dtype: torch.dtype) -> float:
    """The largest error of result and gradient over that of plain operations."""
    x, upstream = torch.randn(2, 64, classes, device="cuda").to(dtype)
    parameters = dict(activations.selu.parameters)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return softmax.plain(activations.selu, x, parameters, -1, logs=False)

    ours = value_and_gradient(activations.selu.softmax, x, upstream)
    theirs = value_and_gradient(plain, x, upstream)
    exact = value_and_gradient(plain, x.double(), upstream.double())
    triples = zip(ours, theirs, exact, strict=True)
    return max(((a - c).norm() / (b - c).norm()).item() for a, b, c in triples)


def value_and_gradient(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The function of x, and the gradient by x."""
    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), torch.autograd.grad(y, x, upstream)[0]


def mixture_time(sizes: tuple[int, int, int, int]) -> float:
    """Forward and backward over the three matrix products alone, in chunks of as many rows."""
    with torch.device("cuda"):
        x = make_inputs(*sizes).to(torch.bfloat16)
        return seconds(make_call(zeta, x), 10) / seconds(make_products(x, 2048, torch.bfloat16), 10)


def mixture_error() -> float:
    """The largest error of loss and gradients over that of plain operations in bfloat16."""
    with torch.device("cuda"):
        x = make_inputs(252, 4, 123, 507)
        exact = make_call(log_space, x.to(torch.float64))()
        ours, plain = (make_call(c, x.to(torch.bfloat16))() for c in (zeta, log_space))
    triples = zip(ours, plain, exact, strict=True)
    return max(((a - c).norm() / (b - c).norm()).item() for a, b, c in triples)


def seconds(call: Callable[[], object], rounds: int = 30) -> float:
    """Median time of a call, by CUDA events, after a warm-up."""
    for _ in range(5):
        call()
    times = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    main()
