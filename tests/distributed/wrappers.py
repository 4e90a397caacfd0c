"""A whole mixture under DDP and FSDP2, by every way to call it; scenarios of ranks.py."""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from zeta.nn import MixtureOfSoftmaxes

K, D, V, N = 2, 8, 11, 4  # N tokens on each process


class Model(nn.Module):
    """Gives the loss, or without a target the features that its head takes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(D, D, dtype=torch.float64)
        self.head = MixtureOfSoftmaxes(K, D, V, decoder="shared", dtype=torch.float64)

    def forward(self, x, target=None):
        features = torch.tanh(self.body(x))
        return features if target is None else self.head.loss(features, target)


def data():
    """Of all processes, and which of it is this one's."""
    torch.manual_seed(2)
    world = dist.get_world_size()
    x, target = torch.randn(world * N, D, dtype=torch.float64), torch.randint(V, (world * N,))
    return x, target, slice(dist.get_rank() * N, (dist.get_rank() + 1) * N)


def model_and_gradients():
    """A model, alike on all processes, and its gradients by the data of all."""
    torch.manual_seed(1)
    model = Model()
    whole = copy.deepcopy(model)
    x, target, _ = data()
    whole(x, target).backward()
    return model, {name: parameter.grad for name, parameter in whole.named_parameters()}


def unequal(model, expected):
    """Names of the parameters with other gradients."""
    return {
        name
        for name, p in model.named_parameters()
        if not torch.allclose(getattr(p.grad, "full_tensor", lambda p=p: p.grad)(), expected[name])
    }


def ddp_calls(mesh):
    """As docs/guides/scaling.md has them."""
    x, target, own = data()
    x, target = x[own], target[own]
    for call in (
        lambda ddp: ddp(x, target),
        lambda ddp: ddp.module.head.loss(ddp(x), target),
    ):
        model, expected = model_and_gradients()
        ddp = DistributedDataParallel(model)
        for _ in range(2):
            model.zero_grad()
            with warnings.catch_warnings(action="error"):
                call(ddp).backward()
            assert not unequal(model, expected)

    ddp = DistributedDataParallel(model_and_gradients()[0], find_unused_parameters=True)
    with pytest.raises(RuntimeError, match="mark a variable ready only once"):
        ddp.module.head.loss(ddp(x), target).backward()

    # Of the head it is said that no gradient is reduced, and once.
    model, expected = model_and_gradients()
    ddp = DistributedDataParallel(model)
    loss = model(x, target)
    with pytest.warns(UserWarning, match="this MixtureOfSoftmaxes stay on this process.*forward"):
        loss.backward()
    assert unequal(model, expected) == expected.keys()
    with warnings.catch_warnings(action="error"):
        model(x, target).backward()


def fsdp2_calls(mesh):
    """The head with its model, in a group of its own, and alone; every method."""
    x, target, own = data()
    x, target = x[own], target[own]
    for sharded in (("model",), ("head", "model"), ("head",)):
        for call in (
            lambda model: model(x, target),
            lambda model: model.head.loss(model(x), target),
        ):
            model, expected = model_and_gradients()
            for part in sharded:
                fully_shard(model if part == "model" else model.head)
            call(model).backward()
            alone = {"body.weight", "body.bias"} if sharded == ("head",) else set()
            assert unequal(model, expected) == alone

    whole = MixtureOfSoftmaxes(K, D, V)
    head = fully_shard(copy.deepcopy(whole))
    x = x.float()
    for call in (
        lambda head: head(x),
        lambda head: head.log_prob(x),
        lambda head: head.log_prob(x, target),
        lambda head: head.topk(x, 3),
        lambda head: head.sample(x, 5, generator=torch.Generator().manual_seed(1)),
        lambda head: head.loss(x, target, class_weight=torch.ones(V), reduction="none"),
    ):
        head.reshard()
        with torch.no_grad():
            torch.testing.assert_close(call(head), call(whole))

    class LogProb(MixtureOfSoftmaxes):
        def forward(self, x):
            return self.log_prob(x)

    head = LogProb(K, D, V)
    head.load_state_dict(whole.state_dict())
    fully_shard(head)
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DT"):
        head.loss(x, target)
    register_fsdp_forward_method(head, "loss")
    torch.testing.assert_close(head.loss(x, target), whole.loss(x, target))
    with torch.no_grad():
        torch.testing.assert_close(head(x), whole.log_prob(x))
