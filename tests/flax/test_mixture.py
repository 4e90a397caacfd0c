"""MixtureOfSoftmaxes as an NNX module: the distribution, its views, PyTorch's errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from flax import nnx

import zeta.nn
from zeta import convert
from zeta.flax import MixtureOfSoftmaxes

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

K, D, V = 3, 8, 11


@pytest.fixture(params=["separate", "shared"])
def mixture(request):
    return MixtureOfSoftmaxes(K, D, V, decoder=request.param, rngs=nnx.Rngs(0))


def draw(*leading):
    return jax.random.normal(jax.random.key(1), (*leading, D))


OPTIONS = ({}, {"reduction": "none", "label_smoothing": 0.1}, {"reduction": "sum"})


@nnx.jit
def everything(mixture, given):
    """What it says of several inputs, in one program: XLA takes a tenth of a second for any."""
    return [
        {
            "call": mixture(x, True),
            "alone": mixture(x),
            "log_prob": mixture.log_prob(x),
            "losses": [mixture.loss(x, target, **options) for options in OPTIONS],
            "topk": mixture.topk(x, 4),
            "at_target": mixture.log_prob(x, target),
        }
        for x, target in given
    ]


def test_equals_pytorchs(mixture):
    twin = zeta.nn.MixtureOfSoftmaxes(K, D, V, decoder=mixture.decoder)
    convert.copy_weights(mixture, twin)
    given = [(draw(*leading), np.zeros(leading, int)) for leading in ((), (2, 1, 3), (0,))]
    for (x, target), ours in zip(given, everything(mixture, given), strict=True):
        same, target = torch.tensor(np.asarray(x)), torch.tensor(target)
        for one, other in zip(ours["call"], twin(same, need_weights=True), strict=True):
            np.testing.assert_allclose(one, other.detach(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours["alone"], ours["call"][0])
        log_prob = ours["log_prob"]
        np.testing.assert_allclose(log_prob, twin.log_prob(same).detach(), rtol=1e-5)
        for options, loss in zip(OPTIONS, ours["losses"], strict=True):
            expected = twin.loss(same, target, **options).detach()
            np.testing.assert_allclose(loss, expected, rtol=1e-5)
        values, indices = ours["topk"]
        np.testing.assert_allclose(values, jnp.take_along_axis(log_prob, indices, -1))
        expected = twin.log_prob(same, target).detach()
        np.testing.assert_allclose(ours["at_target"], expected, rtol=1e-5)


def test_every_weight_is_drawn_with_a_key_of_its_own(mixture):
    bound = 1 / np.sqrt(D)
    drawn = jax.tree.leaves(nnx.state(mixture, nnx.Param))
    firsts = [w.ravel()[0].item() for w in drawn]
    assert len(set(firsts)) == len(drawn)
    assert all((abs(w) <= bound).all() for w in drawn)
    assert np.std(np.asarray(mixture.weight[...])) == pytest.approx(bound / np.sqrt(3), rel=0.15)
    again = MixtureOfSoftmaxes(K, D, V, decoder=mixture.decoder, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(again.weight[...], mixture.weight[...])


def test_it_trains(mixture):
    x = draw(64)
    target = jnp.argmax(x[:, :5], -1)

    @nnx.jit
    def step(mixture):
        loss, gradients = nnx.value_and_grad(lambda m: m.loss(x, target))(mixture)
        state = jax.tree.map(lambda p, g: p - 2 * g, nnx.state(mixture, nnx.Param), gradients)
        nnx.update(mixture, state)
        return loss

    losses = [step(mixture).item() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_samples_follow_the_distribution(mixture):
    """χ² at a level of one in a thousand; the seed is fixed."""
    x, n = 2 * draw(2), 20_000
    drawn = mixture.sample(x, n, key=jax.random.key(3))
    assert drawn.shape == (2, n)
    for row, p in zip(np.asarray(drawn), np.asarray(mixture(x), np.float64), strict=True):
        counts = np.bincount(row, minlength=V)
        assert scipy.stats.chisquare(counts, n * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize(
    "options", [{"temperature": 0.5}, {"temperature": 2.0, "top_k": 6, "top_p": 0.8}], ids=str
)
def test_samples_follow_the_options(mixture, options):
    """χ² of two samples at a level of one in a thousand: PyTorch's twin's is the other."""
    twin = zeta.nn.MixtureOfSoftmaxes(K, D, V, decoder=mixture.decoder)
    convert.copy_weights(mixture, twin)
    x, n = 4 * draw(2), 20_000
    ours = jax.jit(lambda x, key: mixture.sample(x, n, key=key, **options))(x, jax.random.key(3))
    theirs = twin.sample(torch.tensor(np.asarray(x)), n, **options)
    for rows in zip(np.asarray(ours), theirs.numpy(), strict=True):
        counts = np.stack([np.bincount(row, minlength=V) for row in rows])
        counts = counts[:, counts.any(0)]
        assert counts.shape[1] > 1
        assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def test_cold_samples_are_the_most_probable_class(mixture):
    @jax.jit
    def drawn(x, key):
        cold = ({"temperature": 1e-300}, {"top_k": 1}, {"top_p": 0.0})
        return mixture.topk(x, 1)[1], [mixture.sample(x, 5, key=key, **o) for o in cold]

    best, samples = drawn(100 * draw(6), jax.random.key(0))
    for sample in samples:
        np.testing.assert_array_equal(sample, np.broadcast_to(best, (6, 5)))


def test_tied_weights_are_the_embeddings_own():
    embedding = nnx.Embed(V, D, rngs=nnx.Rngs(0))
    mixture = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False, rngs=nnx.Rngs(1))
    mixture.tie_weights(embedding)
    assert mixture.weight is embedding.embedding
    with pytest.raises(ValueError, match="needs decoder='shared'"):
        MixtureOfSoftmaxes(K, D, V, rngs=nnx.Rngs(0)).tie_weights(embedding)
    with pytest.raises(ValueError, match=r"shape \(11, 8\), got \(12, 8\)"):
        mixture.tie_weights(nnx.Embed(V + 1, D, rngs=nnx.Rngs(0)))


def test_dropout_acts_in_training_only():
    mixture = MixtureOfSoftmaxes(K, D, V, dropout=0.5, rngs=nnx.Rngs(0))
    x = draw(4)
    assert not np.array_equal(mixture(x), mixture(x))
    mixture.eval()
    np.testing.assert_array_equal(mixture(x), mixture(x))


def test_without_dropout_one_stream_of_keys_is_enough():
    @nnx.vmap
    def stacked(key):
        return MixtureOfSoftmaxes(K, D, V, rngs=nnx.Rngs(params=key))

    assert stacked(jax.random.split(jax.random.key(0), 5)).weight.shape == (5, K, V, D)
    with pytest.raises(KeyError, match="No RngStream named 'dropout'"):
        MixtureOfSoftmaxes(K, D, V, dropout=0.5, rngs=nnx.Rngs(params=0))


def test_bfloat16():
    mixture = MixtureOfSoftmaxes(K, D, V, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = draw(4).astype(jnp.bfloat16)
    answers = nnx.jit(lambda m, x: (m(x), m.log_prob(x), m.loss(x, jnp.arange(4))))(mixture, x)
    assert {a.dtype for a in answers} == {jnp.dtype(jnp.bfloat16)}


def test_bad_input_is_named(mixture):
    rngs = nnx.Rngs(0)
    for sizes, message in [
        ((0, D, V), "num_mixtures must be at least 1, got 0"),
        ((K, -1, V), "input_size must be at least 1, got -1"),
        ((K, D, 0), "num_classes must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            MixtureOfSoftmaxes(*sizes, rngs=rngs)
    with pytest.raises(ValueError, match="decoder must be one of"):
        MixtureOfSoftmaxes(K, D, V, decoder="both", rngs=rngs)
    with pytest.raises(ValueError, match=r"dropout must be between 0 and 1, got 1\.5"):
        MixtureOfSoftmaxes(K, D, V, dropout=1.5, rngs=rngs)
    good = draw(4)
    with pytest.raises(IndexError, match="target -100 is out of range for 11 classes"):
        mixture.log_prob(good, jnp.full(4, -100))
    with pytest.raises(ValueError, match=r"x must have shape \(…, 8\), got \(4, 9\)"):
        mixture(jnp.ones((4, 9)))
    with pytest.raises(TypeError, match="x must be a floating-point array"):
        mixture(jnp.ones((4, D), int))
    with pytest.raises(IndexError, match="target 11 is out of range for 11 classes"):
        mixture.loss(good, jnp.array([0, 1, 2, 11]))
    with pytest.raises(ValueError, match=r"target must have the input's leading dimensions \(4,\)"):
        mixture.loss(good, jnp.array([0, 1]))
    with pytest.raises(ValueError, match="k must be between 1 and 11, got 12"):
        mixture.topk(good, 12)
    for options, message in [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"temperature": 0}, r"got 0; topk\(x, 1\) gives the most probable class"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 1.5}, "top_p must be between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture.sample(good, key=jax.random.key(0), **options)
