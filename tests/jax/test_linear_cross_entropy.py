"""A softmax over a formula of logits on JAX arrays: PyTorch's numbers, and the definition's."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh, PartitionSpec

import zeta.ops
from zeta import activations, formula, math as zm
from zeta.jax import linear_cross_entropy, linear_log_prob, mixture_cross_entropy
from zeta.ops import LossOptions

pytestmark = pytest.mark.usefixtures("xla_compiles_quickly")

N, D, V = 12, 5, 23
OUTPUTS = ("token_loss", "logsumexp", "entropy", "prediction")


@formula(slope=0.7, knee=0.4)
def own(x, slope, knee):
    """A user's own formula."""
    return zm.piecewise(x, positive=lambda x: slope * x, otherwise=lambda x: knee * zm.atan(x))


PHI = {"none": None, "softcap": activations.softcap, "own": own}
draw = np.random.default_rng(0)
TOKEN_WEIGHT = draw.uniform(size=N) * (np.arange(N) % 5 > 0)
CLASS_WEIGHT = draw.uniform(0.2, 2.0, V)
PROBABILITY = draw.dirichlet(np.ones(4), N)
ALL = {"token_weight": TOKEN_WEIGHT, "class_weight": CLASS_WEIGHT}
ALL |= {"z_loss": 1e-3, "label_smoothing": 0.2}
OPTIONS = {
    "plain": {},
    "token_weight": {"token_weight": TOKEN_WEIGHT},
    "z_loss": {"z_loss": 1e-3},
    "normalizer": {"normalizer": np.asarray(77.0)},
    "smoothing": {"label_smoothing": 0.1},
    "class_weight": {"class_weight": CLASS_WEIGHT},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none", "token_weight": TOKEN_WEIGHT},
    "soft": {"target_probability": PROBABILITY, "class_weight": CLASS_WEIGHT},
    "all": ALL,
}
# Every option with a formula; and what differs without one, with one's own, and of a mixture.
CASES = [(1, "softcap", name) for name in OPTIONS]
CASES += [(1, "none", "none"), (1, "none", "all"), (1, "own", "soft"), (1, "own", "all")]
CASES += [(2, "softcap", "soft"), (2, "softcap", "all")]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def target_of(name):
    """Class indices, four of each token with probabilities; some tokens are ignored."""
    draw = np.random.default_rng(1)
    target = draw.integers(V, size=(N, 4) if name == "soft" else N)
    target[[3, 8]] = -100
    return target


def arrays_of(k, phi, name):
    """Everything that gradients flow to, by name."""
    draw = np.random.default_rng(2)
    prior = draw.normal(size=(N, k))
    given = {
        "hidden": draw.normal(size=(N, k, D)),
        "log_prior": prior - np.log(np.exp(prior).sum(1, keepdims=True)),
        "weight": draw.normal(size=(V, D)),
        "bias": draw.normal(size=V),
    }
    given |= {
        key: np.asarray(v / 10) for key, v in (PHI[phi] or own).parameters.items() if PHI[phi]
    }
    return given | {key: v for key, v in OPTIONS[name].items() if isinstance(v, np.ndarray)}


def loss_of(linear, mixture, given, phi, name, target, **more):
    """By this framework's two functions."""
    parameters = {key: given[key] for key in (PHI[phi].parameters if PHI[phi] else ())}
    options = OPTIONS[name] | {key: given[key] for key in OPTIONS[name] if key in given} | more
    options |= {"logits": PHI[phi], "logit_parameters": parameters or None}
    hidden, log_prior, weight, bias = (given[k] for k in ("hidden", "log_prior", "weight", "bias"))
    if hidden.shape[1] == 1:
        return linear(hidden[:, 0], weight, target, bias, **options)
    return mixture(hidden, log_prior, weight, target, bias, **options)


ours = functools.partial(loss_of, linear_cross_entropy, mixture_cross_entropy)
IN_CHUNKS = {"max_chunk_bytes": 5 * V * 8}  # of five tokens, or of two


def naive(given, phi, name, target):
    """Its definition, with all logits in memory."""
    options = OPTIONS[name] | given
    logits = jnp.einsum("nkd,vd->nkv", given["hidden"], given["weight"]) + given["bias"]
    if PHI[phi] is not None:
        logits = PHI[phi](logits, *(given[key] for key in PHI[phi].parameters))
    lse = jax.nn.logsumexp(logits, -1)
    prior = given["log_prior"] if logits.shape[1] > 1 else jnp.zeros((N, 1))
    log_prob = jax.nn.logsumexp((prior - lse)[..., None] + logits, axis=1)
    target = target.reshape(N, -1)
    ignored = (target == -100).all(1) | (OPTIONS[name].get("token_weight", np.ones(N)) == 0)
    q = options.get("target_probability", jnp.ones(target.shape))
    share, class_weight = (
        options.get("label_smoothing", 0),
        options.get("class_weight", jnp.ones(V)),
    )
    one_hot = jax.nn.one_hot(jnp.where(ignored[:, None], 0, target), V)
    mass = (1 - share) * (q[..., None] * one_hot).sum(1) + share / V
    losses = -(mass * class_weight * log_prob).sum(1)
    losses += options.get("z_loss", 0) * (lse**2).mean(1)
    weight = jnp.where(ignored, 0, options.get("token_weight", jnp.ones(N)))
    if options.get("reduction") == "none":
        return weight * losses
    counts = weight if name == "soft" else weight * (one_hot[:, 0] * class_weight).sum(-1)
    divisor = 1 if options.get("reduction") == "sum" else options.get("normalizer", counts.sum())
    return (weight * losses).sum() / divisor


def upstream(shape):
    """One number per token with reduction "none"."""
    return np.asarray(np.random.default_rng(3).normal(size=shape))


@functools.cache
def of_every_case():
    """Values and gradients, as one program: compiling takes the time."""

    def one(given, phi, name):
        loss = lambda given: ours(given, phi, name, target_of(name), **IN_CHUNKS)
        value, pull_back = jax.vjp(loss, given)
        return value, pull_back(upstream(value.shape))[0]

    each = jax.jit(lambda given: [one(g, *c[1:]) for g, c in zip(given, CASES, strict=True)])
    with jax.enable_x64(True):
        return each([arrays_of(*case) for case in CASES])


def by_pytorch(k, phi, name):
    given = {key: torch.tensor(a, requires_grad=True) for key, a in arrays_of(k, phi, name).items()}
    functions = (zeta.ops.linear_cross_entropy, zeta.ops.mixture_cross_entropy)
    loss = loss_of(*functions, given, phi, name, torch.from_numpy(target_of(name)))
    gradients = torch.autograd.grad(
        loss,
        list(given.values()),
        torch.from_numpy(upstream(tuple(loss.shape))),
        allow_unused=True,
        materialize_grads=True,
    )
    return loss.detach().numpy(), dict(zip(given, gradients, strict=True))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: "-".join(map(str, CASES[n])))
def test_equals_pytorch(number):
    """Loss and gradients by every array: of tokens and classes, φ's parameters, the weights too.

    PyTorch's are held to the definition by tests/ops/test_linear_cross_entropy.py.
    """
    value, gradients = of_every_case()[number]
    expected, d_expected = by_pytorch(*CASES[number])
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for key, gradient in gradients.items():
        np.testing.assert_allclose(gradient, d_expected[key], rtol=1e-9, atol=1e-11, err_msg=key)


def test_second_derivatives():
    """Of gradients' inner product with a direction, by everything."""
    given = arrays_of(1, "softcap", "all")
    direction = {key: upstream(a.shape) for key, a in given.items()}

    @jax.jit
    def curvature(given):
        losses = [
            lambda g, f=loss: f(g, "softcap", "all", target_of("all"))
            for loss in (functools.partial(ours, **IN_CHUNKS), naive)
        ]
        return [jax.jvp(jax.grad(loss), (given,), (direction,))[1] for loss in losses]

    for key, (found, right) in ((k, [c[k] for c in curvature(given)]) for k in given):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-11, err_msg=key)


def log_prob_of(given, phi, target, **options):
    hidden, weight, bias = given["hidden"][:, 0], given["weight"], given["bias"]
    parameters = [given[key] for key in PHI[phi].parameters]
    return linear_log_prob(
        hidden,
        weight,
        target,
        bias,
        logits=PHI[phi],
        logit_parameters=parameters,
        entropy=True,
        **options,
    )


def split(function, given, **more):
    """The function over four devices, each with its part of the classes, V filled up to 24."""
    whole, by_class = PartitionSpec(), PartitionSpec("classes")
    specs = {key: by_class if key in ("weight", "bias", "class_weight") else whole for key in given}
    mesh = Mesh(jax.devices("cpu")[:4], ("classes",))
    body = functools.partial(function, axis_name="classes", **more)
    return jax.shard_map(body, mesh=mesh, in_specs=(specs,), out_specs=whole)


def filled_up(given):
    return {
        key: np.concatenate([a, a[:1]]) if key in ("weight", "bias", "class_weight") else a
        for key, a in given.items()
    }


@pytest.mark.parametrize(("k", "name"), [(1, "all"), (2, "soft")])
def test_sharded_equals_whole(k, name):
    """Loss, outputs, log-probabilities, entropies, and gradients by everything."""
    given, target = filled_up(arrays_of(k, "softcap", name)), target_of(name)

    def everything(given, **options):
        loss, found = ours(given, "softcap", name, target, outputs=OUTPUTS, **options)
        each = log_prob_of(given, "softcap", jnp.arange(N), **options) if k == 1 else ()
        return loss + sum((upstream(N) * a).sum() for a in each), (found, each)

    @jax.jit
    def both(given):
        of = lambda function: jax.value_and_grad(function, has_aux=True)(given)
        return of(split(everything, given)), of(everything)

    sharded, whole = map(jax.tree.leaves_with_path, both(given))
    for (path, found), (_, right) in zip(sharded, whole, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-11, err_msg=f"{path}")


@pytest.mark.parametrize("k", [1, 2])
def test_outputs_are_pytorchs(k):
    given, target = arrays_of(k, "own", "all"), target_of("all")
    functions = (zeta.ops.linear_cross_entropy, zeta.ops.mixture_cross_entropy)
    tensors = {key: torch.from_numpy(a) for key, a in given.items()}
    right = loss_of(*functions, tensors, "own", "all", torch.from_numpy(target), outputs=OUTPUTS)
    found = jax.jit(lambda g: ours(g, "own", "all", target, outputs=OUTPUTS, **IN_CHUNKS))(given)
    np.testing.assert_allclose(found[0], right[0], rtol=1e-12)
    for name, ours_, theirs in zip(OUTPUTS, found[1], right[1], strict=True):
        np.testing.assert_allclose(ours_, theirs, rtol=1e-10, atol=1e-13, err_msg=name)
    _, some = ours(given, "own", "all", target, outputs=["entropy"])
    assert [value is None for value in some] == [True, True, False, True]


def test_log_probabilities_under_any_upstream_gradient():
    given, target = arrays_of(1, "softcap", "plain"), np.arange(N)
    del given["log_prior"]

    def defined(given):
        logits = given["hidden"][:, 0] @ given["weight"].T + given["bias"]
        log_p = jax.nn.log_softmax(activations.softcap(logits, given["cap"]))
        return log_p[np.arange(N), target], -(jnp.exp(log_p) * log_p).sum(1)

    @jax.jit
    def both(given):
        answers = []
        for function in (lambda g: log_prob_of(g, "softcap", target), defined):
            values, pull_back = jax.vjp(function, given)
            answers.append((values, pull_back((upstream(N), upstream(N) ** 2))))
        return answers

    for found, right in zip(*map(jax.tree.leaves, both(given)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12)
    half = [jnp.asarray(given[key], jnp.bfloat16) for key in ("hidden", "weight")]
    assert linear_log_prob(half[0][:, 0], half[1], target).dtype == jnp.float32


def test_vmap_over_a_parameter_and_jit_with_a_traced_one():
    given, caps = arrays_of(1, "softcap", "plain"), np.array([0.5, 3.0, 30.0])
    loss = lambda cap: ours(given | {"cap": cap}, "softcap", "plain", target_of("plain"))
    each = jax.jit(jax.vmap(jax.grad(loss)))(caps)
    np.testing.assert_allclose(each, [jax.jit(jax.grad(loss))(cap) for cap in caps], rtol=1e-10)


def test_an_ignored_token_cannot_spoil_gradients():
    """Its features are NaN, its class and mixtures impossible; a weight of 0 ignores too."""
    given = arrays_of(2, "softcap", "all")
    target = np.full(N, 1)
    target[3] = 2
    weight = np.ones(N)
    given["hidden"][[3, 5]], given["log_prior"][[3, 5]], given["bias"][2] = np.nan, -np.inf, -np.inf
    weight[3], target[5] = 0, -100

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(hidden, weight_VD):
        options = {"token_weight": weight, "z_loss": 0.1, "logits": activations.softcap}
        rest = (given["log_prior"], weight_VD, target, given["bias"])
        return mixture_cross_entropy(hidden, *rest, **options)

    found = gradients(given["hidden"], given["weight"])
    assert all(jnp.isfinite(g).all() for g in found)
    assert not found[0][3].any()


def test_all_logits_are_never_in_memory():
    """Temporary bytes of loss and gradients, with a softcap: what `benchmarks/jax_cpu.py` shows."""
    n, d, v = 2048, 16, 4096
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, d), (v, d))]
    target = jax.ShapeDtypeStruct((n,), jnp.int32)

    def direct(hidden, weight, target):
        log_prob = activations.softcap.log_softmax(hidden @ weight.T)
        return -jnp.take_along_axis(log_prob, target[:, None], 1).mean()

    def peak(loss, **options):
        step = jax.jit(jax.value_and_grad(functools.partial(loss, **options), argnums=(0, 1)))
        return step.lower(*shapes, target).compile().memory_analysis().temp_size_in_bytes

    chunk = {"logits": activations.softcap, "max_chunk_bytes": 2**19}
    assert peak(linear_cross_entropy, **chunk) <= peak(direct) / 16


def test_the_signature_is_that_of_the_options():
    for function in (linear_cross_entropy, mixture_cross_entropy):
        parameters = inspect.signature(function).parameters
        assert [parameters[name].default for name in vars(LossOptions())] == [
            *vars(LossOptions()).values()
        ]
        assert {"axis_name"} <= set(parameters) >= {"hidden", "target"}
        assert "options" not in parameters


def test_bad_input_is_named():
    hidden, weight, target = jnp.ones((6, 4)), jnp.ones((7, 4)), np.arange(6)
    soft, pairs = jnp.full((6, 2), 0.5), np.ones((6, 2), int)

    def call(**changes):
        return linear_cross_entropy(
            **({"hidden": hidden, "weight": weight, "target": target} | changes)
        )

    for changes, error, message in [
        ({"logits": activations.swiglu}, TypeError, r"formula of one input.*got swiglu\(gate, va"),
        ({"logits": jnp.tanh}, TypeError, "formula of one input, .*got"),
        ({"logit_parameters": {"cap": 3.0}}, TypeError, "those of logits, which is None"),
        (
            {"logits": activations.softcap, "logit_parameters": [jnp.ones(7)]},
            ValueError,
            r"cap must be a number or a scalar tensor, got shape \(7,\)",
        ),
        ({"target": pairs, "target_probability": soft * 1.1}, ValueError, r"token 0 .*sum 1\.1"),
        (
            {"target": np.zeros((6, 9), int), "target_probability": soft},
            ValueError,
            "names 9 classes of each token, and there are 7",
        ),
        ({"target": pairs}, ValueError, r"target must have shape \(6,\) .* got \(6, 2\)"),
        ({"target_probability": soft}, ValueError, r"target must be \(N, k\)"),
        ({"normalizer": 0}, ValueError, "normalizer must be positive and finite, got 0"),
        ({"normalizer": jnp.zeros(())}, ValueError, "normalizer must be positive"),
        ({"normalizer": 3.0, "reduction": "sum"}, ValueError, "normalizer divides a mean"),
        ({"outputs": ("entropy", "perplexity")}, ValueError, "outputs must be names among"),
        ({"token_weight": jnp.ones(5)}, ValueError, r"token_weight must have shape \(6,\)"),
        ({"target": target[:5]}, ValueError, r"target must have shape \(6,\)"),
        ({"z_loss": float("nan")}, ValueError, "z_loss must be finite"),
        ({"hidden": hidden[None]}, ValueError, r"hidden must be \(N, D\)"),
        ({"weight": weight[None]}, ValueError, r"weight must have shape \(V, D\)"),
        ({"target": target + 2}, IndexError, "target 7 is out of range for 7 classes"),
        ({"label_smothing": 0.1}, TypeError, "unexpected keyword argument 'label_smothing'"),
    ]:
        with pytest.raises(error, match=f"(?s)linear_cross_entropy.*{message}"):
            call(**changes)
