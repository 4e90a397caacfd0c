"""The catalogue on PyTorch's other tensors: sharded, nested, masked; as on plain ones."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, init_device_mesh
from torch.masked import MaskedTensor

from cases import SHARE, name
from zeta import formula
from zeta.math import maximum, minimum
from zeta.nn import MixtureOfSoftmaxes

PROTOTYPES = [  # what PyTorch says of its own
    "ignore:The PyTorch API of MaskedTensors is in prototype stage:UserWarning",
    "ignore:It is not recommended to create a MaskedTensor:UserWarning",
    "ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning",
]
pytestmark = [pytest.mark.filterwarnings(warning) for warning in PROTOTYPES]


@formula(low=-0.5)
def bounded(x, low):
    return minimum(maximum(x, low), 1.5) + maximum(low, x)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def gradients(y, x, parameters):
    y.sum().backward()
    return [x.grad, *(p.grad for p in parameters)]


def learned(f):
    return [torch.tensor(v, requires_grad=True) for v in f.parameters.values()]


def expected(f, x):
    """The value on a plain tensor, and the gradients by it and by the parameters."""
    x, parameters = x.clone().requires_grad_(), learned(f)
    y = f(x, *parameters)
    return y.detach(), gradients(y, x, parameters)


@pytest.mark.parametrize("placement", [Shard(0), Replicate(), Partial()], ids=str)
@pytest.mark.parametrize("f", [*SHARE, bounded], ids=name)
def test_dtensor(f, placement, mesh):
    whole = torch.randn(4, 6) * 3
    value, (slope, *slopes) = expected(f, whole)
    x = DTensor.from_local(whole, mesh, [placement]).requires_grad_()
    parameters = [DTensor.from_local(p.detach(), mesh).requires_grad_() for p in learned(f)]
    y = f(x, *parameters)
    torch.testing.assert_close(y.full_tensor(), value)
    got = [gradient.full_tensor() for gradient in gradients(y, x, parameters)]
    torch.testing.assert_close(got, [slope, *slopes])
    torch.testing.assert_close(f(x).full_tensor(), value)  # with its defaults, plain numbers


@pytest.mark.parametrize("f", SHARE, ids=name)
def test_jagged(f):
    parts = [torch.randn(2, 6) * 3, torch.randn(3, 6) * 3]
    value, slopes = expected(f, torch.cat(parts))
    x = torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)
    parameters = learned(f)
    y = f(x, *parameters)
    torch.testing.assert_close(y.values(), value)
    torch.testing.assert_close(f(x).values(), value)
    y.values().sum().backward()
    got = [x.grad.values(), *(p.grad for p in parameters)]
    torch.testing.assert_close(got, slopes)


# PyTorch compares no jagged tensor with another one, as srelu's thresholds would be.
@pytest.mark.parametrize("f", [f for f in SHARE if f.parameters and f.name != "srelu"], ids=name)
def test_jagged_with_a_value_per_channel(f):
    parts = [torch.randn(2, 6) * 3, torch.randn(3, 6) * 3]
    module = f.module(learnable=True, num_parameters=6, channel_dim=-1)
    y = module(torch.nested.nested_tensor(parts, layout=torch.jagged))
    torch.testing.assert_close(y.values(), module(torch.cat(parts)))


@pytest.mark.parametrize("f", [*SHARE, bounded], ids=name)
def test_masked(f):
    data, mask = torch.randn(4, 6) * 3, torch.rand(4, 6) > 0.3
    value, slopes = expected(f, data[mask])
    x = MaskedTensor(data.masked_fill(~mask, torch.nan), mask, requires_grad=True)
    parameters = learned(f)
    y = f(x, *parameters)
    torch.testing.assert_close(y.get_data()[mask], value)
    assert torch.equal(y.get_mask(), mask)
    slope, *by_parameters = gradients(y, x, parameters)
    torch.testing.assert_close([slope.get_data()[mask], *by_parameters], slopes)


def test_a_mixture_of_a_nested_tensor_says_what_to_give():
    x = torch.nested.nested_tensor([torch.randn(2, 6), torch.randn(3, 6)], layout=torch.jagged)
    mos = MixtureOfSoftmaxes(2, 6, 4)
    with pytest.raises(TypeError, match=r"x is nested; give its tokens, x\.values\(\), and"):
        mos(x)
    with pytest.raises(TypeError, match="x is nested"):
        mos.loss(x, torch.zeros(5, dtype=torch.int64))
    assert mos(x.values()).shape == (5, 4)
