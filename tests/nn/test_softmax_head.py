"""One softmax over a formula of logits as a module."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeta import activations
from zeta.nn import SoftmaxHead, parameter_groups

D, V = 8, 11
LOGITS = [None, activations.softcap.with_defaults(cap=0.5), activations.sigsoftmax]


@pytest.fixture(params=LOGITS, ids=["none", "softcap", "sigsoftmax"])
def head(request):
    head = SoftmaxHead(D, V, logits=request.param, dtype=torch.float64)
    with torch.no_grad():
        head.weight.mul_(5)
    return head


def log_prob(head, x):
    z = F.linear(x, head.weight, head.bias)
    return (z if head.logits is None else head.logits(z)).log_softmax(-1)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)], ids=str)
def test_every_method(head, leading):
    x = torch.randn(*leading, D, dtype=torch.float64)
    target = torch.randint(V, leading)
    expected = log_prob(head, x)
    torch.testing.assert_close(head(x), expected.exp())
    torch.testing.assert_close(head.log_prob(x), expected)
    of_target = expected.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(head.log_prob(x, target), of_target)
    torch.testing.assert_close(head.loss(x, target, reduction="none"), -of_target)
    values, classes = head.topk(x, 3)
    torch.testing.assert_close(values, expected.topk(3).values)
    assert torch.equal(classes, expected.topk(3).indices)
    assert head.sample(x, 5).shape == head.sample(x, 5, top_k=2).shape == (*leading, 5)
    loss, of_tokens = head.loss(x, target, outputs=("entropy", "prediction"))
    assert loss.shape == ()
    assert of_tokens.entropy.shape == of_tokens.prediction.shape == leading
    weights = torch.rand(leading, dtype=torch.float64)
    weighted = head.loss(x, target, token_weight=weights, reduction="sum")
    torch.testing.assert_close(weighted, -(weights * of_target).sum())


def test_soft_targets(head):
    x = torch.randn(2, 3, D, dtype=torch.float64)
    classes = torch.randint(V, (2, 3, 4))
    probability = torch.rand(2, 3, 4, dtype=torch.float64).softmax(-1)
    loss = head.loss(x, classes, target_probability=probability)
    expected = -(probability * log_prob(head, x).gather(-1, classes)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)


def test_samples_follow_the_distribution(head):
    x = torch.randn(D, dtype=torch.float64)
    p = head(x).detach()
    for options in ({}, {"top_k": V}):
        drawn = head.sample(x, 20_000, torch.Generator().manual_seed(3), **options)
        counts = torch.bincount(drawn, minlength=V) / 20_000
        assert ((counts - p).abs() <= 5 * (p * (1 - p) / 20_000).sqrt() + 1e-9).all()


def test_a_formula_that_learns():
    learned = activations.softcap.module(learnable=True)
    head = SoftmaxHead(D, V, logits=learned)
    assert head.logits is learned
    head.loss(torch.randn(4, D), torch.arange(4)).backward()
    assert learned.cap.grad.abs() > 0
    head.reset_parameters()
    assert learned.cap == 30
    per_channel = activations.softcap.module(learnable=True, num_parameters=V)
    with pytest.raises(ValueError, match="one value of each parameter, got one for each of 11"):
        SoftmaxHead(D, V, logits=per_channel)


def test_its_state_dict_is_a_linear_layers():
    linear, head = nn.Linear(D, V), SoftmaxHead(D, V, logits=activations.softcap)
    head.load_state_dict(linear.state_dict())
    assert torch.equal(head.weight, linear.weight)
    again = copy.deepcopy(head)
    x = torch.randn(3, D)
    assert torch.equal(again(x), head(x))
    decayed, kept = parameter_groups(head, weight_decay=0.1)
    assert [p.shape for p in decayed["params"]] == [(V, D)]
    assert [p.shape for p in kept["params"]] == [(V,)]


def test_tied_weights_and_dropout():
    embedding, head = nn.Embedding(V, D), SoftmaxHead(D, V, bias=False, dropout=0.5)
    head.tie_weights(embedding)
    assert head.weight is embedding.weight
    x = torch.ones(2, D)
    assert not torch.equal(head(x), head(x))
    head.eval()
    assert torch.equal(head(x), head(x))
    with pytest.raises(ValueError, match=r"SoftmaxHead: tie_weights needs .* \(11, 8\)"):
        head.tie_weights(nn.Embedding(V + 1, D))


def test_bad_input_is_named():
    for arguments, error, message in [
        ((0, 3), ValueError, "SoftmaxHead: input_size must be at least 1, got 0"),
        ((3, 0), ValueError, "SoftmaxHead: num_classes must be at least 1, got 0"),
    ]:
        with pytest.raises(error, match=message):
            SoftmaxHead(*arguments)
    with pytest.raises(TypeError, match="SoftmaxHead: logits must be a formula of one input"):
        SoftmaxHead(D, V, logits=torch.tanh)
    head, x = SoftmaxHead(D, V), torch.randn(3, D)
    with pytest.raises(ValueError, match=r"SoftmaxHead: x must have shape \(…, 8\)"):
        head(torch.randn(3, D + 1))
    with pytest.raises(ValueError, match="target must have the input's leading dimensions"):
        head.loss(x, torch.arange(4))
    with pytest.raises(ValueError, match=r"token_weight must have shape \(3,\), got \(4,\)"):
        head.loss(x, torch.arange(3), token_weight=torch.ones(4))
    with pytest.raises(TypeError, match=r"SoftmaxHead\.loss\(\) got .* argument 'logits'"):
        head.loss(x, torch.arange(3), logits=activations.softcap)
    with pytest.raises(ValueError, match="SoftmaxHead: k must be between 1 and 11"):
        head.topk(x, 12)


def test_compiles_whole_and_exports():
    head, x = SoftmaxHead(D, V, logits=activations.softcap), torch.randn(3, D)
    target = torch.arange(3)
    compiled = torch.compile(head.loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, target, z_loss=0.1), head.loss(x, target, z_loss=0.1))
    exported = torch.export.export(head, (x,)).module()
    torch.testing.assert_close(exported(x), head(x))
