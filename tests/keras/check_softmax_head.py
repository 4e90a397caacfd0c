"""A formula between logits and loss on Keras, run by test_backends.py on each backend."""

import json

import keras
import numpy as np
import pytest
import torch
from check_mixture import TARGET, D, K, N, V, inputs
from differentiate import compiled, values_and_gradients
from keras import ops

import zeta.nn
import zeta.ops
from zeta import activations, convert, formula, math as zm
from zeta.keras import FormulaLayer, MixtureOfSoftmaxes, SoftmaxHead, mixture_cross_entropy

DRAW = np.random.default_rng(1)
SOFT = DRAW.dirichlet(np.ones(3), N).astype("float32")
CLASSES = np.where(TARGET[:, None] == -100, -100, DRAW.integers(V, size=(N, 3)))
WEIGHT = np.array([0, 1, 2, 0.5, 1, 1, 3], "float32")
CLASS_WEIGHT = np.linspace(0.2, 2.0, V).astype("float32")
CASES = [
    (TARGET, {}),
    (TARGET, {"reduction": "none", "token_weight": WEIGHT, "z_loss": 0.1}),
    (TARGET, {"normalizer": 77.0, "label_smoothing": 0.1, "class_weight": CLASS_WEIGHT}),
    (CLASSES, {"target_probability": SOFT, "reduction": "sum"}),
]
OUTPUTS = ("token_loss", "logsumexp", "entropy", "prediction")


def as_torch(options):
    return {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def test_every_option_equals_float64():
    """Loss and all gradients, the cap's too, in chunks of three tokens."""

    def loss_of(target, options):
        return lambda hidden, log_prior, weight, bias, cap: mixture_cross_entropy(
            hidden,
            log_prior,
            weight,
            ops.convert_to_tensor(target),
            bias,
            logits="softcap",
            logit_parameters={"cap": cap},
            max_chunk_bytes=3 * K * V * 4,
            **options,
        )

    arrays = [*inputs(), np.array(2.0, "float32")]
    answers = values_and_gradients([(loss_of(*case), arrays) for case in CASES])
    for (target, options), (value, gradients) in zip(CASES, answers, strict=True):
        exact = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
        hidden, log_prior, weight, bias, cap = exact
        wide = {k: v.double() if torch.is_tensor(v) else v for k, v in as_torch(options).items()}
        wide |= {"logits": activations.softcap, "logit_parameters": [cap]}
        given = (hidden, log_prior, weight, torch.from_numpy(target), bias)
        if "target_probability" in wide:
            wide["target_probability"] /= wide["target_probability"].sum(1, keepdim=True)
        expected = zeta.ops.mixture_cross_entropy(*given, **wide)
        np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
        for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), exact), strict=True):
            scale = theirs.abs().max().item()
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * max(1, scale))


def heads(logits):
    return [
        SoftmaxHead(D, V, logits=logits),
        MixtureOfSoftmaxes(K, D, V, decoder="shared", logits=logits),
    ]


@pytest.mark.parametrize("number", [0, 1], ids=["head", "mixture"])
def test_every_method_is_pytorchs(number):
    cap = activations.softcap.with_defaults(cap=0.5)
    head = heads(cap)[number]
    head.build((None, D))
    twin = [
        zeta.nn.SoftmaxHead(D, V, logits=cap),
        zeta.nn.MixtureOfSoftmaxes(K, D, V, decoder="shared", logits=cap),
    ][number]
    convert.copy_weights(head, twin)
    x = np.random.default_rng(0).normal(size=(N, D)).astype("float32")

    @compiled
    def everything():
        losses = [head.loss(x, target, **options) for target, options in CASES]
        target = np.arange(N)
        found = head.loss(x, TARGET, outputs=OUTPUTS)[1]
        return [head(x), head.log_prob(x), head.log_prob(x, target), *losses, *found]

    same = torch.tensor(x)
    losses = [twin.loss(same, torch.from_numpy(t), **as_torch(options)) for t, options in CASES]
    expected = [twin(same), twin.log_prob(same), twin.log_prob(same, torch.arange(N)), *losses]
    expected += twin.loss(same, torch.from_numpy(TARGET), outputs=OUTPUTS)[1]
    for ours, theirs in zip(everything(), expected, strict=True):
        ours = ops.convert_to_numpy(ours)
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Bent(FormulaLayer):
    """A formula of one's own, saved as a layer of a class of its own."""

    def __init__(self, **kwargs):
        super().__init__(bent, **kwargs)

    def _arguments(self):
        return {}


@formula(slope=0.5)
def bent(x, slope):
    return zm.tanh(x) + slope * x


@pytest.mark.parametrize("number", [0, 1], ids=["head", "mixture"])
def test_it_is_saved_and_loaded(number, tmp_path):
    """By the catalogue's name, with its parameters' values, or as a layer of one's own."""
    kinds = ["sigsoftmax", activations.softcap.with_defaults(cap=0.5)]
    kinds += [FormulaLayer("softcap", {"cap": 0.7}, learnable=True), Bent()]
    x = keras.Input((D,))
    given = [heads(logits)[number] for logits in kinds]
    model = keras.Model(x, [head(x) for head in given])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    batch = np.random.default_rng(0).normal(size=(3, D)).astype("float32")
    for ours, theirs in zip(loaded(batch), model(batch), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    json.dumps(given[0].get_config())
    assert "logits.cap" in convert.weights(given[2])
    with pytest.raises(ValueError, match=r"bent\(x, slope=0.5\) is not in zeta's catalogue"):
        SoftmaxHead(D, V, logits=bent).get_config()


def test_bad_input_is_named():
    head, x = SoftmaxHead(D, V), np.ones((3, D), "float32")
    soft = {"target_probability": np.full((3, 2), 0.6, "float32")}
    pairs = np.zeros((3, 2), int)
    for call, error, message in [
        (lambda: SoftmaxHead(0, V), ValueError, "SoftmaxHead: input_size must be at least 1"),
        (lambda: SoftmaxHead(D, V, logits=ops.tanh), TypeError, "SoftmaxHead: logits must be a f"),
        (
            lambda: SoftmaxHead(D, V, logits=FormulaLayer("softcap", shared_axes=[])),
            ValueError,
            r"one value of each parameter, got a layer with shared_axes=\[\]",
        ),
        (lambda: head(x[:, 1:]), ValueError, r"SoftmaxHead: x must have shape \(…, 4\)"),
        (lambda: head.loss(x, np.arange(4)), ValueError, "target must have the input's leading"),
        (lambda: head.loss(x, np.arange(3) + V), IndexError, "target 8 is out of range"),
        (lambda: head.loss(x, pairs, **soft), ValueError, r"token 0 the least is 0\.6.* sum 1\.2"),
        (lambda: head.loss(x, np.arange(3), normalizer=0), ValueError, "normalizer must be pos"),
        (lambda: head.loss(x, np.arange(3), outputs="entropy"), ValueError, "outputs must be"),
        (lambda: head.loss(x, np.arange(3), logits=bent), TypeError, r"SoftmaxHead\.loss\(\) got"),
    ]:
        with pytest.raises(error, match=message):
            call()
