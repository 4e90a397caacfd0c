"""A softmax over a formula of logits: every option against its definition, in every dtype."""

import types

import pytest
import torch
import torch.nn.functional as F

from cases import fraction
from zeta import activations, formula, math as zm
from zeta.ops import linear_cross_entropy, linear_log_prob, mixture_cross_entropy


@formula(slope=0.7, knee=0.4)
def own(x, slope, knee):
    """A user's own formula."""
    return zm.piecewise(x, positive=lambda x: slope * x, otherwise=lambda x: knee * zm.atan(x))


PHI = {
    "none": None,
    "softcap": activations.softcap,
    "selu": activations.selu,
    "sigsoftmax": activations.sigsoftmax,
    "own": own,
}
ODD = (252, 123, 507)  # sizes that divide nothing
WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def tensors(k, phi, dtype=torch.float64, sizes=ODD, bias=True):
    """hidden, log prior, weight, bias, φ's parameters; targets with planted near-certain ones."""
    n, d, v = sizes
    hidden, weight = torch.randn(n, k, d).double(), (torch.randn(v, d) / d**0.5).double()
    target = torch.randint(v, (n,))
    hidden[: n // 5] = 20 * weight[target[: n // 5], None]
    target[n // 3 : n // 2] = -100
    wide = WIDE.get(dtype, dtype)
    given = {
        "hidden": hidden.to(dtype),
        "log_prior": torch.randn(n, k).double().log_softmax(-1).to(wide),
        "weight": weight.to(dtype),
        "bias": torch.randn(v).to(dtype) if bias else None,
    }
    defaults = {} if phi is None else phi.parameters
    given |= {name: torch.tensor(value, dtype=wide) for name, value in defaults.items()}
    return {k: None if t is None else t.requires_grad_() for k, t in given.items()}, target


def options_of(name, target, v, k, dtype=torch.float64):
    """The options of that name; soft targets bring their classes."""
    n = len(target)
    weight = torch.rand(n, dtype=dtype)
    weight[::7] = 0
    if name == "soft":
        classes = torch.randint(v, (n, 5))
        classes[:, 4] = classes[:, 0]
        classes[target == -100] = -100
        return {"target_probability": torch.rand(n, 5).to(dtype).softmax(-1)}, classes
    options = {
        "plain": {},
        "token_weight": {"token_weight": weight},
        "z_loss": {"z_loss": 1e-3},
        "normalizer": {"normalizer": 77.0},
        "smoothing": {"label_smoothing": 0.1},
        "class_weight": {"class_weight": torch.rand(v, dtype=dtype)},
        "sum": {"reduction": "sum"},
        "none": {"reduction": "none"},
        "all": {
            "token_weight": weight,
            "z_loss": 1e-3,
            "label_smoothing": 0.2,
            "class_weight": torch.rand(v, dtype=dtype),
        },
    }
    return options[name], target


OPTIONS = ["plain", "token_weight", "z_loss", "normalizer", "smoothing", "class_weight", "sum"]
OPTIONS += ["none", "soft", "all"]


def definition(given, target, phi, options, dtype):
    """Plain operations, with all logits in memory."""
    wide = WIDE.get(dtype, dtype)
    hidden, log_prior, weight, bias, *parameters = given.values()
    z = F.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))
    f = z.to(wide) if phi is None else phi.function(z.to(wide), *parameters)
    log_p = (log_prior.unsqueeze(2) + f.log_softmax(-1)).logsumexp(1)
    v = log_p.shape[1]
    target_nt = target if target.dim() == 2 else target.unsqueeze(1)
    kept = (target_nt != -100).any(1)
    known = target_nt.masked_fill(~kept.unsqueeze(1), 0)
    q = options.get("target_probability", torch.ones_like(known, dtype=wide)).to(wide)
    mass = torch.zeros_like(log_p).scatter_add(1, known, q)
    share = options.get("label_smoothing", 0.0)
    mass = (1 - share) * mass + share / v
    class_weight = options.get("class_weight", torch.ones(v)).to(wide)
    loss = -(mass * class_weight * log_p).sum(1)
    loss = loss + options.get("z_loss", 0.0) * f.logsumexp(-1).square().mean(1)
    token_weight = options.get("token_weight", torch.ones_like(loss)).to(wide)
    loss = (token_weight * loss).masked_fill(~kept, 0)
    reduction = options.get("reduction", "mean")
    if reduction == "none":
        return loss.to(dtype)
    total = token_weight
    if "target_probability" not in options:
        total = total * class_weight[known[:, 0]]
    normalizer = options.get("normalizer", total.masked_fill(~kept, 0).sum())
    return (loss.sum() / (normalizer if reduction == "mean" else 1)).to(dtype)


def loss_of(given, target, phi, options, **more):
    """Ours: of one mixture by the function for one softmax."""
    hidden, log_prior, weight, bias, *parameters = given.values()
    options = {**options, **more, "logits": phi}
    if parameters:
        options["logit_parameters"] = parameters
    if hidden.shape[1] == 1:
        return linear_cross_entropy(hidden.squeeze(1), weight, target, bias, **options)
    return mixture_cross_entropy(hidden, log_prior, weight, target, bias, **options)


def gradients(loss, given, upstream):
    sources = [t for t in given.values() if t is not None]
    if given["hidden"].shape[1] == 1:
        sources = [t for t in sources if t is not given["log_prior"]]
    found = torch.autograd.grad(loss, sources, upstream.to(loss.dtype))
    return [t.detach().double() for t in (loss, *found)]


@pytest.mark.parametrize(
    ("k", "of", "name", "dtype"),
    fraction(3, [1, 3], [*PHI], OPTIONS, [torch.float32, torch.bfloat16]),
)
def test_errs_at_most_twice_as_much_as_plain_operations(k, of, name, dtype):
    """Over float64, loss and all gradients, in small chunks."""
    phi = PHI[of]
    given, target = tensors(k, phi, dtype)
    exact = {
        n: None if t is None else t.detach().double().requires_grad_() for n, t in given.items()
    }
    options, target = options_of(name, target, ODD[2], k, WIDE.get(dtype, dtype))
    upstream = torch.randn(ODD[0] if name == "none" else (), dtype=torch.float64)
    truths = gradients(definition(exact, target, phi, options, torch.float64), exact, upstream)
    theirs = gradients(definition(given, target, phi, options, dtype), given, upstream)
    chunk = {"max_chunk_bytes": 40 * k * ODD[2] * 4}
    ours = gradients(loss_of(given, target, phi, options, **chunk), given, upstream)
    sizes = [t.norm() for t in truths]
    sizes[len(sizes) - len(given) + 4 :] = summed_sizes(exact, target, phi, options, upstream)
    for a, b, truth, size in zip(ours, theirs, truths, sizes, strict=True):
        # One rounding of a number, of which the other may by chance have made none.
        share = 1 if truth.dim() == 0 else 1 / 10
        assert (a - truth).norm() <= 2 * (b - truth).norm() + share * torch.finfo(dtype).eps * size


def summed_sizes(exact, target, phi, options, upstream):
    """Of the gradients by φ's parameters: how much relative errors of φ's values could change."""
    if phi is None or not phi.parameters:
        return []
    values = []

    def kept(z, *parameters):
        values.append(phi.function(z, *parameters))
        return values[0]

    watched = types.SimpleNamespace(function=kept)
    loss = definition(exact, target, watched, options, torch.float64)
    (slope,) = torch.autograd.grad(loss, values, upstream)
    return [(slope * values[0]).abs().sum() / abs(value) for value in phi.parameters.values()]


SMALL = (6, 4, 7)


@pytest.mark.parametrize(
    ("k", "of", "name"), fraction(2, [1, 2], ["none", "softcap", "own"], OPTIONS)
)
def test_gradcheck_and_gradgradcheck(k, of, name):
    phi = PHI[of]
    given, target = tensors(k, phi, sizes=SMALL)
    given["hidden"] = given["hidden"].detach().mul_(0.1).requires_grad_()
    options, target = options_of(name, target, SMALL[2], k)
    names = [n for n in given if k > 1 or n != "log_prior"]

    def loss(*inputs):
        return loss_of(given | dict(zip(names, inputs, strict=True)), target, phi, options)

    inputs = [given[n] for n in names]
    torch.autograd.gradcheck(loss, inputs, fast_mode=True)
    torch.autograd.gradgradcheck(loss, inputs, fast_mode=True)


@pytest.mark.parametrize("phi", [None, own], ids=["none", "own"])
@pytest.mark.parametrize("k", [1, 3])
def test_outputs_are_of_each_token(k, phi):
    given, target = tensors(k, phi, sizes=(12, 4, 507))
    options = {"token_weight": torch.rand(12).double(), "label_smoothing": 0.1, "z_loss": 0.01}
    outputs = ("token_loss", "logsumexp", "entropy", "prediction")
    loss, found = loss_of(given, target, phi, options, outputs=outputs)
    torch.testing.assert_close(loss, loss_of(given, target, phi, options))
    assert not any(t.requires_grad for t in found)
    each = definition(given, target, phi, options | {"reduction": "none"}, torch.float64)
    torch.testing.assert_close(found.token_loss, each.detach())
    hidden, log_prior, weight, bias, *parameters = given.values()
    f = F.linear(hidden, weight, bias)
    f = f if phi is None else phi(f, *parameters)
    log_p = (log_prior.unsqueeze(2) + f.log_softmax(-1)).logsumexp(1).detach()
    ignored = target == -100
    lse = f.logsumexp(-1).mean(1).detach().masked_fill(ignored, 0)
    torch.testing.assert_close(found.logsumexp, lse)
    entropy = -(log_p.exp() * log_p).sum(1)
    entropy = torch.log_softmax(log_p, -1).exp().mul(-log_p).sum(1) if k == 1 else entropy
    torch.testing.assert_close(found.entropy, entropy.masked_fill(ignored, 0))
    assert torch.equal(found.prediction, log_p.argmax(1).masked_fill(ignored, -1))
    _, some = loss_of(given, target, phi, options, outputs=["entropy"])
    assert some.entropy is not None
    assert some[:2] == (None, None)
    assert some.prediction is None


@pytest.mark.parametrize("phi", [None, activations.softcap, own], ids=["none", "softcap", "own"])
def test_log_probabilities_under_any_upstream_gradient(phi):
    given, target = tensors(1, phi, sizes=SMALL)
    target = target.clamp(min=0)
    del given["log_prior"]
    given["hidden"] = given["hidden"].detach().squeeze(1).mul(0.1).requires_grad_()

    def both(hidden, weight, bias, *parameters):
        more = {"logit_parameters": parameters} if parameters else {}
        return linear_log_prob(hidden, weight, target, bias, logits=phi, entropy=True, **more)

    inputs = list(given.values())
    torch.autograd.gradcheck(both, inputs)
    torch.autograd.gradgradcheck(both, inputs)
    log_prob, entropy = both(*inputs)
    f = F.linear(*inputs[:3])
    log_p = (f if phi is None else phi(f, *inputs[3:])).log_softmax(-1)
    torch.testing.assert_close(log_prob, log_p.gather(1, target[:, None]).squeeze(1))
    torch.testing.assert_close(entropy, -(log_p.exp() * log_p).sum(1))
    alone = linear_log_prob(*inputs[:2], target, inputs[2], logits=phi)
    torch.testing.assert_close(alone, log_prob)
    (only_entropy,) = torch.autograd.grad(entropy.sum(), inputs[0])
    torch.testing.assert_close(
        only_entropy, torch.autograd.grad(-(log_p.exp() * log_p).sum(), inputs[0])[0]
    )


def test_log_probabilities_of_half_types_are_in_float32():
    hidden, weight = torch.randn(4, 8).bfloat16(), torch.randn(9, 8).bfloat16()
    log_prob = linear_log_prob(hidden, weight, torch.arange(4))
    assert log_prob.dtype == torch.float32
    expected = F.linear(hidden, weight).float().log_softmax(-1)[torch.arange(4), torch.arange(4)]
    torch.testing.assert_close(log_prob, expected)


def test_entropy_where_probabilities_underflow():
    """p·log p is 0 where p is 0, and so is its gradient; an impossible class too."""
    hidden = torch.tensor([[200.0, 0.0]], requires_grad=True)
    bias = torch.tensor([0.0, 0.0, -torch.inf])
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    _, entropy = linear_log_prob(hidden, weight, torch.tensor([0]), bias, entropy=True)
    assert entropy.item() == 0
    gradients = torch.autograd.grad(entropy.sum(), (hidden, weight))
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.1}], ids=str)
def test_an_impossible_target_has_an_infinite_loss_and_finite_gradients(options):
    """As in F.cross_entropy, whose gradient by logits is p - onehot whatever they are."""
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    bias = torch.zeros(5).index_fill(0, torch.tensor(2), -torch.inf)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([2, 0, 1]), bias, **options)
    assert loss == torch.inf
    if not options.get("label_smoothing"):
        assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (hidden, weight)))


def test_an_ignored_token_cannot_spoil_gradients():
    """Its class is impossible, its features are NaN; a weight of 0 ignores, too."""
    hidden, weight = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    hidden[1] = torch.nan
    bias = torch.zeros(5).index_fill(0, torch.tensor(2), -torch.inf)
    hidden.requires_grad_()
    for target, token_weight in (([0, -100, 1, 3], None), ([0, 2, 1, 3], [1.0, 0.0, 2.0, 1.0])):
        if token_weight is not None:
            token_weight = torch.tensor(token_weight)
        loss = linear_cross_entropy(
            hidden, weight, torch.tensor(target), bias, token_weight=token_weight, z_loss=0.1
        )
        gradients = torch.autograd.grad(loss, (hidden, weight))
        assert all(g.isfinite().all() for g in (loss, *gradients))
        assert (gradients[0][1] == 0).all()


@pytest.mark.parametrize("phi", [None, own], ids=["none", "own"])
def test_no_tokens_and_one_class(phi):
    for n, v in ((0, 5), (3, 1)):
        hidden, weight = (
            torch.randn(n, 4, requires_grad=True),
            torch.randn(v, 4, requires_grad=True),
        )
        target = torch.zeros(n, dtype=torch.long)
        loss, of_tokens = linear_cross_entropy(
            hidden, weight, target, logits=phi, reduction="sum", outputs=("entropy", "prediction")
        )
        assert loss.item() == 0
        assert of_tokens.entropy.tolist() == [0] * n == of_tokens.prediction.tolist()
        assert all((g == 0).all() for g in torch.autograd.grad(loss, (hidden, weight)))


def test_any_strides():
    hidden, weight = torch.randn(8, 6).t()[:, ::2], torch.randn(8, 10)[::2].t()
    bias, target = torch.randn(20)[::2], torch.randint(10, (12,))[::2]
    weights, classes = torch.rand(12)[::2], torch.rand(20)[::2]
    options = {"token_weight": weights, "class_weight": classes, "label_smoothing": 0.1}
    given = (hidden, weight, target, bias)
    copies = [t.contiguous() for t in given]
    same = {k: v.contiguous() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    torch.testing.assert_close(
        linear_cross_entropy(*given, **options), linear_cross_entropy(*copies, **same)
    )


def test_gradients_by_weights_of_tokens_are_not_lost():
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    token_weight = torch.rand(4, requires_grad=True)
    target = torch.arange(4)
    loss = linear_cross_entropy(hidden, weight, target, token_weight=token_weight, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, token_weight)
    each = linear_cross_entropy(hidden, weight, target, reduction="none")
    torch.testing.assert_close(gradient, each.detach())


def test_float16_keeps_small_gradients():
    n, v = 1000, 5000
    hidden, weight = torch.randn(n, 8).half().float(), (torch.randn(v, 8) / 8).half().float()
    target = torch.randint(10, (n,))
    exact = [t.double().requires_grad_() for t in (hidden, weight)]
    expected = torch.autograd.grad(
        F.cross_entropy(30 * torch.tanh(F.linear(*exact) / 30), target), exact
    )
    inputs = [t.requires_grad_() for t in (hidden, weight)]
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(*inputs, target, logits=activations.softcap)
    for ours, truth in zip(torch.autograd.grad(loss, inputs), expected, strict=True):
        assert (ours - truth).norm() <= torch.finfo(torch.float16).eps * truth.norm()


def test_parameter_gradients_have_the_same_bits_for_any_number_of_threads():
    hidden, weight = torch.randn(300, 16), torch.randn(2000, 16)
    target, found, threads = torch.randint(2000, (300,)), [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            slope = torch.tensor(0.7, requires_grad=True)
            options = {"logits": own, "logit_parameters": {"slope": slope}, "z_loss": 0.01}
            loss = linear_cross_entropy(hidden, weight, target, max_chunk_bytes=10**6, **options)
            found.append(torch.autograd.grad(loss, slope)[0])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_compiles_to_one_graph(reduction):
    def loss(hidden, weight, target, cap, token_weight):
        value, of_tokens = linear_cross_entropy(
            2 * hidden,
            weight,
            target,
            logits=activations.softcap,
            logit_parameters={"cap": cap},
            token_weight=token_weight,
            reduction=reduction,
            outputs=("entropy",),
        )
        log_prob, entropy = linear_log_prob(hidden, weight, target, logits=own, entropy=True)
        return value.sum() + (of_tokens.entropy + log_prob * 2 + entropy).sum()

    hidden, weight = torch.randn(9, 4, requires_grad=True), torch.randn(17, 4, requires_grad=True)
    cap, more = torch.tensor(5.0, requires_grad=True), (torch.randint(17, (9,)), torch.rand(9))
    inputs = (hidden, weight, cap)
    results = []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        value = function(hidden, weight, more[0], cap, more[1])
        results.append((value.detach(), *torch.autograd.grad(value, inputs)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_transforms_and_batched_gradients():
    hidden, weight = torch.randn(5, 4), torch.randn(7, 4)
    target, cap = torch.arange(5), torch.tensor(3.0)

    def loss(hidden, cap, target):
        options = {"logits": activations.softcap, "logit_parameters": [cap], "z_loss": 0.1}
        return linear_cross_entropy(hidden[None], weight, target[None], **options)

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, 0))(hidden, cap, target)
    hidden.requires_grad_()
    options = {"logits": activations.softcap, "logit_parameters": [cap], "z_loss": 0.1}
    whole = linear_cross_entropy(hidden, weight, target, reduction="none", **options)
    torch.testing.assert_close(each, torch.autograd.grad(whole.sum(), hidden, retain_graph=True)[0])
    upstream = torch.randn(3, 5)
    (batched,) = torch.autograd.grad(
        whole, hidden, upstream, is_grads_batched=True, retain_graph=True
    )
    single = [torch.autograd.grad(whole, hidden, u, retain_graph=True)[0] for u in upstream]
    torch.testing.assert_close(batched, torch.stack(single))


def test_chunks_and_kernels_change_nothing(monkeypatch):
    given, target = tensors(3, own, sizes=(30, 5, 40))
    options, target = options_of("all", target, 40, 3)
    sources = [t for t in given.values() if t is not None]
    found = []
    for chunk in (None, 1):
        for kernels in (True, False):
            if not kernels:
                monkeypatch.setattr("zeta.kernels.mixture._kernels", lambda rows: None)
            loss = loss_of(given, target, own, options, max_chunk_bytes=chunk)
            found.append((loss.detach(), *torch.autograd.grad(loss, sources)))
            monkeypatch.undo()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14)


def test_a_formula_without_a_kernel_is_computed_all_the_same():
    @formula(bound=2.0)
    def decided(x, bound):
        return x.clamp(-bound, bound)  # of PyTorch alone

    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)
    target = torch.arange(4)
    with pytest.raises(TypeError, match=r"must be written with arithmetic and zeta\.math"):
        linear_cross_entropy(hidden, weight, target, logits=decided)


def test_bad_input_is_named_before_any_product(monkeypatch):
    hidden, weight, target = torch.randn(6, 4), torch.randn(7, 4), torch.arange(6)
    soft = torch.full((6, 2), 0.5)
    pairs = torch.randint(7, (6, 2))
    monkeypatch.setattr("zeta.ops.mixture.chunks._by_chunks", None)

    def call(**changes):
        given = {"hidden": hidden, "weight": weight, "target": target}
        return linear_cross_entropy(**(given | changes))

    for changes, error, message in [
        ({"logits": activations.swiglu}, TypeError, r"formula of one input.*got swiglu\(gate, va"),
        ({"logits": torch.tanh}, TypeError, "formula of one input, .*got builtin_function"),
        ({"logit_parameters": {"cap": 3.0}}, TypeError, "those of logits, which is None"),
        (
            {"logits": activations.softcap, "logit_parameters": {"tau": 3.0}},
            TypeError,
            "'tau' is not a parameter",
        ),
        (
            {"logits": activations.softcap, "logit_parameters": [torch.ones(7)]},
            ValueError,
            r"cap must be a number or a scalar tensor, got shape \(7,\)",
        ),
        ({"target": pairs, "target_probability": soft * 1.1}, ValueError, r"token 0 .*sum 1\.1"),
        (
            {"target": pairs, "target_probability": torch.tensor([[1.5, -0.5]] * 6)},
            ValueError,
            "the least is -0.5",
        ),
        (
            {"target": torch.zeros(6, 9, dtype=torch.long), "target_probability": soft},
            ValueError,
            "names 9 classes of each token, and there are 7",
        ),
        ({"target": pairs}, ValueError, r"target must have shape \(6,\) .* got \(6, 2\)"),
        ({"target_probability": soft}, ValueError, r"target must be \(N, k\)"),
        ({"normalizer": 0}, ValueError, "normalizer must be positive and finite, got 0"),
        ({"normalizer": torch.tensor(0.0)}, ValueError, "normalizer must be positive"),
        ({"normalizer": 3.0, "reduction": "sum"}, ValueError, "normalizer divides a mean"),
        ({"outputs": ("entropy", "perplexity")}, ValueError, "outputs must be names among"),
        ({"outputs": "entropy"}, ValueError, "outputs must be names among .* in a tuple"),
        ({"token_weight": torch.ones(5)}, ValueError, r"token_weight must have shape \(6,\)"),
        ({"target": target[:5]}, ValueError, r"target must have shape \(6,\)"),
        ({"z_loss": float("nan")}, ValueError, "z_loss must be finite"),
        ({"hidden": hidden[None]}, ValueError, r"hidden must be \(N, D\)"),
        ({"weight": weight[None]}, ValueError, r"weight must have shape \(V, D\)"),
        ({"target": target + 2}, IndexError, "target 7 is out of range for 7 classes"),
        ({"label_smothing": 0.1}, TypeError, "unexpected keyword argument 'label_smothing'"),
    ]:
        with pytest.raises(error, match=f"(?s)linear_cross_entropy.*{message}|softcap.*{message}"):
            call(**changes)


def test_a_formula_that_has_no_value_names_the_logit():
    @formula
    def logarithm(x):
        return zm.log(x)

    hidden, weight = torch.tensor([[1.0], [-2.0]]), torch.tensor([[1.0], [0.5]])
    with pytest.raises(ValueError, match="logarithm maps the logit -2 to nan"):
        linear_cross_entropy(hidden, weight, torch.tensor([0, 1]), logits=logarithm)

    @formula
    def exponential(x):
        return zm.exp(x)

    with pytest.raises(ValueError, match="exponential maps the logit 100 to inf"):
        linear_cross_entropy(100 * hidden[:1], weight, torch.tensor([1]), logits=exponential)


def test_the_signature_is_that_of_the_options():
    import inspect

    from zeta.ops import LossOptions

    for function in (linear_cross_entropy, mixture_cross_entropy):
        parameters = inspect.signature(function).parameters
        for name, value in vars(LossOptions()).items():
            assert parameters[name].default == value
        assert "options" not in parameters
