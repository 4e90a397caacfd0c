"""The mixture of softmaxes on Keras, run by test_backends.py on each backend."""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats
import torch
from differentiate import compiled, value_and_gradients, values_and_gradients
from keras import ops

import zeta.nn
import zeta.ops
from cases import fraction
from zeta import convert
from zeta.keras import MixtureOfSoftmaxes, mixture_cross_entropy

N, K, D, V = 7, 3, 4, 8
TARGET = np.array([0, 6, -100, 3, 3, 1, 7])
CLASS_WEIGHT = np.linspace(0.2, 2.0, V).astype("float32")
CASES = [
    (decoder, {"reduction": reduction, "label_smoothing": smoothing, "class_weight": class_weight})
    for decoder, reduction, smoothing, class_weight in fraction(
        2, ("shared", "separate"), ("none", "mean"), (0.0, 0.1), (None, CLASS_WEIGHT)
    )
]


def case_id(decoder, options):
    weighted = "weighted" if options["class_weight"] is not None else "plain"
    return f"{decoder}-{options['reduction']}-{options['label_smoothing']}-{weighted}"


def number(scalar):
    return ops.convert_to_numpy(scalar).item()


def inputs(decoder="shared", n=N):
    draw = np.random.default_rng(0).normal
    per_mixture = () if decoder == "shared" else (K,)
    prior = draw(size=(n, K))
    log_prior = prior - np.log(np.exp(prior).sum(1, keepdims=True))
    arrays = (
        draw(size=(n, K, D)),
        log_prior,
        draw(size=(*per_mixture, V, D)),
        draw(size=(*per_mixture, V)),
    )
    return [a.astype("float32") for a in arrays]


def loss_of(hidden, log_prior, weight, bias, target=TARGET, **options):
    if options.get("class_weight") is not None:
        options["class_weight"] = ops.convert_to_tensor(options["class_weight"])
    target = ops.convert_to_tensor(target)
    return mixture_cross_entropy(hidden, log_prior, weight, target, bias, **options)


@functools.cache
def of_every_case():
    """In chunks of three tokens, the last filled up."""
    three = 3 * K * V * 4
    return values_and_gradients(
        [
            (functools.partial(loss_of, max_chunk_bytes=three, **options), inputs(decoder))
            for decoder, options in CASES
        ]
    )


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: case_id(*CASES[n]))
def test_equals_float64(number):
    value, gradients = of_every_case()[number]
    decoder, options = CASES[number]
    exact = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in inputs(decoder)]
    hidden, log_prior, weight, bias = exact
    class_weight = options["class_weight"]
    expected = zeta.ops.mixture_cross_entropy(
        hidden,
        log_prior,
        weight,
        torch.from_numpy(TARGET),
        bias,
        **options
        | {"class_weight": None if class_weight is None else torch.from_numpy(class_weight)},
    )
    d_expected = torch.autograd.grad(expected.sum(), exact)
    np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
    for ours, theirs in zip(gradients, d_expected, strict=True):
        scale = theirs.abs().max().item()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * max(1, scale))


def test_arrays_and_variables_are_tensors_too():
    tensors = [ops.convert_to_tensor(a) for a in inputs()]
    expected = number(loss_of(*tensors, class_weight=CLASS_WEIGHT))
    for given in (inputs(), [keras.Variable(a) for a in inputs()]):
        hidden, log_prior, weight, bias = given
        loss = mixture_cross_entropy(
            hidden, log_prior, weight, TARGET, bias, class_weight=CLASS_WEIGHT
        )
        assert number(loss) == expected


def test_no_target_at_all():
    cases = [(n, *case) for n in (0, N) for case in (("mean", np.nan), ("sum", 0.0))]
    answers = values_and_gradients(
        [
            (functools.partial(loss_of, target=np.full(n, -100), reduction=r), inputs(n=n))
            for n, r, _ in cases
        ]
    )
    for (*_, expected), (value, gradients) in zip(cases, answers, strict=True):
        np.testing.assert_array_equal(value, expected)
        assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_token_cannot_spoil_gradients(smoothing):
    hidden, log_prior, weight, bias = inputs()
    log_prior[2] = -np.inf
    bias[0] = 0.0 if smoothing else -np.inf
    target = np.where(TARGET == 0, 1, TARGET)
    value, gradients = value_and_gradients(
        lambda *a: loss_of(*a, target=target, label_smoothing=smoothing),
        (hidden, log_prior, weight, bias),
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_bad_input_is_named():
    names = ("hidden", "log_prior", "weight", "bias")
    hidden, log_prior, weight, bias = map(ops.convert_to_tensor, inputs())
    given = dict(zip(names, (hidden, log_prior, weight, bias), strict=True))

    def call(**changes):
        return mixture_cross_entropy(
            **(given | {"target": ops.convert_to_tensor(TARGET)} | changes)
        )

    out_of_range = ops.convert_to_tensor(TARGET + 2)
    for changes, error, message in [
        ({"target": out_of_range}, IndexError, "target (8|-98) is out of range for 8 classes"),
        ({"target": ops.cast(TARGET, "float32")}, TypeError, "of integer class indices"),
        ({"bias": ops.cast(bias, "bfloat16")}, TypeError, "hidden and bias must have one dtype"),
        ({"hidden": hidden[0]}, ValueError, r"hidden must be \(N, K, D\), got shape \(3, 4\)"),
        ({"hidden": hidden[:, :0]}, ValueError, "at least one mixture"),
        ({"weight": weight[:, :3]}, ValueError, r"weight must have shape \(8, 4\)"),
        ({"log_prior": log_prior[:3]}, ValueError, r"log_prior must have shape \(7, 3\)"),
        ({"bias": bias[:3]}, ValueError, r"bias must have shape \(8,\)"),
        ({"reduction": "average"}, ValueError, "reduction must be one of"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\]"),
        ({"max_chunk_bytes": 0}, ValueError, "max_chunk_bytes must be positive"),
    ]:
        with pytest.raises(error, match=message):
            call(**changes)


def memory(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(field + r":\s+(\d+) kB", status)[1]) * 1024


def test_all_logits_are_never_in_memory():
    """The peak of the process's memory since a first small call is this loss's."""
    N, K, D, V = 1024, 4, 8, 16384
    draw = np.random.default_rng(0).normal

    def growth(n):
        arrays = [draw(size=s).astype("float32") for s in ((n, K, D), (n, K), (V, D))]
        loss = lambda h, p, w: loss_of(h, p, w, None, np.arange(n), max_chunk_bytes=2**22)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = memory("VmRSS")
        value_and_gradients(loss, arrays)
        return memory("VmHWM") - before

    growth(8)
    assert growth(N) < N * K * V * 4 / 2


@pytest.fixture(params=["separate", "shared"])
def mixture(request):
    layer = MixtureOfSoftmaxes(K, D, V, decoder=request.param)
    layer.build((None, D))
    return layer


def test_any_leading_dimensions(mixture):
    leading = (2, 1, 3)
    x = np.random.default_rng(0).normal(size=(*leading, D)).astype("float32")
    target = np.random.default_rng(1).integers(0, V, leading)

    @compiled
    def everything():
        return {
            "call": mixture(x, need_weights=True),
            "log_prob": mixture.log_prob(x),
            "at_target": mixture.log_prob(x, target),
            "each": mixture.loss(x, target, reduction="none"),
            "mean": mixture.loss(x, target),
            "topk": mixture.topk(x, 4),
            "sample": mixture.sample(x, 6, seed=0),
        }

    got = keras.tree.map_structure(ops.convert_to_numpy, everything())
    probabilities, weights = got["call"]
    assert probabilities.shape == (*leading, V)
    assert weights.shape == (*leading, K)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    log_prob = got["log_prob"]
    np.testing.assert_allclose(np.exp(log_prob), probabilities, rtol=1e-5)
    expected = -np.take_along_axis(log_prob, target[..., None], -1)[..., 0]
    np.testing.assert_allclose(got["each"], expected, rtol=1e-5)
    np.testing.assert_array_equal(got["at_target"], -got["each"])
    assert got["mean"].item() == pytest.approx(expected.mean(), rel=1e-5)
    values, indices = got["topk"]
    np.testing.assert_allclose(values, np.take_along_axis(log_prob, indices, -1))
    assert (np.diff(values) <= 0).all()
    drawn = got["sample"]
    assert drawn.shape == (*leading, 6)
    assert ((drawn >= 0) & (drawn < V)).all()


@pytest.mark.parametrize(
    "options", [{"temperature": 0.5}, {"temperature": 2.0, "top_k": 6, "top_p": 0.8}], ids=str
)
def test_samples_follow_the_options(mixture, options):
    """χ² of two samples at a level of one in a thousand: PyTorch's twin's is the other."""
    twin = zeta.nn.MixtureOfSoftmaxes(K, D, V, decoder=mixture.decoder)
    convert.copy_weights(mixture, twin)
    x, n = 4 * np.random.default_rng(0).normal(size=(2, D)).astype("float32"), 20_000
    torch.manual_seed(0)
    ours = ops.convert_to_numpy(compiled(lambda: mixture.sample(x, n, seed=1, **options))())
    for rows in zip(ours, twin.sample(torch.tensor(x), n, **options).numpy(), strict=True):
        counts = np.stack([np.bincount(row, minlength=V) for row in rows])
        counts = counts[:, counts.any(0)]
        assert counts.shape[1] > 1
        assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def test_cold_samples_are_the_most_probable_class(mixture):
    x = 100 * np.random.default_rng(0).normal(size=(6, D)).astype("float32")
    cold = ({"temperature": 1e-300}, {"top_k": 1}, {"top_p": 0.0})
    draw = compiled(lambda: [mixture.sample(x, 5, seed=0, **options) for options in cold])
    best = np.broadcast_to(ops.convert_to_numpy(mixture.topk(x, 1)[1]), (6, 5))
    for drawn in draw():
        np.testing.assert_array_equal(ops.convert_to_numpy(drawn), best)


def test_tied_weights_are_the_embeddings_own():
    embedding = keras.layers.Embedding(V, D)
    embedding.build()
    layer = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False)
    layer.tie_weights(embedding)
    assert layer.weight is embedding.embeddings
    x = np.ones((3, D), "float32")
    before = number(layer.loss(x, np.array([0, 1, 2])))
    embedding.embeddings.assign(embedding.embeddings.value * 2)
    assert number(layer.loss(x, np.array([0, 1, 2]))) != before
    with pytest.raises(ValueError, match="needs decoder='shared'"):
        MixtureOfSoftmaxes(K, D, V).tie_weights(embedding)
    with pytest.raises(ValueError, match=r"embedding of shape \(9, 4\), got \(8, 4\)"):
        MixtureOfSoftmaxes(K, D, V + 1, decoder="shared").tie_weights(embedding)


@pytest.mark.parametrize("bias", [True, False])
def test_tied_weights_are_saved_and_loaded(bias, tmp_path):
    tokens = keras.Input((3,), dtype="int32")
    embedding = keras.layers.Embedding(V, D, mask_zero=True)
    features = embedding(tokens)
    head = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=bias)
    head.tie_weights(embedding)
    model = keras.Model(tokens, head(features))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    given = np.array([[1, 2, 0], [3, 0, 0]])
    expected = ops.convert_to_numpy(model(given))
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(given)), expected)
    _, embedding, head = loaded.layers
    head.tie_weights(embedding)
    np.testing.assert_array_equal(ops.convert_to_numpy(loaded(given)), expected)
    untied = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=bias)
    untied.build((None, D))
    untied.set_weights(head.get_weights())


@pytest.mark.parametrize("leading", [(None,), (2, None)])
def test_symbolic_calls(leading):
    x = keras.Input(batch_shape=(*leading, D))
    layer = MixtureOfSoftmaxes(K, D, V)
    probabilities, weights = layer(x, need_weights=True)
    assert layer.compute_output_shape(x.shape) == (*leading, V)
    assert probabilities.shape == (*leading, V)
    assert weights.shape == (*leading, K)
    model = keras.Model(x, [probabilities, weights])
    given = np.random.default_rng(0).normal(size=(2, 3, D)[-len(x.shape) :]).astype("float32")
    for ours, theirs in zip(model(given), layer(given, need_weights=True), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    assert layer(x).shape == (*leading, V)
    with pytest.raises(ValueError, match=r"x must have shape \(…, 4\), got \(None, 9\)"):
        layer(keras.Input((9,)))
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        layer(keras.Input((D,), dtype="int32"))


def test_mixed_precision_keeps_the_loss_in_float32(mixture):
    half = MixtureOfSoftmaxes.from_config(mixture.get_config() | {"dtype": "mixed_bfloat16"})
    half.build((None, D))
    half.set_weights(mixture.get_weights())
    x, target = np.random.default_rng(0).normal(size=(5, D)).astype("float32"), np.arange(5)
    y, loss, expected = compiled(lambda: (half(x), half.loss(x, target), mixture.loss(x, target)))()
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert number(loss) == pytest.approx(number(expected), rel=0.02)


def test_it_trains_by_its_loss():
    """A model whose loss is the layer's: no probabilities, no (N, K, V)."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = keras.layers.Dense(D, activation=zeta.keras.exo)
            self.head = MixtureOfSoftmaxes(2, D, 3)

        def call(self, x):
            return self.head(self.body(x))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return self.head.loss(self.body(x), ops.cast(y, "int32"), max_chunk_bytes=64)

    x = np.random.default_rng(0).normal(size=(96, D)).astype("float32")
    target = x[:, :3].argmax(1)
    model = Model()
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    history = model.fit(x, target, batch_size=20, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, D, V), "num_mixtures must be at least 1, got 0"),
        ((K, -1, V), "input_size must be at least 1, got -1"),
        ((K, D, 0), "num_classes must be at least 1, got 0"),
    ],
)
def test_sizes_below_one_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfSoftmaxes(*arguments)


def test_bad_input_to_the_layer_is_named(mixture):
    good = np.ones((4, D), "float32")
    with pytest.raises(ValueError, match="decoder must be one of"):
        MixtureOfSoftmaxes(K, D, V, decoder="both")
    with pytest.raises(ValueError, match=r"dropout must be between 0 and 1, got 1\.5"):
        MixtureOfSoftmaxes(K, D, V, dropout=1.5)
    with pytest.raises(IndexError, match="target -100 is out of range for 8 classes"):
        mixture.log_prob(good, np.full(4, -100))
    with pytest.raises(ValueError, match=r"x must have shape \(…, 4\), got \(4, 9\)"):
        mixture.loss(np.ones((4, 9), "float32"), np.arange(4))
    with pytest.raises(ValueError, match=r"target must have the input's leading dimensions \(4,\)"):
        mixture.loss(good, np.arange(2))
    with pytest.raises(ValueError, match="k must be between 1 and 8, got 9"):
        mixture.topk(good, 9)
    for options, message in [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"temperature": 0}, r"got 0; topk\(x, 1\) gives the most probable class"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 1.5}, "top_p must be between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture.sample(good, **options)
