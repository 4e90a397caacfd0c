"""One rank of two: a network with activations and a gate under DDP and FSDP2, against one process.

Run by test_distributed.py as ``python ranks.py RANK FILE``; prints what went through kernels.
"""

import copy
import gc
import sys
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import zeta
from zeta import activations
from zeta.kernels import cpu, native
from zeta.nn import ActivatedLinear, Exo, GatedUnit, LearnableSELUVariation

WORLD = 2


class Gated(nn.Module):
    """A feed-forward layer with a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.gate(x)) * self.up(x)


def main(rank: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    for kind in ("ddp", "fsdp2"):
        check(kind, rank)
    # DDP goes before its group. Were it the last to hold the group, it would wait for a thread of
    # gloo's that waits for the interpreter, which it has: PyTorch 2.13.
    gc.collect()
    dist.destroy_process_group()


def check(kind: str, rank: int) -> None:
    torch.manual_seed(0)
    scalar, channels = LearnableSELUVariation(), LearnableSELUVariation(num_parameters=8)
    # FSDP2 shards no 0-d parameter: one of shape (1,) it does, or it is left whole, and reduced by
    # hand.
    shape = (1,) if kind == "fsdp2" else ()
    exo = Exo(learnable=True, shape=shape)
    gate = GatedUnit(activations.swiglu_oai, learnable=True, num_parameters=4)
    gated_linear = ActivatedLinear(4, 8, activations.swiglu)
    linear = ActivatedLinear(8, 8, activations.exo, learnable=True, shape=shape)
    network = nn.Sequential(
        *(nn.Linear(4, 8), channels, exo, Gated(), nn.Linear(8, 8), gate, nn.Linear(4, 8)),
        *(gated_linear, linear, scalar),
    )
    whole = copy.deepcopy(network)
    zeta.replace_gates(network)
    x = torch.randn(2 * WORLD, 4)
    whole(x).square().mean().backward()
    if kind == "ddp":
        parallel = DistributedDataParallel(network)
    else:
        with pytest.raises(ValueError, match="Change alpha to a 1D tensor with numel equal to 1"):
            fully_shard(Exo(learnable=True))
        fully_shard(network[3])
        parallel = fully_shard(network, ignored_params=set(scalar.parameters()))
    by_native, by_python = [], []
    native.build()
    with (
        mock.patch.object(native.extension, "launch", counted(native.extension.launch, by_native)),
        mock.patch.object(cpu, "launch", counted(cpu.launch, by_python)),
    ):
        parallel(x.chunk(WORLD)[rank]).square().mean().backward()
    if kind == "fsdp2":
        for parameter in scalar.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= WORLD
    for (name, ours), theirs in zip(network.named_parameters(), whole.parameters(), strict=True):
        gradient = ours.grad.full_tensor() if hasattr(ours.grad, "full_tensor") else ours.grad
        gradient = gradient.reshape(theirs.shape)
        torch.testing.assert_close(gradient, theirs.grad, msg=lambda m, n=name: f"{n}: {m}")
    print(f"{kind}: launched {len(by_native)} by C++, {len(by_python)} by Python")


def counted(function, calls):
    """The function, whose calls are noted."""

    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
