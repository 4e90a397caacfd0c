"""The mixture's loss, forward and backward, against its rivals: time, memory, and error.

    python benchmarks/mixture.py [--tokens N] [--classes V] [--out benchmarks/results/NAME.md]

Times are taken in turn, round after round; a ratio is the median over rounds of two times of one
round. Memory is the rise of the resident set to its peak, in a process of its own.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
import torch.nn.functional as F
from torch import Tensor

from zeta.doctor import cpu_model
from zeta.ops import mixture_cross_entropy


class Inputs(NamedTuple):
    """What every contender is given."""

    hidden_NKD: Tensor
    log_prior_NK: Tensor
    weight_VD: Tensor
    target_N: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        """Copies in this dtype, wanting gradients; targets as they are."""
        floats = (t.detach().to(dtype).requires_grad_() for t in self[:3])
        return Inputs(*floats, self.target_N)


Contender = Callable[[Inputs], Tensor]


def make_inputs(N: int, K: int, D: int, V: int) -> Inputs:
    """Latents of tanh, logits of about unit size."""
    torch.manual_seed(0)
    return Inputs(
        torch.randn(N, K, D).tanh(),
        torch.randn(N, K).log_softmax(-1),
        torch.randn(V, D) / D**0.5,
        torch.randint(V, (N,)),
    ).to(torch.float32)


# ---- Contenders ---------------------------------------------------------------------------------


def zeta(x: Inputs) -> Tensor:
    """The chunked loss."""
    return mixture_cross_entropy(*x)


def zeta_autocast(x: Inputs) -> Tensor:
    """The chunked loss with bfloat16 matrix products."""
    with torch.autocast("cpu", torch.bfloat16):
        return mixture_cross_entropy(*x)


def probabilities(x: Inputs) -> Tensor:
    """As the documents have it: probabilities, mixed, then their logarithm."""
    p_NKV = F.linear(x.hidden_NKD, x.weight_VD).softmax(-1)
    p_NV = (x.log_prior_NK.exp().unsqueeze(-1) * p_NKV).sum(1)
    return F.nll_loss(p_NV.log(), x.target_N)


def log_space(x: Inputs) -> Tensor:
    """The joint log-probabilities of all classes."""
    log_p_NKV = F.linear(x.hidden_NKD, x.weight_VD).log_softmax(-1)
    log_p_NV = (x.log_prior_NK.unsqueeze(-1) + log_p_NKV).logsumexp(1)
    return F.nll_loss(log_p_NV, x.target_N)


def linear_cross_entropy_rows(x: Inputs) -> Tensor:
    """K·N rows through PyTorch's chunked loss for one softmax, then a logsumexp."""
    K = x.hidden_NKD.shape[1]
    loss_R = F.linear_cross_entropy(
        x.hidden_NKD.flatten(0, 1),
        x.weight_VD,
        x.target_N.repeat_interleave(K),
        reduction="none",
        options=torch.nn.LinearCrossEntropyOptions(),
    )
    return -(x.log_prior_NK - loss_R.view(-1, K)).logsumexp(1).mean()


def linear_cross_entropy(x: Inputs) -> Tensor:
    """PyTorch's loss for one softmax, all logits at once."""
    return F.linear_cross_entropy(x.hidden_NKD.flatten(0, 1), x.weight_VD, x.target_N)


def linear_cross_entropy_chunked(x: Inputs) -> Tensor:
    """PyTorch's loss for one softmax, in chunks."""
    options = torch.nn.LinearCrossEntropyOptions()
    hidden_ND = x.hidden_NKD.flatten(0, 1)
    return F.linear_cross_entropy(hidden_ND, x.weight_VD, x.target_N, options=options)


MIXTURE: dict[str, Contender] = {
    "zeta": zeta,
    "zeta, bfloat16 autocast": zeta_autocast,
    "probabilities": probabilities,
    "log space": log_space,
    "log space, torch.compile": torch.compile(log_space, dynamic=False),
    "K·N rows of F.linear_cross_entropy": linear_cross_entropy_rows,
}
ONE_SOFTMAX: dict[str, Contender] = {
    "zeta, K = 1": zeta,
    "F.linear_cross_entropy": linear_cross_entropy,
    "F.linear_cross_entropy, chunked": linear_cross_entropy_chunked,
}


def make_products(x: Inputs, rows: int, dtype: torch.dtype) -> Callable[[], None]:
    """The three matrix products alone, into memory that is already there."""
    hidden, weight = x.hidden_NKD.detach().flatten(0, 1).to(dtype), x.weight_VD.detach().to(dtype)
    logits = torch.zeros(min(rows, len(hidden)), len(weight), dtype=dtype)
    d_hidden, d_weight = torch.zeros_like(hidden), torch.zeros_like(weight)

    def run() -> None:
        for start in range(0, len(hidden), rows):
            some = hidden[start : start + rows]
            z = logits[: len(some)]
            torch.mm(some, weight.t(), out=z)
            torch.mm(z, weight, out=d_hidden[start : start + rows])
            torch.addmm(d_weight, z.t(), some, beta=float(start > 0), out=d_weight)

    return run


# ---- Measurements -------------------------------------------------------------------------------


def make_call(contender: Contender, x: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward."""
    # PyTorch's loss for one softmax has no prior.
    return lambda: torch.autograd.grad(contender(x), x[:3], allow_unused=True)


def times(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds per call, in turn; a first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in found.items()}


def ratio(a: list[float], b: list[float]) -> float:
    """The median ratio of times of the same round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def peak_memory(name: str, sizes: tuple[int, ...]) -> float:
    """MB by which a process grows at its peak."""
    command = [sys.executable, __file__, "--peak-memory-of", name, "--sizes", *map(str, sizes)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout)


def rise_to_peak(name: str, sizes: tuple[int, ...]) -> float:
    """MB by which this process grows at its peak. Linux only."""
    N, K, D, V = sizes
    contender = (MIXTURE | ONE_SOFTMAX)[name]
    x = make_inputs(N, K, D, V)
    if "compile" in name:
        make_call(contender, x)()
    make_call(contender, make_inputs(8, K, D, 16))()  # libraries, threads, kernels
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    make_call(contender, x)()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """MB of this process, by the name that Linux has for it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) / 1024


def errors(x: Inputs) -> dict[str, tuple[float, float]]:
    """By dtype: the largest error of ours and of log space, loss and gradients, over float64's."""
    exact = make_call(log_space, x.to(torch.float64))()
    exact_loss = log_space(x.to(torch.float64)).detach()
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        narrow = x.to(dtype)
        of_both = []
        for contender in (zeta, log_space):
            loss = contender(narrow).detach().double()
            pairs = [(loss, exact_loss), *zip(make_call(contender, narrow)(), exact, strict=True)]
            of_both.append([((a.double() - b).norm() / b.norm()).item() for a, b in pairs])
        ours, theirs = of_both
        worst = max(range(len(ours)), key=lambda i: ours[i] / theirs[i])
        found[str(dtype)] = (ours[worst], theirs[worst])
    return found


def main() -> None:
    """Measure, print, and write the tables if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--mixtures", type=int, default=4)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--classes", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_memory_of:
        print(rise_to_peak(options.peak_memory_of, tuple(options.sizes)))
        return
    N, K, D, V = options.tokens, options.mixtures, options.features, options.classes
    lines = [
        f"{cpu_model()}, {torch.get_num_threads()} threads, torch {torch.__version__}. N = {N} "
        f"tokens, D = {D}, V = {V}, shared decoder, float32, forward + backward."
    ]
    for mixtures, contenders in ((K, MIXTURE), (1, ONE_SOFTMAX)):
        x = make_inputs(N, mixtures, D, V)
        calls: dict[str, Callable[[], object]] = {
            "three products, 512 rows": make_products(x, 512, torch.float32),
            "three products, 512 rows, bfloat16": make_products(x, 512, torch.bfloat16),
        }
        calls |= {name: make_call(contender, x) for name, contender in contenders.items()}
        found = times(calls, options.rounds)
        ours = next(iter(contenders))
        lines += ["", f"| K = {mixtures} | ms | time / {ours}'s | peak MB |", "|---|---|---|---|"]
        for name, values in found.items():
            memory = f"{peak_memory(name, (N, mixtures, D, V)):.0f}" if name in contenders else ""
            relative = ratio(values, found[ours])
            lines.append(
                f"| {name} | {1e3 * statistics.median(values):.0f} | {relative:.2f} | {memory} |"
            )
    lines += [
        "",
        "| error over float64, of the worst gradient | zeta | log space |",
        "|---|---|---|",
    ]
    for dtype, (of_ours, of_theirs) in errors(make_inputs(252, K, 123, 507)).items():
        lines.append(f"| {dtype} | {of_ours:.1e} | {of_theirs:.1e} |")
    print("\n".join(lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
