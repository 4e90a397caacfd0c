"""The mixture's loss against its definition, in every option."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from cases import fraction
from zeta.kernels import mixture
from zeta.ops import mixture_cross_entropy

N, K, D, V = 6, 3, 4, 7


def inputs(decoder="shared", bias=True, dtype=torch.float64, n=N):
    """(hidden, log_prior, weight, bias), all wanting gradients."""
    per_mixture = () if decoder == "shared" else (K,)
    hidden = torch.randn(n, K, D, dtype=dtype, requires_grad=True)
    log_prior = torch.randn(n, K, dtype=dtype).log_softmax(-1).requires_grad_()
    weight = torch.randn(*per_mixture, V, D, dtype=dtype, requires_grad=True)
    offset = torch.randn(*per_mixture, V, dtype=dtype, requires_grad=True) if bias else None
    return hidden, log_prior, weight, offset


def joint_log_prob(hidden, log_prior, weight, bias):
    """The definition: the log of a weighted sum of softmaxes."""
    rows = []
    for k in range(hidden.shape[1]):
        w = weight if weight.dim() == 2 else weight[k]
        b = bias if bias is None or bias.dim() == 1 else bias[k]
        rows.append(log_prior[:, k, None].exp() * F.softmax(F.linear(hidden[:, k], w, b), -1))
    return sum(rows).log()


def by_definition(tensors, target, **options):
    """F.cross_entropy's own options on log-probabilities that it must not normalise again.

    The joint distribution sums to one, so the log-softmax inside F.cross_entropy changes nothing.
    """
    options["weight"] = options.pop("class_weight", None)
    return F.cross_entropy(joint_log_prob(*tensors), target, **options)


TARGET = torch.tensor([0, 6, -100, 3, 3, 1])
CLASS_WEIGHT = torch.linspace(0.2, 2.0, V, dtype=torch.float64)
# Of each option: reduction, label smoothing and class weights.
VALUES = (("none", "mean", "sum"), (0.0, 0.1), (None, CLASS_WEIGHT))


def options_of(reduction, smoothing, class_weight):
    return {"reduction": reduction, "label_smoothing": smoothing, "class_weight": class_weight}


OPTIONS = [options_of(*values) for values in itertools.product(*VALUES)]


def option_id(options):
    weighted = "weighted" if options["class_weight"] is not None else "plain"
    return f"{options['reduction']}-{options['label_smoothing']}-{weighted}"


@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_equals_the_definition(decoder, options):
    tensors = inputs(decoder)
    loss = mixture_cross_entropy(*tensors[:3], TARGET, tensors[3], **options)
    expected = by_definition(tensors, TARGET, **options)
    torch.testing.assert_close(loss, expected)
    upstream = torch.randn_like(loss)  # one weight per token with reduction "none"
    wanted = [t for t in tensors if t is not tensors[1]]
    got = torch.autograd.grad(loss, wanted, upstream)
    for ours, theirs in zip(got, torch.autograd.grad(expected, wanted, upstream), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        (decoder, options_of(*values))
        for decoder, *values in fraction(2, ("shared", "separate"), *VALUES)
    ],
    ids=lambda value: value if type(value) is str else option_id(value),
)
def test_gradcheck_and_gradgradcheck(decoder, options):
    hidden, log_prior, weight, bias = inputs(decoder)

    def loss(hidden, log_prior, weight, bias):
        return mixture_cross_entropy(hidden, log_prior, weight, TARGET, bias, **options)

    torch.autograd.gradcheck(loss, (hidden, log_prior, weight, bias), fast_mode=True)
    torch.autograd.gradgradcheck(loss, (hidden, log_prior, weight, bias), fast_mode=True)


def test_the_prior_is_not_normalised_again():
    """Its gradient is minus the responsibility: -r_k, which sums to -1 over the mixtures."""
    hidden, log_prior, weight, bias = inputs()
    loss = mixture_cross_entropy(hidden, log_prior, weight, TARGET, bias, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, log_prior)
    expected = -(TARGET != -100).double()
    torch.testing.assert_close(gradient.sum(1), expected)


def test_another_ignore_index_may_be_a_class():
    tensors = inputs()
    target = torch.tensor([0, 1, 2, 3, 4, 5])
    loss = mixture_cross_entropy(*tensors[:3], target, tensors[3], ignore_index=2)
    torch.testing.assert_close(loss, by_definition(tensors, target, ignore_index=2))


@pytest.mark.parametrize("n", [0, N])
def test_no_target_at_all(n):
    """As F.cross_entropy: the mean over nothing is NaN, the sum zero, and gradients are zero."""
    tensors = inputs(n=n)
    target = torch.full((n,), -100)
    for reduction in ("mean", "sum"):
        loss = mixture_cross_entropy(*tensors[:3], target, tensors[3], reduction=reduction)
        torch.testing.assert_close(
            loss, by_definition(tensors, target, reduction=reduction), equal_nan=True
        )
        gradients = torch.autograd.grad(loss, tensors)
        assert all((g == 0).all() for g in gradients)


def test_far_apart_logits_stay_finite():
    """Log space: probabilities underflow here, their logarithms do not."""
    hidden, log_prior, weight, _ = inputs(dtype=torch.float32)
    loss = mixture_cross_entropy(hidden * 1e3, log_prior, weight, TARGET)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (hidden, weight)))
    assert joint_log_prob(hidden * 1e3, log_prior, weight, None).isinf().any()


@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_chunks_change_nothing(decoder):
    hidden, log_prior, weight, bias = inputs(decoder)
    whole, chunked = (
        mixture_cross_entropy(hidden, log_prior, weight, TARGET, bias, max_chunk_bytes=size)
        for size in (None, 2 * K * V * 8)
    )
    torch.testing.assert_close(chunked, whole, rtol=1e-14, atol=0)
    tensors = (hidden, log_prior, weight, bias)
    for a, b in zip(
        torch.autograd.grad(chunked, tensors), torch.autograd.grad(whole, tensors), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    exact = [t.detach().to(dtype).double() for t in inputs()]
    hidden, log_prior, weight, bias = (t.to(dtype) for t in exact)
    loss = mixture_cross_entropy(hidden, log_prior, weight, TARGET, bias)
    assert loss.dtype == dtype
    # What rounding the logits alone to this dtype does, twice over.
    logits = [F.linear(exact[0][:, k], exact[2], exact[3]).abs().max() for k in range(K)]
    bound = 2 * torch.finfo(dtype).eps * max(*logits, by_definition(exact, TARGET))
    assert (loss.double() - by_definition(exact, TARGET)).abs() <= bound


def test_autocast_keeps_the_loss_in_float32():
    hidden, log_prior, weight, bias = inputs(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixture_cross_entropy(hidden, log_prior, weight, TARGET, bias)
        half = mixture_cross_entropy(hidden.bfloat16(), log_prior, weight, TARGET, bias)
    assert loss.dtype == half.dtype == torch.float32


def test_bad_input_is_named():
    hidden, log_prior, weight, bias = inputs()

    def call(**changes):
        arguments = {"hidden": hidden, "log_prior": log_prior, "weight": weight}
        return mixture_cross_entropy(**(arguments | {"target": TARGET, "bias": bias} | changes))

    for changes, error, message in [
        ({"target": TARGET.clamp(min=0) + 1}, IndexError, "target 7 is out of range for 7 classes"),
        ({"target": TARGET.masked_fill(TARGET == 0, -1)}, IndexError, "target -1 is out of range"),
        ({"target": TARGET.float()}, TypeError, "target must consist of integer class"),
        ({"target": [0]}, TypeError, "target must consist of integer class indices, got list"),
        ({"class_weight": [1.0]}, TypeError, r"class_weight must be a torch\.Tensor, got list"),
        ({"bias": bias.float()}, TypeError, "hidden and bias must have one dtype"),
        ({"hidden": hidden[:, :0]}, ValueError, "at least one mixture"),
        ({"target": TARGET[:3]}, ValueError, r"target must have shape \(6,\) .* got \(3,\)"),
        ({"hidden": hidden[0]}, ValueError, r"hidden must be \(N, K, D\), got shape \(3, 4\)"),
        ({"hidden": hidden.int()}, TypeError, "hidden must be a floating-point tensor"),
        ({"weight": weight[:, :3]}, ValueError, r"weight must have shape \(7, 4\)"),
        ({"weight": weight[0]}, ValueError, "weight must have shape"),
        ({"weight": weight.detach().numpy()}, TypeError, "must be a torch.Tensor, got ndarray"),
        ({"weight": weight.float()}, TypeError, "hidden and weight must have one dtype"),
        ({"log_prior": log_prior.T}, ValueError, r"log_prior must have shape \(6, 3\)"),
        ({"bias": bias[:3]}, ValueError, r"bias must have shape \(7,\)"),
        ({"class_weight": bias[:3]}, ValueError, r"class_weight must have shape \(7,\)"),
        ({"reduction": "average"}, ValueError, "reduction must be one of"),
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\]"),
        ({"max_chunk_bytes": 0}, ValueError, "max_chunk_bytes must be positive"),
    ]:
        with pytest.raises(error, match=message):
            call(**changes)


def test_chunks_add_up_half_precision_gradients_in_float32():
    hidden, log_prior, weight = torch.randn(512, 2, 8), torch.zeros(512, 2), torch.randn(16, 8)
    target = torch.randint(16, (512,))
    exact = weight.bfloat16().double().requires_grad_()
    loss = mixture_cross_entropy(
        hidden.bfloat16().double(), log_prior.double(), exact, target, reduction="sum"
    )
    (expected,) = torch.autograd.grad(loss, exact)
    errors = []
    for chunk in (None, 1):
        half = weight.bfloat16().requires_grad_()
        loss = mixture_cross_entropy(
            hidden.bfloat16(), log_prior, half, target, reduction="sum", max_chunk_bytes=chunk
        )
        (gradient,) = torch.autograd.grad(loss, half)
        errors.append((gradient.double() - expected).abs().max() / expected.abs().max())
    assert errors[1] <= 2 * errors[0]


def test_an_ignored_token_cannot_spoil_gradients():
    """Its mixtures are impossible here, and so is class 0, which stands in for its target."""
    hidden, log_prior, weight, bias = inputs()
    with torch.no_grad():
        log_prior[2] = -torch.inf
    for smoothing, impossible in ((0.1, 0.0), (0.0, -torch.inf)):
        with torch.no_grad():
            bias[0] = impossible
        loss = mixture_cross_entropy(
            hidden,
            log_prior,
            weight,
            TARGET.clamp(max=5).where(TARGET != 0, 1),
            bias,
            label_smoothing=smoothing,
        )
        gradients = torch.autograd.grad(loss, (hidden, log_prior, weight))
        assert all(g.isfinite().all() for g in (loss, *gradients))


# Sizes that divide nothing; rows of the weight planted as hidden vectors give probabilities near 1.
ODD = (252, 123, 507)


def odd_inputs(k, dtype=torch.float64):
    n, d, v = ODD
    hidden, weight = torch.randn(n, k, d, dtype=torch.float64), torch.randn(v, d) / d**0.5
    weight = weight.double()
    target = torch.randint(v, (n,))
    hidden[:50] = 20 * weight[target[:50], None]
    target[100:120] = -100
    log_prior = torch.randn(n, k, dtype=torch.float64).log_softmax(-1)
    tensors = (hidden, log_prior, weight)
    return [t.to(dtype).requires_grad_() for t in tensors], target


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 3])
def test_errs_at_most_twice_as_much_as_plain_operations(k, dtype, reduction):
    """Over float64, with one upstream gradient per token; the chunks are small."""
    (hidden, log_prior, weight), target = odd_inputs(k, dtype)
    exact = [t.detach().double().requires_grad_() for t in (hidden, log_prior, weight)]
    upstream = torch.randn(ODD[0] if reduction == "none" else (), dtype=torch.float64)

    def results(loss, inputs):
        value = loss(*inputs)
        gradients = torch.autograd.grad(value, inputs, upstream.to(value.dtype))
        return [t.detach().double() for t in (value, *gradients)]

    def plain(hidden, log_prior, weight):
        log_p_NKV = F.linear(hidden, weight).to(log_prior.dtype).log_softmax(-1)
        log_p_NV = (log_prior.unsqueeze(-1) + log_p_NKV).logsumexp(1)
        return F.nll_loss(log_p_NV, target, reduction=reduction)

    def chunked(hidden, log_prior, weight):
        size = 40 * k * ODD[2] * 4
        return mixture_cross_entropy(
            hidden, log_prior, weight, target, reduction=reduction, max_chunk_bytes=size
        )

    truths = results(plain, exact)
    ours = results(chunked, (hidden, log_prior, weight))
    theirs = results(plain, (hidden, log_prior, weight))
    for a, b, truth in zip(ours, theirs, truths, strict=True):
        floor = torch.finfo(dtype).eps * truth.norm()
        assert (a - truth).norm() <= 2 * (b - truth).norm() + floor / 10


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("frozen", [0, 1, 2, (0, 1), (0, 2), (0, 1, 2)])
def test_frozen_inputs(frozen, reduction):
    tensors, target = odd_inputs(3)
    loss = mixture_cross_entropy(*tensors, target, reduction=reduction).sum()
    expected = torch.autograd.grad(loss, tensors)
    frozen = frozen if isinstance(frozen, tuple) else (frozen,)
    some = [t.detach() if i in frozen else t for i, t in enumerate(tensors)]
    loss = mixture_cross_entropy(*some, target, reduction=reduction).sum()
    wanted = [i for i in range(3) if i not in frozen]
    assert loss.requires_grad == bool(wanted)
    for i in wanted:
        (gradient,) = torch.autograd.grad(loss, tensors[i], retain_graph=True)
        torch.testing.assert_close(gradient, expected[i])


def test_float16_products_do_not_underflow():
    """A thousand tokens, ten thousand classes: p/N is 1e-7, where float16 has two digits."""
    n, v = 1000, 10_000
    hidden = torch.randn(n, 2, 8).half().float().requires_grad_()
    weight = (torch.randn(v, 8) / 8).half().float().requires_grad_()
    log_prior, target = torch.full((n, 2), math.log(0.5)), torch.randint(10, (n,))
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    loss = mixture_cross_entropy(exact[0], log_prior.double(), exact[1], target)
    expected = torch.autograd.grad(loss, exact)
    with torch.autocast("cpu", torch.float16):
        loss = mixture_cross_entropy(hidden, log_prior, weight, target, max_chunk_bytes=2**22)
    for ours, truth in zip(torch.autograd.grad(loss, (hidden, weight)), expected, strict=True):
        error = (ours.double() - truth).norm() / truth.norm()
        assert error <= torch.finfo(torch.float16).eps


def test_without_kernels_it_is_the_same(monkeypatch):
    tensors, target = odd_inputs(3)
    found = []
    for kernels in (None, lambda rows: None):
        if kernels:
            monkeypatch.setattr(mixture, "_kernels", kernels)
        loss = mixture_cross_entropy(*tensors, target, max_chunk_bytes=10**6)
        found.append((loss.detach(), *torch.autograd.grad(loss, tensors)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_targets_of_any_integer_type(dtype):
    weight = torch.randn(200, D)
    hidden, log_prior = torch.randn(2, K, D), torch.zeros(2, K)
    target = torch.tensor([1, 100])
    loss = mixture_cross_entropy(hidden, log_prior, weight, target.to(dtype), reduction="none")
    expected = mixture_cross_entropy(hidden, log_prior, weight, target, reduction="none")
    torch.testing.assert_close(loss, expected)
    wraps = mixture_cross_entropy(
        hidden, log_prior, weight, torch.tensor([156, 156], dtype=torch.uint8), reduction="none"
    )
    assert (wraps != 0).all()  # 156 is -100 in eight bits


def test_transforms_and_other_devices_take_it():
    hidden, log_prior, weight, _ = inputs(dtype=torch.float32)

    def loss(hidden, log_prior, target):
        return mixture_cross_entropy(
            hidden[None], log_prior[None], weight, target[None], max_chunk_bytes=8
        )

    target = TARGET.clamp(min=0)
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, 0))
    each = per_sample(hidden, log_prior, target)
    whole = mixture_cross_entropy(hidden, log_prior, weight, target, reduction="sum")
    torch.testing.assert_close(each, torch.autograd.grad(whole, hidden)[0])
    on_meta = [t.detach().to("meta") for t in (hidden, log_prior, weight)]
    assert mixture_cross_entropy(*on_meta, TARGET.to("meta")).is_meta
