"""Times a compiled MLP, Linear - activation - Linear, on the CPU: `python benchmarks/compiled.py`.

Three activations of the same formula are timed in turn, round after round: Zeta's in eager mode,
Zeta's in a compiled graph, which calls the kernel where that is faster, and the formula's plain
operations, compiled, which are Inductor's own loops. The activation's part is what a network takes
longer than the same one without an activation. Times are the processor's, of all threads together,
so that a busy machine counts for little; set OMP_WAIT_POLICY=passive, since waiting costs time too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from zeta import activations
from zeta._backends.torch_plain import evaluate_plain
from zeta.nn import FormulaModule

ACTIVATIONS: dict[str, Callable[[], FormulaModule]] = {
    "exo": activations.exo.module,
    "exo, alpha 0.7": lambda: FormulaModule(activations.exo, {"alpha": 0.7}),
    "learnable_selu_variation": lambda: activations.learnable_selu_variation.module(learnable=True),
    "laplace": activations.laplace.module,
    "gelu": activations.gelu.module,
    "mish": activations.mish.module,
    "silu": activations.silu.module,
    "relu": activations.relu.module,
}
BATCH = 1024


class Plain(FormulaModule):
    """The formula by plain operations, whatever runs it."""

    def forward(self, input: Tensor) -> Tensor:
        """The formula, elementwise."""
        return evaluate_plain(self.formula, input, self.parameter_values(input))


def plain(module: FormulaModule) -> Plain:
    """The same activation by plain operations."""
    return Plain(module.formula, module.initial_values, learnable=module.learnable)


def networks(make: Callable[[], FormulaModule], features: int, width: int) -> dict[str, nn.Module]:
    """By name: the three, and eager and compiled ones without an activation."""

    def network(activation: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Linear(features, width), activation, nn.Linear(width, features))

    return {
        "eager": network(make()),
        "compiled": torch.compile(network(make())),
        "plain, compiled": torch.compile(network(plain(make()))),
        "none": network(nn.Identity()),
        "none, compiled": torch.compile(network(nn.Identity())),
    }


def forward(network: nn.Module, x: Tensor) -> None:
    """As in inference."""
    with torch.no_grad():
        network(x)


def both(network: nn.Module, x: Tensor) -> None:
    """Forward and backward, as in training."""
    network(x).sum().backward()


def ratio(times: dict[str, list[float]], rival: str) -> float:
    """Of a network with Zeta's activation, compiled, to the rival."""
    pairs = zip(times["compiled"], times[rival], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def part(times: dict[str, list[float]], contender: str, without: str) -> float:
    """The activation's, in milliseconds."""
    pairs = zip(times[contender], times[without], strict=True)
    return 1e3 * statistics.median(whole - rest for whole, rest in pairs)


def rows(name: str, features: int, width: int, rounds: int) -> Iterator[str]:
    """A line of the table for each mode."""
    torch._dynamo.reset()
    contenders = networks(ACTIVATIONS[name], features, width)
    x = torch.randn(BATCH, features)
    for call in (forward, both):
        times: dict[str, list[float]] = {contender: [] for contender in contenders}
        for round in range(-2, rounds):
            for contender, network in contenders.items():
                started = time.process_time()
                call(network, x)
                if round >= 0:
                    times[contender].append(time.process_time() - started)

        parts = (
            part(times, "eager", "none"),
            part(times, "compiled", "none, compiled"),
            part(times, "plain, compiled", "none, compiled"),
        )
        figures = (ratio(times, "eager"), ratio(times, "plain, compiled"), *parts)
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        yield f"| {name} | {width} | {call.__name__} | {cells} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=list(ACTIVATIONS), choices=list(ACTIVATIONS))
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    heads = ("compiled / eager", "compiled / plain, compiled")
    parts = ("ms: eager", "ms: compiled", "ms: plain, compiled")
    print(f"| {' | '.join(('activation', 'width', '', *heads, *parts))} |")
    print("|---|---|---|---|---|---|---|---|")
    for width in options.widths:
        for name in options.names:
            for row in rows(name, options.features, width, options.rounds):
                print(row, flush=True)


if __name__ == "__main__":
    main()
