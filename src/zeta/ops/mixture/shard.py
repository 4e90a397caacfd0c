"""Classes held by several processes: what these tell each other.

The loss needs, per chunk of tokens, one MAX and one SUM over (N, K) numbers, and with label
smoothing a second SUM; the gradient by the hidden vectors is summed once, by the weight never.

Shape suffixes: N tokens, K mixtures, V classes of this process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from zeta._backends.torch_plain import compute_dtype
from zeta.kernels.mixture import Distribution, Statistics


class Shard(NamedTuple):
    """The classes of one process of a group.

    Attributes:
        rank: of the process in its group.
        sizes: how many classes each process holds, in the order of ranks.
        group: the process group's name, as compiled programs know it.
    """

    rank: int
    sizes: tuple[int, ...]
    group: str

    @property
    def start(self) -> int:
        """The first class."""
        return sum(self.sizes[: self.rank])

    @property
    def stop(self) -> int:
        """The class after the last one."""
        return self.start + self.sizes[self.rank]

    @property
    def num_classes(self) -> int:
        """Of all processes."""
        return sum(self.sizes)


def process_group(name: str) -> Any:
    """The process group of this name."""
    from torch.distributed import distributed_c10d as c10d  # not in every build

    return c10d._resolve_process_group(name)  # type: ignore[attr-defined, arg-type]


def combine(found: Statistics, group: str) -> Statistics:
    """The statistics over all processes' classes."""
    high_NK = found.high.clone()
    dist.all_reduce(high_NK, dist.ReduceOp.MAX, process_group(group))
    total_NK = found.total * (found.high - high_NK).exp()
    return Statistics(high_NK, *total(group, total_NK, found.value))


def whole(of: Distribution, group: str, start: int) -> Distribution:
    """The distribution over all processes' classes."""
    processes = process_group(group)
    best_N = of.best.clone()
    dist.all_reduce(best_N, dist.ReduceOp.MAX, processes)
    # Of equally probable classes the first.
    prediction_N = (of.prediction + start).masked_fill(
        of.best < best_N, torch.iinfo(torch.int64).max
    )
    dist.all_reduce(prediction_N, dist.ReduceOp.MIN, processes)
    log_prob_N, response_NK, entropy_N = total(group, of.mass_log_prob, of.response, of.entropy)
    return Distribution(log_prob_N, response_NK, entropy_N, best_N, prediction_N)


def total(group: str, *parts: Tensor) -> tuple[Tensor, ...]:
    """Sums over all processes, in one message and at least in float32."""
    wide = compute_dtype(parts[0].dtype)
    packed = torch.cat([part.to(wide).flatten() for part in parts])
    dist.all_reduce(packed, dist.ReduceOp.SUM, process_group(group))
    pieces = packed.split([part.numel() for part in parts])
    return tuple(p.view(q.shape).to(q.dtype) for p, q in zip(pieces, parts, strict=True))


def gather(part: Tensor, group: str) -> list[Tensor]:
    """Every process's tensor of this shape, in the order of ranks."""
    pieces = [
        torch.empty_like(part, memory_format=torch.contiguous_format)
        for _ in range(dist.get_world_size(process_group(group)))
    ]
    dist.all_gather(pieces, part.contiguous(), process_group(group))
    return pieces


def gather_classes(part: Tensor, dim: int, shard: Shard) -> Tensor:
    """What lies along the classes, of all of them: parts are padded to one size on their way."""
    part = part.movedim(dim, -1)
    padded = F.pad(part, (0, max(shard.sizes) - part.shape[-1]))
    pieces = gather(padded, shard.group)
    return torch.cat([p[..., :n] for p, n in zip(pieces, shard.sizes, strict=True)], -1).movedim(
        -1, dim
    )


def generators(
    shard: Shard, generator: torch.Generator | None, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Two generators that the first process's one seeds: alike on all processes, and own."""
    seed = torch.empty((), dtype=torch.int64, device=device).random_(generator=generator)
    dist.broadcast(seed, group=process_group(shard.group), group_src=0)
    alike, own = torch.Generator(device), torch.Generator(device)
    alike.manual_seed(int(seed))
    own.manual_seed((int(seed) + 1 + shard.rank) % 2**63)
    return alike, own
