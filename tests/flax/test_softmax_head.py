"""One softmax over a formula of logits as an NNX module: PyTorch's numbers, by every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from flax import nnx

import zeta.nn
from zeta import activations, convert
from zeta.flax import FormulaModule, MixtureOfSoftmaxes, SoftmaxHead

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

K, D, V = 2, 8, 11
CAP = activations.softcap.with_defaults(cap=0.5)


def learned(framework):
    """A cap that learns, in PyTorch or Flax."""
    return (
        CAP.module(learnable=True) if framework is zeta.nn else FormulaModule(CAP, learnable=True)
    )


def pair(kind, learns=False):
    """A head and its twin of PyTorch's, of the same weights, in float32."""
    logits = [learned(f) if learns else CAP for f in (zeta.flax, zeta.nn)]
    if kind == "head":
        ours = SoftmaxHead(D, V, logits=logits[0], rngs=nnx.Rngs(0))
        twin = zeta.nn.SoftmaxHead(D, V, logits=logits[1])
    else:
        ours = MixtureOfSoftmaxes(K, D, V, decoder=kind, logits=logits[0], rngs=nnx.Rngs(0))
        twin = zeta.nn.MixtureOfSoftmaxes(K, D, V, decoder=kind, logits=logits[1])
    convert.copy_weights(ours, twin)
    return ours, twin


def draw(*leading):
    return np.random.default_rng(0).normal(size=(*leading, D)).astype("float32")


def options_of(leading):
    """What both take; arrays as NumPy's."""
    draw = np.random.default_rng(1)
    classes = draw.integers(V, size=(*leading, 3))
    hard, soft = classes[..., 0], draw.dirichlet(np.ones(3), leading).astype("float32")
    weight = draw.uniform(0.5, 2, leading).astype("float32")
    return [
        (hard, {}),
        (hard, {"reduction": "none", "token_weight": weight, "z_loss": 0.1}),
        (hard, {"label_smoothing": 0.1, "class_weight": np.linspace(0.5, 2, V, dtype="float32")}),
        (classes, {"target_probability": soft, "outputs": ("token_loss", "entropy", "prediction")}),
    ]


def tensors(options):
    return {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


@pytest.mark.parametrize("kind", ["head", "separate", "shared"])
def test_every_method_is_pytorchs(kind):
    ours, twin = pair(kind)
    leading = (2, 3)
    x, same = draw(*leading), torch.tensor(draw(*leading))
    cases = options_of(leading)
    target = cases[0][0]

    @nnx.jit
    def everything(head, x):
        answers = (head(x), head.log_prob(x), head.log_prob(x, target), *head.topk(x, 3))
        return answers, [head.loss(x, target, **options) for target, options in cases]

    answers, losses = everything(ours, x)
    expected = (twin(same), twin.log_prob(same), twin.log_prob(same, torch.tensor(target)))
    for found, right in zip(answers, (*expected, *twin.topk(same, 3)), strict=True):
        np.testing.assert_allclose(found, right.detach(), rtol=1e-5, atol=1e-6)
    for loss, (target, options) in zip(losses, cases, strict=True):
        right = twin.loss(same, torch.tensor(target), **tensors(options))
        for found, theirs in zip(jax.tree.leaves(loss), leaves(right), strict=True):
            assert found.shape == theirs.shape
            np.testing.assert_allclose(found, theirs.detach(), rtol=1e-5, atol=1e-6)


def leaves(found):
    """Of a loss, or of a loss and its outputs."""
    return (
        [found] if isinstance(found, torch.Tensor) else [t for t in jax.tree.leaves(tuple(found))]
    )


def test_a_formula_that_learns():
    """Its parameter gets PyTorch's gradient, and travels with the weights."""
    ours, twin = pair("head", learns=True)
    assert set(convert.weights(ours)) == {"weight", "bias", "logits.cap"} == set(twin.state_dict())
    ours.logits.cap[...] = jnp.asarray(0.7)
    convert.copy_weights(ours, twin)
    x, target = draw(4), np.arange(4)
    gradients = nnx.jit(nnx.grad(lambda head: head.loss(x, target)))(ours)
    twin.loss(torch.tensor(x), torch.tensor(target)).backward()
    np.testing.assert_allclose(gradients.logits.cap[...], twin.logits.cap.grad, rtol=1e-5)
    per_channel = FormulaModule(CAP, learnable=True, num_parameters=V)
    with pytest.raises(ValueError, match="one value of each parameter, got one for each of 11"):
        SoftmaxHead(D, V, logits=per_channel, rngs=nnx.Rngs(0))


def test_weights_samples_dropout_and_ties():
    head = SoftmaxHead(D, V, dropout=0.5, bias=False, rngs=nnx.Rngs(0))
    weight = np.asarray(head.weight[...])
    assert (abs(weight) <= D**-0.5).all()
    assert np.std(weight) == pytest.approx(D**-0.5 / 3**0.5, rel=0.15)
    x = 4 * draw(1)
    assert not np.array_equal(head(x), head(x))
    head.eval()
    drawn = head.sample(x, 20_000, key=jax.random.key(3))
    p = np.asarray(head(x), np.float64)[0]
    assert (
        scipy.stats.chisquare(np.bincount(drawn[0], minlength=V), 20_000 * p / p.sum()).pvalue
        > 1e-3
    )
    embedding = nnx.Embed(V, D, rngs=nnx.Rngs(0))
    head.tie_weights(embedding)
    assert head.weight is embedding.embedding
    with pytest.raises(ValueError, match=r"SoftmaxHead: tie_weights needs .* \(11, 8\)"):
        head.tie_weights(nnx.Embed(V + 1, D, rngs=nnx.Rngs(0)))


def test_bad_input_is_named():
    rngs = nnx.Rngs(0)
    head, x = SoftmaxHead(D, V, rngs=rngs), draw(3)
    for call, error, message in [
        (lambda: SoftmaxHead(0, V, rngs=rngs), ValueError, "SoftmaxHead: input_size must be at le"),
        (lambda: SoftmaxHead(D, V, logits=jnp.tanh, rngs=rngs), TypeError, "SoftmaxHead: logits m"),
        (lambda: head(draw(3)[:, 1:]), ValueError, r"SoftmaxHead: x must have shape \(…, 8\)"),
        (lambda: head.loss(x, np.arange(4)), ValueError, "target must have the input's leading"),
        (lambda: head.loss(x, np.arange(3) + V), IndexError, "SoftmaxHead: target 11 is out of"),
        (
            lambda: head.loss(x, np.arange(3), token_weight=jnp.ones(4)),
            ValueError,
            r"token_weight must have shape \(3,\), got \(4,\)",
        ),
        (lambda: head.loss(x, np.arange(3), logits=CAP), TypeError, r"SoftmaxHead\.loss\(\) got"),
        (lambda: head.topk(x, 12), ValueError, "SoftmaxHead: k must be between 1 and 11"),
    ]:
        with pytest.raises(error, match=message):
            call()
