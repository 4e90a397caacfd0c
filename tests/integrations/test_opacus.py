"""Per-sample gradients by Opacus: of a head, and of learnable activations."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zeta.nn import Exo, LearnableSELUVariation, MixtureOfSoftmaxes

# Opacus's own, of an embedding's input, which is of integers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning"),
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
]
opacus = pytest.importorskip("opacus", reason="pip install opacus")

B, D, V = 5, 6, 9


class LogProb(MixtureOfSoftmaxes):
    def forward(self, x):
        return self.log_prob(x)


class Model(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.body = nn.Sequential(
            nn.Embedding(V, D), Exo(learnable=True), LearnableSELUVariation(num_parameters=D)
        )
        self.head = head(2, D, V, decoder="shared")

    def forward(self, words):
        return self.head(self.body(words))


@pytest.fixture
def words_and_target():
    return torch.randint(V, (B,)), torch.randint(V, (B,))


@pytest.mark.parametrize("mode", ["hooks", "functorch"])
def test_a_forward_of_log_probabilities_gives_the_gradient_of_each_sample(mode, words_and_target):
    words, target = words_and_target
    model = Model(LogProb)
    alone = copy.deepcopy(model)
    wrapped = opacus.grad_sample.GradSampleModule(model, force_functorch=mode == "functorch")
    F.nll_loss(wrapped(words), target).backward()
    for b in range(B):
        alone.zero_grad()
        F.nll_loss(alone(words[b : b + 1]), target[b : b + 1]).backward()
        for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours.grad_sample[b], theirs.grad)


def test_another_method_than_forward_is_refused_in_training(words_and_target):
    words, target = words_and_target
    model = Model(MixtureOfSoftmaxes)
    wrapped = opacus.grad_sample.GradSampleModule(model)
    with pytest.raises(
        RuntimeError, match="of forward alone: use a subclass of MixtureOfSoftmaxes"
    ):
        model.head.loss(model.body(words), target)
    wrapped.eval()
    model.head.loss(model.body(words), target)
    model.train()
    with torch.no_grad():
        model.head.log_prob(model.body(words))
