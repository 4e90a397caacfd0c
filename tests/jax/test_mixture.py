"""The mixture's loss on JAX arrays: PyTorch's numbers, in chunks, on several devices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, PartitionSpec
from jax.test_util import check_grads

import zeta.ops
from zeta.jax import mixture_cross_entropy

N, K, D, V = 6, 3, 4, 8
TARGET = np.array([0, 6, -100, 3, 3, 1])
CLASS_WEIGHT = np.linspace(0.2, 2.0, V)
OPTIONS = [
    {"reduction": reduction, "label_smoothing": smoothing, "class_weight": class_weight}
    for reduction, smoothing, class_weight in itertools.product(
        ("none", "mean", "sum"), (0.0, 0.1), (None, CLASS_WEIGHT)
    )
]
# Every value of every option once, in both decoders.
A_FEW = [("shared", OPTIONS[5]), ("separate", OPTIONS[8]), ("separate", OPTIONS[3])]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def option_id(options):
    weighted = "weighted" if options["class_weight"] is not None else "plain"
    return f"{options['reduction']}-{options['label_smoothing']}-{weighted}"


def inputs(decoder="shared", bias=True, n=N):
    """(hidden, log_prior, weight, bias) as NumPy arrays."""
    draw = np.random.default_rng(0).normal
    per_mixture = () if decoder == "shared" else (K,)
    prior = draw(size=(n, K))
    log_prior = prior - np.log(np.exp(prior).sum(1, keepdims=True))
    offset = draw(size=(*per_mixture, V)) if bias else None
    return draw(size=(n, K, D)), log_prior, draw(size=(*per_mixture, V, D)), offset


def loss_of(arrays, target=TARGET, **options):
    hidden, log_prior, weight, bias = arrays
    return mixture_cross_entropy(hidden, log_prior, weight, target, bias, **options)


def by_pytorch(arrays, upstream, target=TARGET, **options):
    """zeta.ops' loss and gradients."""
    if options.get("class_weight") is not None:
        options["class_weight"] = torch.from_numpy(options["class_weight"])
    tensors = [None if a is None else torch.tensor(a, requires_grad=True) for a in arrays]
    hidden, log_prior, weight, bias = tensors
    loss = zeta.ops.mixture_cross_entropy(
        hidden, log_prior, weight, torch.from_numpy(target), bias, **options
    )
    given = [t for t in tensors if t is not None]
    gradients = torch.autograd.grad(loss, given, torch.from_numpy(upstream(tuple(loss.shape))))
    return loss.detach().numpy(), [g.numpy() for g in gradients]


def upstream(shape):
    """One weight per token with reduction "none"."""
    return np.asarray(np.random.default_rng(1).normal(size=shape))


@functools.cache
def with_every_option(decoder):
    """Losses and gradients, compiled as one program: XLA takes a tenth of a second for any."""
    five_tokens = 5 * K * V * 8  # six tokens in chunks of three

    def one(arrays, options):
        loss = lambda a: loss_of(a, max_chunk_bytes=five_tokens, **options)
        value, pull_back = jax.vjp(loss, arrays)
        return value, pull_back(upstream(value.shape))[0]

    return jax.jit(lambda arrays: [one(arrays, options) for options in OPTIONS])(inputs(decoder))


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=lambda n: option_id(OPTIONS[n]))
@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_equals_pytorchs(decoder, number):
    expected, d_expected = by_pytorch(inputs(decoder), upstream, **OPTIONS[number])
    loss, gradients = with_every_option(decoder)[number]
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(gradients), d_expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 4, 5])
@pytest.mark.parametrize(("decoder", "options"), A_FEW)
def test_chunks_change_nothing(decoder, options, tokens):
    """Five tokens: the last chunk is filled up with ignored ones, or there is one chunk."""
    arrays = inputs(decoder, n=5)

    def total(arrays, size):
        return jnp.sum(loss_of(arrays, TARGET[:5], max_chunk_bytes=size, **options))

    whole, chunked = (
        jax.value_and_grad(total)(arrays, size) for size in (None, tokens * K * V * 8)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), chunked, whole)


@pytest.mark.parametrize(("decoder", "options"), A_FEW)
def test_every_derivative_of_second_order(decoder, options):
    arrays = inputs(decoder)
    check_grads(
        jax.jit(lambda a: loss_of(a, max_chunk_bytes=2 * K * V * 8, **options)),
        (arrays,),
        order=2,
        modes=("fwd", "rev"),
    )


@pytest.mark.parametrize("n", [0, N])
def test_no_target_at_all(n):
    """The mean over nothing is NaN, the sum zero, and gradients are zero."""
    target = np.full((n,), -100)
    for reduction, expected in (("mean", np.nan), ("sum", 0.0)):
        loss, gradients = jax.value_and_grad(loss_of)(inputs(n=n), target, reduction=reduction)
        np.testing.assert_array_equal(loss, expected)
        assert all((g == 0).all() for g in jax.tree.leaves(gradients))


def test_far_apart_logits_stay_finite():
    hidden, log_prior, weight, _ = (a.astype(np.float32) for a in inputs())
    loss, gradients = jax.value_and_grad(loss_of)((hidden * 1e3, log_prior, weight, None))
    assert all(jnp.isfinite(a).all() for a in (loss, *jax.tree.leaves(gradients)))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_ignored_token_cannot_spoil_gradients(smoothing):
    """Its mixtures are impossible here, and so is class 0, which stands in for its target."""
    hidden, log_prior, weight, bias = inputs()
    log_prior[2] = -np.inf
    bias[0] = 0.0 if smoothing else -np.inf
    target = np.where(TARGET == 0, 1, TARGET)
    loss, gradients = jax.value_and_grad(loss_of)(
        (hidden, log_prior, weight, bias), target, label_smoothing=smoothing
    )
    assert all(jnp.isfinite(a).all() for a in (loss, *jax.tree.leaves(gradients)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype):
    exact = [jnp.asarray(a, dtype).astype(jnp.float64) for a in inputs()]
    half = [a.astype(dtype) for a in exact]
    loss, gradients = jax.value_and_grad(loss_of)(half)
    assert {a.dtype for a in (loss, *gradients)} == {jnp.dtype(dtype)}
    # What rounding the logits alone to this dtype does, twice over.
    largest = jnp.abs(exact[0] @ exact[2].T + exact[3]).max()
    expected = loss_of(exact)
    assert abs(loss - expected) <= 2 * jnp.finfo(dtype).eps * jnp.maximum(largest, expected)


def test_chunks_add_up_half_precision_gradients_in_float32():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (128, 2, 8), jnp.bfloat16)
    weight = jax.random.normal(keys[1], (16, 8), jnp.bfloat16)
    target = jax.random.randint(keys[2], (128,), 0, 16)

    def gradient(dtype, chunk):
        arrays = (hidden.astype(dtype), jnp.zeros((128, 2)), weight.astype(dtype), None)
        gradients = jax.grad(loss_of)(arrays, target, reduction="sum", max_chunk_bytes=chunk)
        return gradients[2].astype(jnp.float64)

    exact = gradient(jnp.float64, None)
    whole, chunked = (jnp.abs(gradient(jnp.bfloat16, c) - exact).max() for c in (None, 1))
    assert chunked <= 2 * whole


def test_all_logits_are_never_in_memory():
    """At an eighth of the size that docs/frameworks.md reports: against the direct computation."""
    N, K, D, V = 256, 4, 64, 8192
    shapes = [(N, K, D), (N, K), (V, D)]
    arrays = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    target = jax.ShapeDtypeStruct((N,), jnp.int32)

    def direct(hidden, log_prior, weight, target):
        logits = jnp.einsum("nkd,vd->nkv", hidden, weight)
        log_prob = jax.nn.logsumexp(log_prior[..., None] + jax.nn.log_softmax(logits), axis=1)
        return -jnp.take_along_axis(log_prob, target[:, None], 1).mean()

    def peak(loss, **options):
        step = jax.jit(lambda *a: jax.value_and_grad(loss, argnums=(0, 1, 2))(*a, **options))
        return step.lower(*arrays, target).compile().memory_analysis().temp_size_in_bytes

    for options in ({}, {"reduction": "sum"}, {"label_smoothing": 0.1}):
        ours = peak(mixture_cross_entropy, max_chunk_bytes=2**20, **options)
        assert ours <= peak(direct) / 16
    each = peak(lambda *a: mixture_cross_entropy(*a, reduction="none", max_chunk_bytes=2**20).sum())
    assert each <= peak(direct) / 16


def test_a_frozen_weight_costs_no_gradient():
    hidden, log_prior, weight, _ = inputs()

    def products(wanted):
        step = jax.jit(jax.grad(lambda a, w: loss_of((*a, w, None)), argnums=wanted))
        return step.lower((hidden, log_prior), weight).compile().as_text().count("dot(")

    assert products(0) < products((0, 1))


def sharded(loss, devices, **specs):
    mesh = Mesh(jax.devices("cpu")[:devices], ("classes",))
    return jax.jit(jax.shard_map(loss, mesh=mesh, **specs))


@pytest.mark.parametrize(("decoder", "options"), A_FEW + [("shared", o) for o in OPTIONS[::3]])
def test_sharded_over_eight_devices_equals_whole(decoder, options):
    hidden, log_prior, weight, bias = inputs(decoder)
    options = {"max_chunk_bytes": 2 * K * 8} | options
    options["class_weight"] = weights = options["class_weight"]
    whole = PartitionSpec()
    by_class = PartitionSpec("classes")
    of_weight, of_bias = (
        (PartitionSpec("classes", None), by_class)
        if decoder == "shared"
        else (PartitionSpec(None, "classes", None), PartitionSpec(None, "classes"))
    )

    def loss(arrays, class_weight):
        return loss_of(arrays, axis_name="classes", **(options | {"class_weight": class_weight}))

    split = sharded(
        loss,
        8,
        in_specs=((whole, whole, of_weight, of_bias), by_class),
        out_specs=whole,
    )
    arrays = (hidden, log_prior, weight, bias)
    got, pull_back = jax.vjp(lambda a: split(a, weights), arrays)
    expected, expected_pull_back = jax.vjp(lambda a: loss_of(a, **options), arrays)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    upstream = jnp.asarray(np.random.default_rng(1).normal(size=got.shape))
    pairs = zip(
        jax.tree.leaves(pull_back(upstream)),
        jax.tree.leaves(expected_pull_back(upstream)),
        strict=True,
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients_inside_shard_map_equal_whole():
    hidden, log_prior, weight, _ = inputs()
    whole, by_class = PartitionSpec(), PartitionSpec("classes", None)

    def gradients(hidden, weight):
        return jax.grad(
            lambda h, w: loss_of((h, log_prior, w, None), axis_name="classes"), argnums=(0, 1)
        )(hidden, weight)

    split = sharded(gradients, 4, in_specs=(whole, by_class), out_specs=(whole, by_class))
    expected = jax.grad(lambda h, w: loss_of((h, log_prior, w, None)), argnums=(0, 1))
    for ours, theirs in zip(split(hidden, weight), expected(hidden, weight), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
def test_a_weight_that_is_not_split_is_refused(check_vma):
    hidden, log_prior, weight, _ = inputs()
    by_class = PartitionSpec(*([] if check_vma else ["classes", None]))
    split = sharded(
        lambda w: loss_of((hidden, log_prior, w, None), axis_name="classes"),
        2,
        in_specs=by_class,
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    with pytest.raises(ValueError, match="weight is not split along 'classes'"):
        split(weight)


@pytest.mark.parametrize("options", [{}, {"reduction": "none", "label_smoothing": 0.1}], ids=str)
def test_exported_with_any_number_of_tokens(options):
    """Serialised with a symbolic batch and called, in one chunk and in three of four tokens."""

    def step(hidden, log_prior, weight, bias, target):
        def total(arrays):
            return loss_of(arrays, target, max_chunk_bytes=4 * K * V * 8, **options).sum()

        return jax.value_and_grad(total)((hidden, log_prior, weight, bias))

    (n,) = jax.export.symbolic_shape("n")
    decoder = inputs()[2:]
    shapes = [(n, K, D), (n, K), *(a.shape for a in decoder), (n,)]
    dtypes = [float] * 4 + [int]
    symbolic = map(jax.ShapeDtypeStruct, shapes, dtypes)
    program = jax.export.export(jax.jit(step))(*symbolic)
    loaded = jax.export.deserialize(program.serialize())
    for tokens in (1, 11):
        arrays, target = inputs(n=tokens), np.arange(tokens) % V
        loss, gradients = loaded.call(*arrays, target)
        expected, d_expected = by_pytorch(arrays, np.ones, target, **options)
        np.testing.assert_allclose(loss, expected.sum(), rtol=1e-12)
        for ours, theirs in zip(gradients, d_expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_vmap_takes_it():
    hidden, log_prior, weight, _ = inputs()
    target = np.maximum(TARGET, 0)

    def loss(hidden, log_prior, target):
        return loss_of((hidden[None], log_prior[None], weight, None), target[None])

    each = jax.vmap(jax.grad(loss))(hidden, log_prior, target)
    whole = jax.grad(lambda h: loss_of((h, log_prior, weight, None), target, reduction="sum"))(
        hidden
    )
    np.testing.assert_allclose(each, whole, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_targets_of_any_integer_type(dtype):
    draw = np.random.default_rng(0).normal
    arrays = (draw(size=(2, K, D)), np.zeros((2, K)), draw(size=(200, D)), None)
    target = np.array([1, 100])
    loss = loss_of(arrays, target.astype(dtype), reduction="none")
    np.testing.assert_array_equal(loss, loss_of(arrays, target, reduction="none"))
    wraps = loss_of(arrays, np.array([156, 156], np.uint8), reduction="none")
    assert (wraps != 0).all()  # 156 is -100 in eight bits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_traced_target_out_of_range_gives_nan(smoothing):
    loss = jax.jit(lambda t: loss_of(inputs(), t, reduction="none", label_smoothing=smoothing))(
        np.array([0, V, -1, 3, -100, 1])
    )
    np.testing.assert_array_equal(np.isnan(loss), [False, True, True, False, False, False])


def test_bad_input_is_named():
    hidden, log_prior, weight, bias = inputs()

    def call(**changes):
        arguments = {"hidden": hidden, "log_prior": log_prior, "weight": weight}
        return mixture_cross_entropy(**(arguments | {"target": TARGET, "bias": bias} | changes))

    for changes, error, message in [
        ({"target": np.where(TARGET == 6, 8, TARGET)}, IndexError, "target 8 is out of range for"),
        ({"target": np.where(TARGET == 6, -1, TARGET)}, IndexError, "target -1 is out of range"),
        ({"target": TARGET.astype(float)}, TypeError, "target must consist of integer class"),
        ({"target": [0]}, TypeError, "target must consist of integer class .* got list"),
        ({"class_weight": [1.0]}, TypeError, "class_weight must be an array, got list"),
        ({"bias": bias.astype(np.float32)}, TypeError, "hidden and bias must have one dtype"),
        ({"hidden": hidden[:, :0]}, ValueError, "at least one mixture"),
        ({"target": TARGET[:3]}, ValueError, r"target must have shape \(6,\) .* got \(3,\)"),
        ({"hidden": hidden[0]}, ValueError, r"hidden must be \(N, K, D\), got shape \(3, 4\)"),
        ({"hidden": hidden.astype(int)}, TypeError, "hidden must be a floating-point array"),
        ({"weight": weight[:, :3]}, ValueError, r"weight must have shape \(8, 4\)"),
        ({"weight": weight[0]}, ValueError, "weight must have shape"),
        ({"weight": weight.astype("f")}, TypeError, "hidden and weight must have one dtype"),
        ({"log_prior": log_prior.T}, ValueError, r"log_prior must have shape \(6, 3\)"),
        ({"bias": bias[:3]}, ValueError, r"bias must have shape \(8,\)"),
        ({"class_weight": bias[:3]}, ValueError, r"class_weight must have shape \(8,\)"),
        ({"reduction": "average"}, ValueError, "reduction must be one of"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\]"),
        ({"max_chunk_bytes": 0}, ValueError, "max_chunk_bytes must be positive"),
    ]:
        with pytest.raises(error, match=message):
            call(**changes)
