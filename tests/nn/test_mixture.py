"""MixtureOfSoftmaxes: the distribution, its views, and upstream's state dicts."""

import copy

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from zeta import activations
from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead
from zeta.ops import mixture_cross_entropy
from zeta.ops.mixture import chunks, inference

K, D, V = 3, 8, 11


@pytest.fixture(params=["separate", "shared"])
def mixture(request):
    return MixtureOfSoftmaxes(K, D, V, decoder=request.param, dtype=torch.float64)


def test_separate_is_the_documents_module():
    mixture = MixtureOfSoftmaxes(K, D, V)
    x = torch.randn(5, D)
    weights = F.softmax(mixture.prior(x), -1)
    expected = sum(
        weights[:, k, None] * F.softmax(F.linear(x, mixture.weight[k], mixture.bias[k]), -1)
        for k in range(K)
    )
    torch.testing.assert_close(mixture(x), expected)


def test_shared_is_the_papers_module():
    mixture = MixtureOfSoftmaxes(K, D, V, decoder="shared", prior_bias=False)
    assert mixture.prior.bias is None
    x = torch.randn(5, D)
    weights = F.softmax(mixture.prior(x), -1)
    latents = torch.tanh(mixture.latent(x)).reshape(5, K, D)
    expected = sum(
        weights[:, k, None] * F.softmax(F.linear(latents[:, k], mixture.weight, mixture.bias), -1)
        for k in range(K)
    )
    torch.testing.assert_close(mixture(x), expected)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,), (2, 1, 3)])
def test_any_leading_dimensions(mixture, leading):
    x = torch.randn(*leading, D, dtype=torch.float64)
    target = torch.randint(V, leading)
    probabilities, weights = mixture(x, need_weights=True)
    assert probabilities.shape == (*leading, V)
    assert weights.shape == (*leading, K)
    ones = torch.ones(leading, dtype=torch.float64)
    torch.testing.assert_close(probabilities.sum(-1), ones)
    torch.testing.assert_close(weights.sum(-1), ones)
    torch.testing.assert_close(mixture.log_prob(x).exp(), probabilities)
    assert mixture.loss(x, target, reduction="none").shape == leading
    assert mixture.loss(x, target).shape == ()
    assert all(t.shape == (*leading, 4) for t in mixture.topk(x, 4))
    assert mixture.sample(x, 6).shape == (*leading, 6)


def test_loss_is_minus_the_log_probability(mixture):
    x, target = torch.randn(2, 5, D, dtype=torch.float64), torch.randint(V, (2, 5))
    target[1, 2] = -100
    log_prob = mixture.log_prob(x)
    nll = F.nll_loss(log_prob.reshape(-1, V), target.reshape(-1), reduction="none").reshape(2, 5)
    torch.testing.assert_close(mixture.loss(x, target, reduction="none"), nll)
    torch.testing.assert_close(mixture.loss(x, target), nll.sum() / 9)
    chunked = mixture.loss(x, target, max_chunk_bytes=1)
    torch.testing.assert_close(chunked, nll.sum() / 9)


def test_loss_passes_every_option_on(mixture):
    x, target = torch.randn(5, D, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4])
    options = {
        "ignore_index": 3,
        "reduction": "sum",
        "label_smoothing": 0.2,
        "class_weight": torch.rand(V, dtype=torch.float64),
    }
    hidden, log_prior, weight, bias, *_ = mixture._mixture(x)
    expected = mixture_cross_entropy(hidden, log_prior, weight, target, bias, **options)
    torch.testing.assert_close(mixture.loss(x, target, **options), expected)


@pytest.mark.parametrize("decoder", ["separate", "shared"])
def test_gradcheck_of_the_loss(decoder):
    mixture = MixtureOfSoftmaxes(2, 3, 4, decoder=decoder, dtype=torch.float64)
    x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1, -100, 3])

    def loss(x, *_):
        return mixture.loss(x, target)

    torch.autograd.gradcheck(loss, (x, *mixture.parameters()))
    torch.autograd.gradgradcheck(loss, (x, *mixture.parameters()))


def test_topk_is_sorted_and_right(mixture):
    x = torch.randn(5, D, dtype=torch.float64)
    log_probs, indices = mixture.topk(x, V)
    torch.testing.assert_close(log_probs, mixture.log_prob(x).gather(-1, indices))
    assert (log_probs.diff(dim=-1) <= 0).all()
    assert torch.equal(indices.sort(-1).values, torch.arange(V).expand(5, V))


def test_samples_follow_the_distribution(mixture):
    """χ² at a level of one in a thousand; the seed is fixed."""
    x = 2 * torch.randn(2, D, dtype=torch.float64)
    n = 20_000
    drawn = mixture.sample(x, n, generator=torch.Generator().manual_seed(1))
    again = mixture.sample(x, n, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again)
    for row, probabilities in zip(drawn, mixture(x).detach(), strict=True):
        counts = torch.bincount(row, minlength=V)
        p = scipy.stats.chisquare(counts.numpy(), n * probabilities.numpy()).pvalue
        assert p > 1e-3


def kept_and_renormalised(p, temperature=1.0, top_k=None, top_p=None):
    """The distribution that the options leave of p, by their definitions, class by class."""
    q = p ** (1 / temperature)
    order = np.argsort(-q)
    kept = order[:top_k]
    mass, reached = q[kept].sum(), 0.0
    if top_p is not None:
        for count, v in enumerate(kept, 1):
            reached += q[v] / mass
            if reached >= top_p:
                kept = kept[:count]
                break
    only = np.zeros_like(q)
    only[kept] = q[kept]
    return only / only.sum()


OPTIONS = [
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 4},
    {"top_k": V + 5},
    {"top_p": 0.6},
    {"temperature": 2.0, "top_k": 7, "top_p": 0.8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_samples_follow_the_options(mixture, options):
    """χ² at a level of one in a thousand; the seed is fixed, and repeats the draw."""
    x, n = 2 * torch.randn(2, D, dtype=torch.float64), 20_000
    drawn, again = (
        mixture.sample(x, n, torch.Generator().manual_seed(1), **options) for _ in range(2)
    )
    assert torch.equal(drawn, again)
    for row, p in zip(drawn.numpy(), mixture(x).detach().numpy(), strict=True):
        expected = n * kept_and_renormalised(p, **options)
        counts, kept = np.bincount(row, minlength=V), expected > 0
        assert kept.sum() > 1
        assert counts[~kept].sum() == 0
        assert scipy.stats.chisquare(counts[kept], expected[kept]).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_cold_samples_are_the_most_probable_class(mixture, dtype):
    """Whatever a temperature may be, and however far apart the logits."""
    mixture.to(dtype)
    x = torch.randn(6, D).mul(100).to(dtype)
    best = mixture.topk(x, 1)[1].expand(6, 5)
    for options in (
        {"temperature": 1e-9},
        {"temperature": 1e-300},
        {"temperature": 5e-324},
        {"top_k": 1},
        {"top_p": 0.0},
        {"top_p": 1e-9},
        {"temperature": 1e300, "top_k": 1, "top_p": 1.0},
    ):
        assert torch.equal(mixture.sample(x, 5, **options), best), options


def test_samples_of_equal_and_of_impossible_classes():
    mixture = MixtureOfSoftmaxes(K, D, 4 + V, decoder="shared")
    with torch.no_grad():
        mixture.weight.zero_()
        mixture.bias[:4] = 0
        mixture.bias[4:] = -torch.inf
    x = torch.randn(3, D)
    for options, distinct in (
        ({"temperature": 1e300}, 4),
        ({"temperature": 1e-300}, 4),
        ({"top_k": 2}, 2),
        ({"top_k": 6}, 4),
        ({"top_p": 0.5}, 2),
        ({"top_p": 0.51}, 3),
        ({"top_p": 1.0}, 4),
        ({"top_k": 3, "top_p": 0.5}, 2),
    ):
        for row in mixture.sample(x, 200, **options):
            assert len(row.unique()) == distinct, options
            assert row.max() < 4, options


def test_options_act_on_the_distribution_that_dropout_leaves():
    mixture = MixtureOfSoftmaxes(K, D, V, decoder="shared", dropout=1.0)
    with torch.no_grad():
        mixture.bias.copy_(torch.arange(V))
    x = 100 * torch.randn(20, D)
    assert (mixture.sample(x, top_k=1) == V - 1).all()
    mixture.eval()
    assert torch.equal(mixture.sample(x, top_k=1), mixture.topk(x, 1)[1])
    assert not (mixture.sample(x, top_k=1) == V - 1).all()


@pytest.mark.parametrize(("options", "mixtures"), [({}, 1), ({"temperature": 0.5}, K)])
def test_without_options_one_softmax_is_computed(mixture, options, mixtures, monkeypatch):
    rows = []
    logits = inference.mixture_logits
    monkeypatch.setattr(
        inference,
        "mixture_logits",
        lambda h, *rest: (rows.append(h[..., 0].numel()), logits(h, *rest))[1],
    )
    mixture.sample(torch.randn(50, D, dtype=torch.float64), **options)
    assert sum(rows) == 50 * mixtures


def test_every_method_runs_the_hooks_of_forward(mixture):
    """Pruning puts the weight in place in one; its graph serves one backward."""
    calls = []
    mixture.register_forward_hook(lambda *_: calls.append(1))
    prune.l1_unstructured(mixture, "weight", 0.5)
    x, target = torch.randn(5, D, dtype=torch.float64), torch.randint(V, (5,))
    for _ in range(2):
        mixture.loss(x, target).backward()
        mixture.log_prob(x, target).sum().backward()
        mixture.log_prob(x).sum().backward()
        mixture.topk(x=x, k=2)[0].sum().backward()
        mixture.sample(x)
    assert len(calls) == 10


def test_a_forward_of_ones_own_may_be_the_loss():
    class Loss(MixtureOfSoftmaxes):
        def forward(self, x, target):
            return self.loss(x, target)

    module = Loss(K, D, V)
    x, target = torch.randn(5, D), torch.randint(V, (5,))
    torch.testing.assert_close(module(x, target), -module.log_prob(x, target).mean())


def test_log_prob_of_targets(mixture):
    x, target = torch.randn(2, 5, D, dtype=torch.float64), torch.randint(V, (2, 5))
    expected = mixture.log_prob(x).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(mixture.log_prob(x, target), expected)
    with pytest.raises(IndexError, match="target -100 is out of range"):
        mixture.log_prob(x, torch.full((2, 5), -100))


@pytest.mark.parametrize("decoder", ["separate", "shared"])
def test_ten_thousand_classes_in_chunks(decoder, monkeypatch):
    """The whole distribution, its best classes and its gradient, from chunks of three tokens."""
    classes = 10_000
    mixture = MixtureOfSoftmaxes(K, D, classes, decoder=decoder, dtype=torch.float64)
    x = torch.randn(8, D, dtype=torch.float64, requires_grad=True)
    p, weights = mixture(x, need_weights=True)
    log_p = mixture.log_prob(x)
    (gradient,) = torch.autograd.grad(log_p.square().sum(), x)
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 3 * K * classes * 8)
    calls = []
    logits = inference.mixture_logits
    monkeypatch.setattr(
        inference, "mixture_logits", lambda h, *rest: (calls.append(len(h)), logits(h, *rest))[1]
    )
    chunked_p, chunked_weights = mixture(x, need_weights=True)
    assert calls == [3, 3, 2]
    torch.testing.assert_close(chunked_p, p)
    torch.testing.assert_close(chunked_weights, weights)
    torch.testing.assert_close(p.sum(-1), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(mixture.log_prob(x), log_p)
    (in_chunks,) = torch.autograd.grad(mixture.log_prob(x).square().sum(), x)
    torch.testing.assert_close(in_chunks, gradient)
    for ours, theirs in zip(mixture.topk(x, 7), log_p.topk(7), strict=True):
        assert torch.equal(ours, theirs) or torch.allclose(ours, theirs, rtol=1e-12)
    calls.clear()
    assert torch.equal(mixture.sample(x, 2, top_k=1), log_p.topk(1)[1].expand(8, 2))
    assert calls == [3, 3, 2]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5}, {"top_p": 1 - 1e-9}], ids=str)
@pytest.mark.parametrize("decoder", ["separate", "shared"])
def test_samples_of_ten_thousand_classes(decoder, options):
    """χ² over a hundred groups of classes of like probability; rare classes are drawn too."""
    classes, n = 10_000, 200_000
    mixture = MixtureOfSoftmaxes(K, D, classes, decoder=decoder)
    x = 3 * torch.randn(1, D)
    drawn = mixture.sample(x, n, torch.Generator().manual_seed(3), **options).squeeze(0)
    p = mixture(x).detach().double().squeeze(0) ** (1 / options.get("temperature", 1))
    groups = p.sort().indices.view(100, -1)
    counts = torch.bincount(drawn, minlength=classes)[groups].sum(1)
    expected = n * (p / p.sum())[groups].sum(1)
    assert scipy.stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_tied_weights_are_the_embeddings_own():
    embedding = nn.Embedding(V, D)
    mixture = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False)
    mixture.tie_weights(embedding)
    assert mixture.weight is embedding.weight
    mixture.loss(torch.randn(3, D), torch.tensor([0, 1, 2])).backward()
    assert embedding.weight.grad is not None
    with pytest.raises(ValueError, match="needs decoder='shared'"):
        MixtureOfSoftmaxes(K, D, V).tie_weights(embedding)
    with pytest.raises(ValueError, match=r"shape \(11, 8\), got \(12, 8\)"):
        mixture.tie_weights(nn.Embedding(V + 1, D))


def test_num_classes_follows_a_tied_embedding_that_is_resized():
    embedding = nn.Embedding(V, D)
    mixture = MixtureOfSoftmaxes(K, D, V, decoder="shared", bias=False)
    mixture.tie_weights(embedding)
    embedding.weight.data = torch.randn(V + 2, D)
    assert mixture.num_classes == V + 2
    assert f"num_classes={V + 2}" in repr(mixture)
    assert mixture.topk(torch.randn(3, D), V + 2)[1].max() == V + 1
    assert MixtureOfSoftmaxes(K, D, V).num_classes == V


class UpstreamMixture(nn.Module):
    """The layers of upstream's module, under upstream's names."""

    def __init__(self):
        super().__init__()
        self.mixture_weights = nn.Linear(D, K)
        self.softmax_layers = nn.ModuleList([nn.Linear(D, V) for _ in range(K)])


@pytest.mark.parametrize("prefix", ["", "head."])
def test_upstreams_state_dict_loads(prefix):
    upstream = UpstreamMixture()
    mixture = MixtureOfSoftmaxes(K, D, V)
    holder = nn.Module()
    holder.head = mixture
    state = {f"{prefix}{k}": v for k, v in upstream.state_dict().items()}
    (holder if prefix else mixture).load_state_dict(state)
    x = torch.randn(4, D)
    weights = F.softmax(upstream.mixture_weights(x), -1)
    expected = sum(
        weights[:, k, None] * F.softmax(layer(x), -1)
        for k, layer in enumerate(upstream.softmax_layers)
    )
    torch.testing.assert_close(mixture(x), expected)
    assert len(state) == 2 + 2 * K  # the caller's dict is left alone


def test_an_upstream_state_dict_of_another_size_is_refused():
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):
        MixtureOfSoftmaxes(K + 1, D, V).load_state_dict(UpstreamMixture().state_dict())


def test_own_state_dict_and_copies(mixture):
    twin = MixtureOfSoftmaxes(K, D, V, decoder=mixture.decoder, dtype=torch.float64)
    twin.load_state_dict(mixture.state_dict())
    x = torch.randn(4, D, dtype=torch.float64)
    assert torch.equal(twin(x), mixture(x))
    assert torch.equal(copy.deepcopy(mixture)(x), mixture(x))


def test_dropout_acts_in_training_only():
    mixture = MixtureOfSoftmaxes(K, D, V, dropout=0.5)
    x = torch.randn(4, D)
    assert not torch.equal(mixture(x), mixture(x))
    mixture.eval()
    assert torch.equal(mixture(x), mixture(x))


def test_without_bias():
    for decoder in ("separate", "shared"):
        mixture = MixtureOfSoftmaxes(K, D, V, decoder=decoder, bias=False, prior_bias=False)
        assert not [k for k, _ in mixture.named_parameters() if k in ("bias", "prior.bias")]
        assert mixture.loss(torch.randn(2, D), torch.tensor([0, 1])).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(mixture, dtype):
    half = copy.deepcopy(mixture).to(dtype)
    x = torch.randn(4, D).to(dtype)
    probabilities, weights = half(x, need_weights=True)
    assert probabilities.dtype == weights.dtype == half.log_prob(x).dtype == dtype
    torch.testing.assert_close(probabilities.double(), mixture(x.double()), rtol=0.1, atol=0.01)


def test_autocast(mixture):
    mixture.float()
    x, target = torch.randn(4, D), torch.tensor([0, 1, 2, 3])
    with torch.autocast("cpu", torch.bfloat16):
        probabilities = mixture(x)
        loss = mixture.loss(x, target)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(4))
    torch.testing.assert_close(loss, mixture.loss(x, target), rtol=0.05, atol=0.05)


def test_compiles_whole(mixture):
    torch._dynamo.reset()
    x, target = torch.randn(4, D, dtype=torch.float64), torch.tensor([0, 1, -100, 3])
    compiled = torch.compile(mixture.loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, target), mixture.loss(x, target))


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


def test_bad_input_is_named(mixture):
    good = torch.randn(4, D, dtype=torch.float64)
    with pytest.raises(ValueError, match="decoder must be one of"):
        MixtureOfSoftmaxes(K, D, V, decoder="both")
    with pytest.raises(ValueError, match=r"x must have shape \(…, 8\), got \(4, 9\)"):
        mixture(torch.randn(4, 9, dtype=torch.float64))
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        mixture(torch.ones(4, D, dtype=torch.int64))
    with pytest.raises(IndexError, match="target 11 is out of range for 11 classes"):
        mixture.loss(good, torch.tensor([0, 1, 2, 11]))
    with pytest.raises(ValueError, match=r"target must have the input's leading dimensions \(4,\)"):
        mixture.loss(good, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="k must be between 1 and 11, got 12"):
        mixture.topk(good, 12)
    for options, message in [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"temperature": 0}, r"positive and finite, got 0; topk\(x, 1\) gives the most probable"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"temperature": torch.inf}, "temperature must be positive and finite, got inf"),
        ({"temperature": torch.nan}, "temperature must be positive"),
        ({"top_k": 0}, "top_k must be at least 1, or None for all, got 0"),
        ({"top_p": -0.1}, r"top_p must be between 0 and 1, got -0\.1"),
        ({"top_p": 1.5}, r"top_p must be between 0 and 1, got 1\.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture.sample(good, **options)


@pytest.mark.parametrize("logits", [None, activations.softcap], ids=["none", "softcap"])
@pytest.mark.parametrize("decoder", ["separate", "shared"])
def test_a_formula_between_logits_and_softmax(decoder, logits):
    mixture = MixtureOfSoftmaxes(
        3,
        D,
        V,
        decoder=decoder,
        logits=logits and logits.with_defaults(cap=0.5),
        dtype=torch.float64,
    )
    with torch.no_grad():
        mixture.weight.mul_(5)
    x, target = torch.randn(6, D, dtype=torch.float64), torch.arange(6)
    hidden, log_prior, weight, bias, *_ = mixture._mixture(x)
    z = F.linear(hidden, weight, bias) if decoder == "shared" else None
    if z is None:
        z = torch.einsum("nkd,kvd->nkv", hidden, weight) + bias
    z = z if logits is None else 0.5 * torch.tanh(z / 0.5)
    p = (log_prior.exp().unsqueeze(2) * z.softmax(-1)).sum(1)
    torch.testing.assert_close(mixture(x), p)
    torch.testing.assert_close(mixture.log_prob(x), p.log())
    torch.testing.assert_close(mixture.loss(x, target), F.nll_loss(p.log(), target))
    assert torch.equal(mixture.topk(x, 2)[1], p.topk(2).indices)
    assert ("softcap" in repr(mixture)) == (logits is not None)


@pytest.mark.parametrize("logits", [None, activations.softcap], ids=["none", "softcap"])
@pytest.mark.parametrize("make", [SoftmaxHead, nn.Linear])
def test_from_a_trained_head_it_starts_at_its_loss(make, logits):
    head = make(64, 100) if make is nn.Linear else make(64, 100, logits=logits, dropout=0.1)
    with torch.no_grad():
        head.weight.mul_(5)
    mixture = MixtureOfSoftmaxes.from_head(head.eval(), 4)
    assert not mixture.training
    x, target = torch.randn(200, 64), torch.randint(100, (200,))
    if make is nn.Linear:
        loss = F.cross_entropy(head(x), target)
    else:
        loss = head.loss(x, target)
        assert mixture.logits is logits
        assert mixture.dropout.p == 0.1
    torch.testing.assert_close(mixture.loss(x, target), loss, rtol=2e-3, atol=0)
    _, prior = mixture(x, need_weights=True)
    assert (prior == 0.25).all()
    # Gradients tell the mixtures apart, and the head's own weight is a copy.
    mixture.loss(x, target).backward()
    assert mixture.prior.weight.grad.abs().max() > 0
    assert mixture.weight.data_ptr() != head.weight.data_ptr()


def test_from_what_is_no_head():
    with pytest.raises(
        TypeError, match=r"from_head: head must be a whole SoftmaxHead .*got Conv2d"
    ):
        MixtureOfSoftmaxes.from_head(nn.Conv2d(1, 1, 1), 2)
