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
from cases import fraction
from zeta.jax import mixture_cross_entropy

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

N, K, D, V = 6, 3, 4, 8
TARGET = np.array([0, 6, -100, 3, 3, 1])
CLASS_WEIGHT = np.linspace(0.2, 2.0, V)
# Of each option: reduction, label smoothing and class weights.
VALUES = (("none", "mean", "sum"), (0.0, 0.1), (None, CLASS_WEIGHT))


def options_of(reduction, smoothing, class_weight):
    return {"reduction": reduction, "label_smoothing": smoothing, "class_weight": class_weight}


OPTIONS = [options_of(*values) for values in itertools.product(*VALUES)]
CASES = [
    (decoder, options_of(*values))
    for decoder, *values in fraction(2, ("shared", "separate"), *VALUES)
]
# Every value of every option once, in both decoders.
A_FEW = [("shared", OPTIONS[5]), ("separate", OPTIONS[8]), ("separate", OPTIONS[3])]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def case_id(decoder, options):
    weighted = "weighted" if options["class_weight"] is not None else "plain"
    return f"{decoder}-{options['reduction']}-{options['label_smoothing']}-{weighted}"


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


def with_gradients(loss, arrays):
    value, pull_back = jax.vjp(loss, arrays)
    return value, pull_back(upstream(value.shape))[0]


def of_each(cases, function):
    """``function(arrays, options)`` of several cases, given every case's arrays.

    It is compiled as one program: XLA takes a tenth of a second for any.
    """
    return jax.jit(
        lambda given: [
            function(arrays, options) for arrays, (_, options) in zip(given, cases, strict=True)
        ]
    )


@functools.cache
def with_every_option():
    five_tokens = 5 * K * V * 8  # six tokens in chunks of three

    def one(arrays, options):
        return with_gradients(lambda a: loss_of(a, max_chunk_bytes=five_tokens, **options), arrays)

    return of_each(CASES, one)([inputs(decoder) for decoder, _ in CASES])


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: case_id(*CASES[n]))
def test_equals_pytorchs(number):
    decoder, options = CASES[number]
    expected, d_expected = by_pytorch(inputs(decoder), upstream, **options)
    loss, gradients = with_every_option()[number]
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for ours, theirs in zip(jax.tree.leaves(gradients), d_expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_chunks_change_nothing():
    """Five tokens: the last chunk is filled up with ignored ones, or there is one chunk."""

    def total(arrays, size, options):
        return jnp.sum(loss_of(arrays, TARGET[:5], max_chunk_bytes=size, **options))

    def by_size(arrays, options):
        sizes = [None, *(tokens * K * V * 8 for tokens in (2, 5))]
        return [jax.value_and_grad(total)(arrays, size, options) for size in sizes]

    # The last: a filled-up chunk's gradients with label smoothing.
    cases = [*A_FEW, ("shared", OPTIONS[10])]
    given = [inputs(decoder, n=5) for decoder, _ in cases]
    for whole, *chunked in of_each(cases, by_size)(given):
        for each in chunked:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), each, whole)


@pytest.mark.slow
def test_every_derivative_of_second_order():
    loss = lambda a, options: loss_of(a, max_chunk_bytes=2 * K * V * 8, **options)
    given = [inputs(decoder) for decoder, _ in A_FEW]
    check_grads(of_each(A_FEW, loss), (given,), order=2, modes=("fwd", "rev"))


def test_no_target_at_all():
    """The mean over nothing is NaN, the sum zero, and gradients are zero."""

    @jax.jit
    def losses(arrays):
        target = np.full(arrays[0].shape[0], -100)
        of = lambda reduction: jax.value_and_grad(loss_of)(arrays, target, reduction=reduction)
        return of("mean"), of("sum")

    for n in (0, N):
        for (loss, gradients), expected in zip(losses(inputs(n=n)), (np.nan, 0.0), strict=True):
            np.testing.assert_array_equal(loss, expected)
            assert all((g == 0).all() for g in jax.tree.leaves(gradients))
    # The targets' values are looked at where they are known.
    assert loss_of(inputs(n=0), np.full(0, -100), reduction="sum") == 0


def test_far_apart_logits_stay_finite():
    hidden, log_prior, weight, _ = (a.astype(np.float32) for a in inputs())
    loss, gradients = jax.jit(jax.value_and_grad(loss_of))((hidden * 1e3, log_prior, weight, None))
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
    (loss, gradients), expected = jax.jit(
        lambda half, exact: (jax.value_and_grad(loss_of)(half), loss_of(exact))
    )(half, exact)
    assert {a.dtype for a in (loss, *gradients)} == {jnp.dtype(dtype)}
    # What rounding the logits alone to this dtype does, twice over.
    largest = jnp.abs(exact[0] @ exact[2].T + exact[3]).max()
    assert abs(loss - expected) <= 2 * jnp.finfo(dtype).eps * jnp.maximum(largest, expected)


def test_chunks_add_up_half_precision_gradients_in_float32():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden = jax.random.normal(keys[0], (128, 2, 8), jnp.bfloat16)
    weight = jax.random.normal(keys[1], (16, 8), jnp.bfloat16)
    target = jax.random.randint(keys[2], (128,), 0, 16)

    def gradient(hidden, weight, dtype, chunk):
        arrays = (hidden.astype(dtype), jnp.zeros((128, 2)), weight.astype(dtype), None)
        gradients = jax.grad(loss_of)(arrays, target, reduction="sum", max_chunk_bytes=chunk)
        return gradients[2].astype(jnp.float64)

    exact, whole, chunked = jax.jit(
        lambda *a: (
            gradient(*a, jnp.float64, None),
            gradient(*a, jnp.bfloat16, None),
            gradient(*a, jnp.bfloat16, 1),
        )
    )(hidden, weight)
    assert jnp.abs(chunked - exact).max() <= 2 * jnp.abs(whole - exact).max()


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

    bound = peak(direct) / 16
    for options in ({}, {"reduction": "sum"}, {"label_smoothing": 0.1}):
        assert peak(mixture_cross_entropy, max_chunk_bytes=2**20, **options) <= bound
    each = peak(lambda *a: mixture_cross_entropy(*a, reduction="none", max_chunk_bytes=2**20).sum())
    assert each <= bound


def test_a_frozen_weight_costs_no_gradient():
    hidden, log_prior, weight, _ = inputs()

    def products(wanted):
        step = jax.jit(jax.grad(lambda a, w: loss_of((*a, w, None)), argnums=wanted))
        return step.lower((hidden, log_prior), weight).compile().as_text().count("dot(")

    assert products(0) < products((0, 1))


def sharded(loss, devices, **specs):
    mesh = Mesh(jax.devices("cpu")[:devices], ("classes",))
    return jax.jit(jax.shard_map(loss, mesh=mesh, **specs))


def test_sharded_over_eight_devices_equals_whole():
    cases = A_FEW + [("shared", options) for options in OPTIONS[::6]]
    whole, by_class = PartitionSpec(), PartitionSpec("classes")
    specs = {  # of weight and bias
        "shared": (PartitionSpec("classes", None), by_class),
        "separate": (PartitionSpec(None, "classes", None), PartitionSpec(None, "classes")),
    }

    def both(arrays, options):
        options = {"max_chunk_bytes": 2 * K * 8} | options
        decoder = "shared" if arrays[2].ndim == 2 else "separate"
        split = sharded(
            lambda arrays, class_weight: loss_of(
                arrays, axis_name="classes", **options | {"class_weight": class_weight}
            ),
            8,
            in_specs=((whole, whole, *specs[decoder]), by_class),
            out_specs=whole,
        )
        return (
            with_gradients(lambda a: split(a, options["class_weight"]), arrays),
            with_gradients(lambda a: loss_of(a, **options), arrays),
        )

    given = [inputs(decoder) for decoder, _ in cases]
    for case, (got, expected) in zip(cases, of_each(cases, both)(given), strict=True):
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-12, err_msg=f"{case}")
        for ours, theirs in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12, err_msg=f"{case}")


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

    @jax.jit
    def each_and_whole(hidden):
        total = lambda h: loss_of((h, log_prior, weight, None), target, reduction="sum")
        return jax.vmap(jax.grad(loss))(hidden, log_prior, target), jax.grad(total)(hidden)

    np.testing.assert_allclose(*each_and_whole(hidden), rtol=1e-12)


def test_targets_of_any_integer_type():
    draw = np.random.default_rng(0).normal
    arrays = (draw(size=(2, K, D)), np.zeros((2, K)), draw(size=(200, D)), None)
    target = np.array([1, 100])
    types = ["uint8", "int8", "int16", "int32"]
    losses = jax.jit(lambda a, *targets: [loss_of(a, t, reduction="none") for t in targets])
    expected, *narrow = losses(arrays, target, *map(target.astype, types))
    for dtype, loss in zip(types, narrow, strict=True):
        np.testing.assert_array_equal(loss, expected, err_msg=dtype)
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
