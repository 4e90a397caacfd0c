"""Times formulas whose parameters are learned, on the CPU: `python benchmarks/learned.py`.

Forward and backward with the gradients of x and of all parameters that are learned, against SiLU's
and against torch.compile's loops for the same formula. Every call is timed in turn, round after
round; the medians of their ratios are what is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from zeta import Formula, activations
from zeta._backends.torch_plain import ARRAYS
from zeta.kernels import native


def plain(f: Formula) -> Callable[..., Tensor]:
    """The formula by plain operations, compiled."""
    return torch.compile(lambda x, *p: ARRAYS.evaluate(f, (x,), f.bind(*p)))


def both(f: Formula, run: Callable[..., Tensor], x: Tensor) -> Callable[[], object]:
    """A call and its gradients."""
    parameters = [
        torch.tensor(value, requires_grad=name in f.learnable)
        for name, value in f.parameters.items()
    ]
    wanted = [x, *(p for p in parameters if p.requires_grad)]
    upstream = torch.randn_like(x)
    return lambda: torch.autograd.grad(run(x, *parameters), wanted, upstream)


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=2**20)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    native.build()
    x = torch.randn(options.elements).to(getattr(torch, options.dtype)).requires_grad_()
    calls = {"silu": both(activations.silu, activations.silu, x)}
    for f in (activations.rational, activations.xielu):
        calls[f.name] = both(f, f, x)
        calls[f"{f.name}, compiled"] = both(f, plain(f), x)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(options.rounds + 3):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_ >= 3:
                times[name].append(time.perf_counter() - start)
    for name, of_call in times.items():
        ratio = statistics.median(a / b for a, b in zip(of_call, times["silu"], strict=True))
        print(f"{name:20} {1e3 * statistics.median(of_call):8.3f} ms  {ratio:5.2f} of silu's")


if __name__ == "__main__":
    main()
