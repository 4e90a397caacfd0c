"""The cost model of docs/mixture.md against measurements: memory, time, messages.

    python benchmarks/mixture_scaling.py [--out benchmarks/results/NAME.md]

Float32, forward + backward, shared decoder. The rate of the matrix products is measured at the
first size and predicts the others. Shape suffixes: as in mixture.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh

from mixture import make_call, make_inputs, make_products, peak_memory, zeta
from zeta.distributed import vocab_parallel
from zeta.nn import MixtureOfSoftmaxes
from zeta.ops.mixture.chunks import tokens_per_chunk

# N, K, D, V
SIZES = [
    (1024, 4, 256, 32768),
    (4096, 4, 256, 32768),
    (1024, 8, 256, 32768),
    (1024, 4, 256, 65536),
    (1024, 4, 512, 32768),
    (512, 1, 128, 262144),
]


def predicted_megabytes(N: int, K: int, D: int, V: int) -> float:
    """One chunk of logits, the weight's gradient, the hidden vectors' gradient; float32."""
    n = min(N, tokens_per_chunk(None, 4 * V * D, K, V, torch.float32))
    return 4 * (n * K * V + V * D + N * K * D) / 2**20


def arithmetic(N: int, K: int, D: int, V: int) -> int:
    """Operations of the three matrix products."""
    return 3 * 2 * N * K * D * V


def median_seconds(call: Callable[[], object], rounds: int = 5) -> float:
    """Of a call, after one that is not counted."""
    call()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def one_rank(rank: int, world: int, file: str, sizes: tuple[int, ...], answers: Any) -> None:
    """One process's classes: seconds per step, messages and bytes handed to all-reduce."""
    torch.set_num_threads(max(1, 2 // world))
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    N, K, D, V = sizes
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (world,))
    head = vocab_parallel(MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False), mesh)
    x, target = torch.randn(N, D, requires_grad=True), torch.randint(V, (N,))
    sent: list[int] = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda t, *rest: (sent.append(t.nbytes), all_reduce(t, *rest))[1]
    head.loss(x, target).backward()
    messages = list(sent)
    seconds = median_seconds(lambda: head.loss(x, target).backward())
    if rank == 0:
        answers.put((seconds, len(messages), sum(messages)))
    dist.destroy_process_group()


def vocab_parallel_cost(world: int, folder: Path, sizes: tuple[int, ...]) -> tuple[float, int, int]:
    """Of a step in so many processes, two threads in all."""
    file = folder / f"store{world}"
    file.unlink(missing_ok=True)
    answers = mp.get_context("spawn").SimpleQueue()
    mp.spawn(one_rank, (world, str(file), sizes, answers), nprocs=world)
    return answers.get()


def main() -> None:
    """Measure, print, and write the tables if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="for a rendezvous file")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [
        "| N, K, D, V | MB predicted | measured | ms predicted | measured |",
        "|---|---|---|---|---|",
    ]
    rate = 0.0
    for sizes in SIZES:
        x = make_inputs(*sizes)
        rate = rate or arithmetic(*sizes) / median_seconds(make_products(x, 512, torch.float32))
        measured = median_seconds(make_call(zeta, x))
        lines.append(
            f"| {', '.join(map(str, sizes))} | {predicted_megabytes(*sizes):.0f} | "
            f"{peak_memory('zeta', sizes):.0f} | {1e3 * arithmetic(*sizes) / rate:.0f} | "
            f"{1e3 * measured:.0f} |"
        )
    lines += ["", "| processes | ms per step | all-reduces | bytes |", "|---|---|---|---|"]
    for world in (1, 2):
        seconds, messages, size = vocab_parallel_cost(world, options.folder, SIZES[0])
        lines.append(f"| {world} | {1e3 * seconds:.0f} | {messages} | {size:,} |")
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
