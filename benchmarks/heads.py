"""One softmax over a formula of logits, and mixtures: loss and gradients against their peers.

    python benchmarks/heads.py [--tokens N] [--rounds R] [--out benchmarks/results/NAME.md]

Times are taken in turn, round after round; a ratio is the median over rounds of two times of one
round. Memory is the rise of the resident set to its peak, in a process of its own.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import torch.nn.functional as F
from torch import Tensor

from mixture import Inputs, make_inputs, make_products, ratio, resident, times
from zeta import activations
from zeta.doctor import cpu_model
from zeta.ops import linear_cross_entropy, mixture_cross_entropy

CAP = 30.0
Contender = Callable[[Inputs], Tensor]


def one_softmax(**options: Any) -> Contender:
    """Ours, of one softmax."""

    def loss(x: Inputs) -> Tensor:
        found: Any = linear_cross_entropy(x.hidden_NKD[:, 0], x.weight_VD, x.target_N, **options)
        return found[0] if isinstance(found, tuple) else found

    return loss


def half_ignored(x: Inputs) -> Tensor:
    """Every second token counts for nothing."""
    kept = torch.arange(len(x.target_N)) % 2 == 0
    target_N = x.target_N.masked_fill(~kept, -100)
    return linear_cross_entropy(x.hidden_NKD[:, 0], x.weight_VD, target_N)


def capped(x: Inputs) -> Tensor:
    """A softcap by hand, all logits in memory."""
    logits_NV = F.linear(x.hidden_NKD[:, 0], x.weight_VD)
    return F.cross_entropy(CAP * torch.tanh(logits_NV / CAP), x.target_N)


def plain(x: Inputs) -> Tensor:
    """Two functions of PyTorch."""
    return F.cross_entropy(F.linear(x.hidden_NKD[:, 0], x.weight_VD), x.target_N)


def pytorch(x: Inputs, **options: Any) -> Tensor:
    """PyTorch's own loss of linear logits."""
    return F.linear_cross_entropy(x.hidden_NKD[:, 0], x.weight_VD, x.target_N, **options)


def pytorch_chunked(x: Inputs) -> Tensor:
    """The same in chunks."""
    return pytorch(x, options=torch.nn.LinearCrossEntropyOptions())


ONE: dict[str, Contender] = {
    "zeta": one_softmax(),
    "F.cross_entropy(F.linear)": plain,
    "F.linear_cross_entropy": pytorch,
    "F.linear_cross_entropy, chunked": pytorch_chunked,
    "zeta, softcap": one_softmax(logits=activations.softcap),
    "softcap, torch.compile": torch.compile(capped, dynamic=False),
    "zeta, entropy and prediction": one_softmax(outputs=("entropy", "prediction")),
    "zeta, label smoothing": one_softmax(label_smoothing=0.1),
    "zeta, z-loss": one_softmax(z_loss=1e-4),
    "zeta, half of the tokens ignored": half_ignored,
}
FOUR: dict[str, Contender] = {
    "zeta": lambda x: mixture_cross_entropy(*x),
    "zeta, softcap": lambda x: mixture_cross_entropy(*x, logits=activations.softcap),
}


def make_call(contender: Contender, x: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward."""
    return lambda: torch.autograd.grad(contender(x), x[:3], allow_unused=True)


def rise_to_peak(K: int, name: str, N: int, D: int, V: int) -> float:
    """MB by which this process grows at its peak. Linux only."""
    contender, x = (ONE if K == 1 else FOUR)[name], make_inputs(N, K, D, V)
    if "compile" in name:
        make_call(contender, x)()
    make_call(contender, make_inputs(8, K, D, 16))()  # libraries, threads, kernels
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    make_call(contender, x)()
    return resident("VmHWM") - before


def peak_memory(*arguments: Any) -> float:
    """As :func:`rise_to_peak`, in a process of its own."""
    command = [sys.executable, __file__, "--peak-memory-of", *map(str, arguments)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def losses(K: int, N: int, D: int, V: int, rounds: int) -> Iterator[str]:
    """The table of one number of mixtures."""
    x = make_inputs(N, K, D, V)
    calls: dict[str, Callable[[], object]] = {
        "three products, 512 rows": make_products(x, 512, torch.float32)
    }
    contenders = ONE if K == 1 else FOUR
    calls |= {name: make_call(contender, x) for name, contender in contenders.items()}
    found = times(calls, rounds)
    products, ours = (found[name] for name in ("three products, 512 rows", "zeta"))
    yield from ("", f"| K = {K} | ms | / products | / zeta | peak MB |", "|---|---|---|---|---|")
    for name, values in found.items():
        memory = f"{peak_memory(K, name, N, D, V):.0f}" if name in contenders else ""
        relative = f"{ratio(values, products):.2f} | {ratio(values, ours):.3f}"
        yield f"| {name} | {1e3 * statistics.median(values):.0f} | {relative} | {memory} |"


def softmaxes(rounds: int) -> Iterator[str]:
    """`Formula.softmax` over F.softmax, forward and backward."""
    yield from ("", "| selu.softmax / F.softmax | float32 | bfloat16 |", "|---|---|---|")
    for shape in ((10,), (32, 10), (64, 1024), (256, 1024), (1024, 4096), (64, 50257)):
        ratios = []
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(shape, dtype=dtype, requires_grad=True)
            upstream = torch.randn_like(x)
            calls = [
                lambda function=function, x=x, u=upstream: torch.autograd.grad(function(x), x, u)
                for function in (activations.selu.softmax, lambda x: F.softmax(x, -1))
            ]
            repeats = max(1, 2**18 // x.numel())
            found: list[list[float]] = [[], []]
            for _ in range(rounds + 1):
                for call, values in zip(calls, found, strict=True):
                    started = time.perf_counter()
                    for _ in itertools.repeat(None, repeats):
                        call()
                    values.append(time.perf_counter() - started)
            ratios.append(f"{ratio(found[0][1:], found[1][1:]):.2f}")
        yield f"| {shape} | {' | '.join(ratios)} |"


def main() -> None:
    """Measure, print, and write the tables if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--classes", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-memory-of", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory_of:
        K, name, *sizes = options.peak_memory_of
        print(rise_to_peak(int(K), name, *map(int, sizes)))
        return
    N, D, V = options.tokens, options.features, options.classes
    lines = [
        f"{cpu_model()}, {torch.get_num_threads()} threads, torch {torch.__version__}. N = {N} "
        f"tokens, D = {D}, V = {V}, float32, forward + backward."
    ]
    print(lines[0])
    measures = (losses(1, N, D, V, options.rounds), losses(4, N, D, V, options.rounds))
    for line in itertools.chain(*measures, softmaxes(options.rounds)):
        lines.append(line)
        print(line, flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
