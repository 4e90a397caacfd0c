"""A softmax over a formula of logits: every option against its definition, in every dtype."""

import functools
import types

import pytest
import torch
import torch.nn.functional as F

from zeta import activations, formula
from zeta import math as zm
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("phi", PHI.values(), ids=PHI)
@pytest.mark.parametrize("k", [1, 3])
def test_errs_at_most_twice_as_much_as_plain_operations(k, phi, name, dtype):
    """Over float64, loss and all gradients, in small chunks."""
    given, target = tensors(k, phi, dtype)
    exact = {n: None if t is None else t.detach().double().requires_grad_() for n, t in given.items()}
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
