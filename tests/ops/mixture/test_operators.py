"""The registered operators: PyTorch's own checks, compilation, and what they keep in memory."""

import functools

import pytest
import torch
from torch.library import opcheck

from cases import fraction
from zeta.activations import softcap
from zeta.kernels import operator
from zeta.ops import mixture_cross_entropy
from zeta.ops.mixture import operators

N, K, D, V = 10, 3, 4, 17


def arguments(
    decoder="shared", bias=True, smoothing=False, dtype=torch.float32, chunk=4, logits=softcap
):
    """As `zeta::head_losses` takes them, but for whether the distribution is wanted."""
    per_mixture = () if decoder == "shared" else (K,)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    target = torch.randint(V, (N, 1))
    target[2] = -1
    return (
        torch.randn(N, K, D, dtype=dtype, requires_grad=True),
        torch.randn(N, K, dtype=wide).log_softmax(-1).requires_grad_(),
        torch.randn(*per_mixture, V, D, dtype=dtype, requires_grad=True),
        torch.randn(*per_mixture, V, dtype=dtype, requires_grad=True) if bias else None,
        torch.tensor([*logits.parameters.values()], dtype=wide, requires_grad=True),
        target,
        torch.rand(N, 1, dtype=wide),
        torch.rand(V, dtype=wide) if smoothing else None,
        dtype,
        chunk,
        0.01,
        operator.name_of(logits),
        None,
        0,
    )


VARIANTS = [
    {"decoder": decoder, "bias": bias, "smoothing": smoothing}
    for decoder, bias, smoothing in fraction(
        2, ("shared", "separate"), (True, False), (True, False)
    )
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_opcheck(variant):
    opcheck(torch.ops.zeta.head_losses.default, (*arguments(**variant), variant["bias"]))
    for wanted in ([True] * 5, [True, *[False] * 4], [False, False, True, False, True]):
        wanted = [want and (i != 3 or variant["bias"]) for i, want in enumerate(wanted)]
        inputs = list(arguments(**variant))
        for i, want in enumerate(wanted):
            if inputs[i] is not None:
                inputs[i] = inputs[i].detach().requires_grad_(want)
        more = (torch.rand(N), None, [*wanted, variant["smoothing"]])
        opcheck(torch.ops.zeta.head_weighted_loss.default, (*inputs, *more))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_opcheck_of_other_types(dtype):
    opcheck(torch.ops.zeta.head_losses.default, (*arguments(dtype=dtype), True))


@pytest.mark.parametrize(
    # Inductor once: what it is given does not depend on what it makes of it.
    ("dynamic", "backend", "reduction"),
    [(False, "aot_eager", "none"), (True, "inductor", "mean")],
)
def test_compiles_to_one_graph(reduction, dynamic, backend):
    def loss(hidden, log_prior, weight, target):
        smooth = mixture_cross_entropy(
            hidden * 2, log_prior, weight, target, reduction=reduction, label_smoothing=0.1
        )
        return mixture_cross_entropy(hidden * 2, log_prior, weight, target).sum() + smooth.sum()

    hidden, log_prior, weight, *_ = arguments()
    target = torch.randint(V, (N,))
    compiled = torch.compile(loss, fullgraph=True, dynamic=dynamic, backend=backend)
    inputs = (hidden, log_prior, weight)
    results = []
    for function in (compiled, loss):
        value = function(*inputs, target)
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiles_under_autocast():
    hidden, log_prior, weight, *_ = arguments()

    def loss():
        with torch.autocast("cpu", torch.bfloat16):
            return mixture_cross_entropy(hidden, log_prior, weight, torch.arange(N))

    torch.testing.assert_close(torch.compile(loss, fullgraph=True)(), loss())


def peak_elements(call):
    """The largest tensor made while it runs."""

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.largest = max(self.largest, tensor.numel())
            return out

    with Watch() as watch:
        call()
    return watch.largest


@pytest.mark.parametrize("smoothing", [False, True])
@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_nothing_larger_than_a_chunk_is_made(decoder, smoothing):
    inputs = list(arguments(decoder, smoothing=smoothing, chunk=2))
    with torch.no_grad():
        inputs = [t.detach() if isinstance(t, torch.Tensor) else t for t in inputs]
        largest = peak_elements(
            lambda: operators._weighted_loss(*inputs, torch.ones(N), None, [True] * 6)
        )
    assert 2 * K * V <= largest <= max(2 * K * V, K * V * D)


def test_retain_graph_and_second_backward():
    hidden, log_prior, weight, *_ = arguments()
    for reduction in ("none", "mean"):
        loss = mixture_cross_entropy(
            hidden, log_prior, weight, torch.arange(N), reduction=reduction
        ).sum()
        first = torch.autograd.grad(loss, (hidden, log_prior, weight), retain_graph=True)
        second = torch.autograd.grad(loss, (hidden, log_prior, weight))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(loss, hidden)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_batched_gradients(reduction, smoothing):
    """PyTorch's own vmap over backward: what each gradient alone is, and so for second ones."""
    hidden, log_prior, weight, bias, _, target, *_ = arguments("separate", dtype=torch.float64)
    target = target.squeeze(1)
    inputs = (hidden, log_prior, weight, bias)

    def loss(*inputs):
        *others, bias = inputs
        return mixture_cross_entropy(
            *others, target, bias, ignore_index=-1, reduction=reduction, label_smoothing=smoothing
        )

    value = loss(*inputs)
    upstream = torch.randn(3, *value.shape, dtype=value.dtype)
    gradients = functools.partial(torch.autograd.grad, value, inputs, retain_graph=True)
    each = [torch.stack(g) for g in zip(*map(gradients, upstream), strict=True)]
    torch.testing.assert_close(gradients(upstream, is_grads_batched=True), tuple(each))
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(loss, inputs, vectorize=True),
        torch.autograd.functional.jacobian(loss, inputs),
    )
    (first,) = torch.autograd.grad(value.sum(), log_prior, create_graph=True)
    second = functools.partial(torch.autograd.grad, first, weight, retain_graph=True)
    upstream = torch.randn(3, N, K, dtype=first.dtype)
    (batched,) = second(upstream, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([second(u)[0] for u in upstream]))


def test_a_gradient_changed_in_place_is_noticed():
    """A backward hands out the gradients that were saved, without a copy; a second one checks."""
    hidden, log_prior, weight, *_ = arguments()
    loss = mixture_cross_entropy(hidden, log_prior, weight, torch.arange(N))
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    first.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, weight)


def test_accumulated_gradients_are_the_parameters_own():
    hidden, log_prior, weight, *_ = arguments()
    loss = mixture_cross_entropy(hidden, log_prior, weight, torch.arange(N))
    loss.backward(retain_graph=True)
    once = weight.grad.clone()
    loss.backward(retain_graph=True)
    torch.testing.assert_close(weight.grad, 2 * once)
    weight.grad.zero_()
    loss.backward()
    torch.testing.assert_close(weight.grad, once)
