"""Whatever tensor comes, of any shape, layout and dtype: right shape, dtype and numbers, no NaN."""

import functools
import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from cases import DTYPES, SHARE, name
from zeta._backends.torch_plain import compute_dtype, evaluate_plain
from zeta.nn import MixtureOfSoftmaxes
from zeta.ops import selu_softmax

# How far a parameter is drawn from its default, as a factor. 0 and other signs are apart.
FACTORS = st.floats(0.25, 4.0)
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)

FUZZED = [*SHARE[:3], *SHARE[6::4]]  # hypothesis takes seconds for each, in each dtype


@st.composite
def tensors(draw, dtype: torch.dtype, shapes: st.SearchStrategy[tuple[int, ...]] = SHAPES):
    """A tensor of a drawn shape and layout; moderate numbers or those of every size, and with the
    extremes among them."""
    shape = draw(shapes)
    info = torch.finfo(dtype)
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(shape, dtype=torch.float64, generator=random) * draw(st.sampled_from([1, 30]))
    if draw(st.booleans()):
        share = torch.rand(shape, dtype=torch.float64, generator=random)
        smallest, largest = math.log2(info.smallest_normal * info.eps), math.log2(info.max)
        x = x.sign() * torch.exp2(smallest + share * (largest - smallest))
    extremes = torch.tensor([info.max, -info.max, info.tiny, -info.tiny, info.tiny / 4, 0.0, -0.0])
    chosen = extremes[torch.randint(len(extremes), shape, generator=random)].double()
    extreme = torch.rand(shape, generator=random) < draw(st.sampled_from([0.0, 0.2]))
    x = torch.where(extreme, chosen, x).clamp(-info.max, info.max).to(dtype)
    return draw(st.sampled_from(LAYOUTS))(x)


def strided(x: torch.Tensor) -> torch.Tensor:
    """Every second number of a larger tensor, not from its start."""
    return x.repeat_interleave(2, -1)[..., 1::2] if x.dim() else x


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.mT.contiguous().mT if x.dim() > 1 else x


def expanded(x: torch.Tensor) -> torch.Tensor:
    """The first row, over and over, with stride 0."""
    return x[:1].expand(x.shape) if x.dim() else x


def offset(x: torch.Tensor) -> torch.Tensor:
    """Not aligned to a vector."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


LAYOUTS = [torch.clone, strided, channels_last, transposed, expanded, offset]


@st.composite
def parameters(draw, formula, x: torch.Tensor) -> dict[str, float | torch.Tensor]:
    """Around the documented values: numbers, scalar tensors, or one per channel or element."""
    kind = draw(st.sampled_from(["default", "number", "tensor", "channels", "elements"]))
    if kind == "default":
        return dict(formula.parameters)
    values = {key: value * draw(FACTORS) for key, value in formula.parameters.items()}
    if kind == "number":
        return values
    channels = (1, x.shape[1], *(1 for _ in x.shape[2:])) if x.dim() > 1 else ()
    shape = {"channels": channels, "elements": x.shape}.get(kind, ())
    return {key: torch.full(shape, value, dtype=x.dtype) for key, value in values.items()}


def truth(formula, x, values):
    """In float64: the numbers, what one relative rounding of every argument moves them, and what
    the arguments can make of a factor that is lost."""
    arguments = {"x": x} | values
    wide = {
        key: torch.as_tensor(value, dtype=torch.float64).expand(x.shape).clone().requires_grad_()
        for key, value in arguments.items()
    }
    y = evaluate_plain(formula, wide["x"], {k: v for k, v in wide.items() if k != "x"})
    slopes = torch.autograd.grad(y.sum(), list(wide.values()))
    moved = sum((w * slope).abs() for w, slope in zip(wide.values(), slopes, strict=True))
    magnified = math.prod(w.detach().abs().clamp(min=1) for w in wide.values())
    return y.detach(), moved.detach(), magnified.clamp(max=torch.finfo(torch.float64).max)


def check(formula, x, values, got, flushed: float = 0.0) -> None:
    """Shape, dtype, no NaN, and 4 ulp where the function is well conditioned.

    Numbers up to ``flushed`` may have been taken for 0.
    """
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    assert not got.isnan().any()
    info = torch.finfo(x.dtype)
    eps = torch.finfo(compute_dtype(x.dtype)).eps
    want, moved, magnified = truth(formula, x, values)
    lost = flushed * magnified + info.smallest_normal
    allowed = 4 * eps * torch.maximum(want.abs(), moved) + lost
    if info.bits < 32:  # one rounding of a float32 result
        allowed = allowed + info.eps * want.abs() / 2
    normal = (want.abs() < info.max) & moved.isfinite()
    assert ((got.double() - want).abs() <= allowed)[normal].all()


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("f", FUZZED, ids=name)
@hypothesis.settings(max_examples=15)
@hypothesis.given(data=st.data())
def test_pytorch(f, dtype, data):
    """By the fused kernel, without and with gradients, and by plain operations."""
    x = data.draw(tensors(dtype))
    values = data.draw(parameters(f, x))
    check(f, x, values, f(x, **values))
    check(f, x, values, evaluate_plain(f, x, values))
    leaf = x.detach().requires_grad_()
    learned = {k: v.requires_grad_() for k, v in values.items() if isinstance(v, torch.Tensor)}
    y = f(leaf, **(values | learned))
    check(f, x, values, y.detach())
    gradients = torch.autograd.grad(y.sum(), [leaf, *learned.values()])
    for source, gradient in zip([leaf, *learned.values()], gradients, strict=True):
        assert (gradient.shape, gradient.dtype) == (source.shape, source.dtype)
        assert not gradient.isnan().any()


@pytest.mark.parametrize("f", FUZZED, ids=name)
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_parameters_far_from_the_documented_ones(f, data):
    """0, negative, tiny and huge: NaN is allowed there, a crash or another shape is not."""
    far = st.sampled_from([0.0, -1.0, 1e-30, 1e30, -1e4, 88.0])
    x = data.draw(tensors(torch.float32))
    values = {key: data.draw(far) for key in f.parameters}
    y = f(x, **values)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("f", FUZZED, ids=name)
@hypothesis.settings(max_examples=10)
@hypothesis.given(data=st.data())
def test_numpy(f, data):
    x = data.draw(tensors(torch.float32))
    values = {key: value * data.draw(FACTORS) for key, value in f.parameters.items()}
    got = f(x.numpy(), **values)
    assert isinstance(got, np.ndarray | np.floating)
    check(f, x, values, torch.as_tensor(np.asarray(got)))


@functools.cache
def jax_function(formula):
    jax = pytest.importorskip("jax", reason="pip install 'zeta-nn[jax]'")
    return lambda x, values: np.asarray(formula(jax.numpy.asarray(x), **values))


@pytest.mark.parametrize("f", FUZZED, ids=name)
@hypothesis.settings(max_examples=4)  # each shape is compiled
@hypothesis.given(data=st.data())
def test_jax(f, data):
    x = data.draw(tensors(torch.float32, st.sampled_from([(), (0,), (3, 0, 2), (2, 3, 4)])))
    values = {key: value * data.draw(FACTORS) for key, value in f.parameters.items()}
    got = jax_function(f)(x.numpy(), values)
    # XLA takes subnormal numbers for 0.
    check(f, x, values, torch.tensor(got), flushed=torch.finfo(x.dtype).smallest_normal)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_selu_softmax(dtype, data):
    some_dims = SHAPES.filter(len)
    x = data.draw(tensors(dtype, some_dims)).requires_grad_()
    dim = data.draw(st.integers(-x.dim(), x.dim() - 1))
    y = selu_softmax(x, dim)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert ((y >= 0) & (y <= 1)).all()
    if y.numel():
        rounding = x.shape[dim] * torch.finfo(dtype).eps
        assert ((y.double().sum(dim) - 1).abs() <= rounding).all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("decoder", ["separate", "shared"])
@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_mixture(decoder, data):
    """Every method, on any leading dimensions; numbers as large as products can still hold."""
    D, V = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7))
    mixture = MixtureOfSoftmaxes(data.draw(st.integers(1, 3)), D, V, decoder=decoder)
    x = data.draw(tensors(torch.float32, SHAPES.map(lambda shape: (*shape, D))))
    x = (x / 1e6).requires_grad_()
    leading = x.shape[:-1]
    target = torch.randint(V, leading)
    p = mixture(x)
    assert p.shape == (*leading, V)
    torch.testing.assert_close(p.sum(-1), torch.ones(leading))
    torch.testing.assert_close(mixture.log_prob(x).exp(), p, rtol=1e-4, atol=1e-6)
    assert mixture.log_prob(x, target).shape == leading
    assert mixture.topk(x, V)[1].sort(-1).values.equal(torch.arange(V).expand(*leading, V))
    samples = mixture.sample(x, 2)
    assert samples.shape == (*leading, 2)
    assert ((samples >= 0) & (samples < V)).all()
    losses = mixture.loss(x, target, reduction="none")
    assert losses.shape == leading
    assert (losses > -1e-5).all()
    gradients = torch.autograd.grad(losses.sum(), [x, *mixture.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
