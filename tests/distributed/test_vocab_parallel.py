"""Vocab-parallel mixtures in real gloo processes, equal to the whole one; and what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from zeta.distributed import vocab_parallel
from zeta.nn import MixtureOfSoftmaxes
from zeta.ops import linear_cross_entropy

ROOT = Path(__file__).parents[2]
RANKS = Path(__file__).with_name("ranks.py")
SCENARIOS = {
    2: (
        *("loss", "inference", "sample", "state", "training", "tied", "tied_otherwise"),
        *("compiled", "ddp_calls", "fsdp2_calls", "formula"),
    ),
    4: ("loss", "tied", "ddp", "fsdp2", "formula"),
}


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_equals_the_whole(world, tmp_path, clean_env):
    """All scenarios in one set of processes, whose start takes longest."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                RANKS,
                *map(str, (rank, world, tmp_path / "store")),
                *SCENARIOS[world],
            ],
            env=clean_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, out + err
        assert out.split("\n")[:-1] == [f"{scenario}: equal" for scenario in SCENARIOS[world]]


@pytest.fixture
def mesh(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_bad_calls_are_named(mesh, monkeypatch):
    mixture = MixtureOfSoftmaxes(2, 3, 5)
    with pytest.raises(TypeError, match="must be a whole MixtureOfSoftmaxes or SoftmaxHead, got L"):
        vocab_parallel(nn.Linear(3, 5), mesh)
    with pytest.raises(TypeError, match=r"whole .* got VocabParallelMixtureOfSoftmaxes"):
        vocab_parallel(vocab_parallel(mixture, mesh), mesh)
    own = type("Own", (MixtureOfSoftmaxes,), {})  # which may compute another loss
    with pytest.raises(
        TypeError, match="must be a whole MixtureOfSoftmaxes or SoftmaxHead, got Own"
    ):
        vocab_parallel(own(2, 3, 5), mesh)
    with mixture.register_forward_pre_hook(lambda module, args: None):  # noqa: SIM117
        with pytest.raises(ValueError, match="the hooks of this MixtureOfSoftmaxes would be lost"):
            vocab_parallel(mixture, mesh)
    with pytest.raises(TypeError, match="mesh must be a DeviceMesh, got int"):
        vocab_parallel(mixture, 2)
    with pytest.raises(ValueError, match=r"one dimension, got 2; take one .* mesh\["):
        vocab_parallel(mixture, init_device_mesh("cpu", (1, 1), mesh_dim_names=("data", "vocab")))
    monkeypatch.setattr(mesh, "size", lambda: 6)
    with pytest.raises(ValueError, match="6 processes cannot share 5 classes"):
        vocab_parallel(mixture, mesh)


def test_embeddings_that_cannot_be_split_are_named(mesh):
    class Scaled(nn.Embedding):
        def forward(self, input):
            return 2 * super().forward(input)

    for embedding, error, match in (
        (nn.Linear(3, 5), TypeError, r"must be nn\.Embedding itself, got Linear"),
        (Scaled(5, 3), TypeError, r"must be nn\.Embedding itself, got Scaled"),
        (nn.Embedding(5, 3, max_norm=1.0), ValueError, "with max_norm, scale_grad_by_freq or sp"),
        (nn.Embedding(5, 3, sparse=True), ValueError, "cannot be split"),
        (nn.Embedding(5, 3, scale_grad_by_freq=True), ValueError, "cannot be split"),
    ):
        head = MixtureOfSoftmaxes(2, 3, 5, decoder="shared")
        head.tie_weights(embedding)
        with pytest.raises(error, match=match):
            vocab_parallel(head, mesh, embedding)


def test_alone_it_is_the_whole(mesh):
    whole = MixtureOfSoftmaxes(2, 3, 5)
    head = vocab_parallel(whole, mesh)
    x, target = torch.randn(4, 3), torch.tensor([0, 1, 4, -100])
    torch.testing.assert_close(head.loss(x, target), whole.loss(x, target))
    assert "classes=0:5" in repr(head)
    with pytest.raises(IndexError, match="target 5 is out of range for 5 classes"):
        head.loss(x, target + 1)
    assert (
        not head._is_hf_initialized
    )  # as transformers asks; it may not draw anew what it was given
    torch.testing.assert_close(head.weight, whole.weight)


def test_a_sharded_weight_says_what_to_do(mesh):
    weight = distribute_tensor(torch.randn(5, 3), mesh, [Shard(0)])
    with pytest.raises(TypeError, match=r"weight is a DTensor .* weight\.full_tensor\(\)"):
        linear_cross_entropy(torch.randn(2, 3), weight, torch.tensor([0, 4]))
    whole = linear_cross_entropy(torch.randn(2, 3), weight.full_tensor(), torch.tensor([0, 4]))
    assert whole.isfinite()
