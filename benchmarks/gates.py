"""What a gate costs, as ratios: one tensor that holds gate and value, forward and backward.

    python benchmarks/gates.py [--rounds 15] [--out benchmarks/results/NAME.md]

Contenders are timed in turn in one process, medians over rounds; those that allocate much have
their own rounds. The tensor is (2048, 2 · 5632), the hidden layer of a Llama of 1.1 billion.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import tables
import zeta
from zeta import activations
from zeta.activations import swiglu
from zeta.ops import activated_linear, gated

ROWS, WIDTH = 2048, 5632
Gate = Callable[[Tensor], Tensor]


def eager(packed: Tensor) -> Tensor:
    """silu(gate)·value by PyTorch's operations."""
    gate, value = packed.chunk(2, -1)
    return F.silu(gate) * value


def step(gate: Gate, packed: Tensor, upstream: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    return lambda: torch.autograd.grad(gate(packed), packed, upstream)


def medians(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds, timed in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run(), run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def over_others(rounds: int) -> Iterator[tuple[str, str]]:
    """Our swiglu over `F.glu`, the eager expression, and what torch.compile makes of it."""
    for dtype in (torch.float32, torch.bfloat16):
        packed = torch.randn(ROWS, 2 * WIDTH).to(dtype).requires_grad_()
        upstream = torch.randn(ROWS, WIDTH).to(dtype)
        others: dict[str, Gate] = {
            "F.glu": F.glu,
            "eager": eager,
            "torch.compile": torch.compile(eager, dynamic=False),
        }
        ours: Gate = lambda packed: gated(swiglu, packed)
        for name, other in others.items():
            pair = {"ours": ours, name: other}
            found = medians({k: step(f, packed, upstream) for k, f in pair.items()}, rounds)
            what = f"swiglu, {str(dtype).removeprefix('torch.')}, over {name}"
            ratio = found["ours"] / found[name]
            yield what, f"{ratio:.2f} ({1e3 * found['ours']:.1f} ms)"


def over_swiglu(rounds: int) -> Iterator[tuple[str, str]]:
    """Our other gates, and gate and value in turn, over our swiglu on halves."""
    packed = torch.randn(ROWS, 2 * WIDTH, requires_grad=True)
    upstream = torch.randn(ROWS, WIDTH)
    gates: dict[str, Gate] = {"ours": lambda p: gated(swiglu, p)}
    gates["swiglu, interleaved"] = lambda p: gated(swiglu, p, layout="interleaved")
    for name in ("swiglu_oai", "swiglu_clamped", "swiglu_step", "situ_glu", "geglu"):
        gates[name] = lambda p, f=activations.GATES[name]: gated(f, p)  # type: ignore[misc]
    found = medians({k: step(f, packed, upstream) for k, f in gates.items()}, rounds)
    for name in list(gates)[1:]:
        yield f"{name}, over swiglu", f"{found[name] / found['ours']:.2f}"


def small(rounds: int) -> Iterator[tuple[str, str]]:
    """1,000 elements."""
    packed = torch.randn(4, 500, requires_grad=True)
    upstream = torch.randn(4, 250)

    def often(run: Callable[[], object]) -> Callable[[], object]:
        return lambda: [run() for _ in range(200)]

    gates: dict[str, Gate] = {"ours": lambda p: gated(swiglu, p), "eager": eager}
    forward = {}
    for name, f in gates.items():
        forward[name] = often(torch.no_grad()(lambda f=f: f(packed)))
    both = {name: often(step(f, packed, upstream)) for name, f in gates.items()}
    ratios = []
    for contenders in (forward, both):
        found = medians(contenders, rounds)
        ratios.append(f"{found['ours'] / found['eager']:.2f}")
    yield "swiglu, 1,000 elements, over eager: forward; with backward", "; ".join(ratios)


def blocks(rounds: int) -> Iterator[tuple[str, str]]:
    """2048 · (1024 → 4096 → 1024) with the activation formed again, over keeping it."""
    up, weight = torch.randn(4096, 1024) / 32, torch.randn(1024, 4096) / 64
    gate = torch.randn(8192, 1024) / 32
    x = torch.randn(2048, 1024)
    leaves = [t.requires_grad_() for t in (x, up, gate, weight)]
    upstream = torch.randn(2048, 1024)

    def run(f: Callable[[], Tensor], used: list[Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(f(), used, upstream)

    one, two = [leaves[0], leaves[1], leaves[3]], [leaves[0], leaves[2], leaves[3]]
    gelu = activations.gelu
    for name, used, ours, usual in (
        (
            "gelu",
            one,
            lambda: activated_linear(F.linear(x, up), weight=weight, formula=gelu),
            lambda: F.linear(F.gelu(F.linear(x, up)), weight),
        ),
        (
            "swiglu",
            two,
            lambda: activated_linear(F.linear(x, gate), weight=weight, formula=swiglu),
            lambda: F.linear(eager(F.linear(x, gate)), weight),
        ),
    ):
        found = medians({"ours": run(ours, used), "eager": run(usual, used)}, rounds)
        yield f"activated_linear of {name}, over eager", f"{found['ours'] / found['eager']:.2f}"


def layers(rounds: int) -> Iterator[tuple[str, str]]:
    """Layers of transformers' models on 4 · 512 tokens after `replace_gates`, over before."""
    from transformers.models.llama import modeling_llama as llama
    from transformers.models.phi3 import modeling_phi3 as phi3

    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16}
    sizes |= {"num_key_value_heads": 16, "attn_implementation": "sdpa", "pad_token_id": 0}
    x, upstream = torch.randn(2, 4, 512, 1024)
    x.requires_grad_()
    for name, config, layer, rotary in (
        ("Llama", llama.LlamaConfig, llama.LlamaDecoderLayer, llama.LlamaRotaryEmbedding),
        ("Phi-3", phi3.Phi3Config, phi3.Phi3DecoderLayer, phi3.Phi3RotaryEmbedding),
    ):
        settings = config(**sizes)
        before = layer(settings, layer_idx=0)
        after = copy.deepcopy(before)
        zeta.replace_gates(after)
        positions = rotary(settings)(x, torch.arange(512)[None])

        def run(block: torch.nn.Module, where: Any = positions) -> Tensor:
            return block(x, position_embeddings=where)

        def train(block: torch.nn.Module) -> Callable[[], object]:
            leaves = [x, *block.parameters()]
            return lambda: torch.autograd.grad(run(block), leaves, upstream)

        found = medians({"after": train(after), "before": train(before)}, rounds)
        saved = [saved_megabytes(lambda b=b: run(b), b) for b in (after, before)]
        outputs = [run(block).detach() for block in (after, before)]
        difference = (outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max()
        yield f"a layer of {name}, after over before", f"{found['after'] / found['before']:.2f}"
        yield f"{name}: megabytes saved; before", "{:.0f}; {:.0f}".format(*saved)
        yield f"{name}: largest difference over the largest output", f"{difference:.0e}"


def saved_megabytes(forward: Callable[[], Tensor], block: torch.nn.Module) -> float:
    """What autograd keeps but for parameters, each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            kept[memory.data_ptr()] = memory.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = forward()
    del y
    return sum(kept.values()) / 1e6


if __name__ == "__main__":
    tables.run(__doc__, over_others, over_swiglu, small, blocks, layers)
