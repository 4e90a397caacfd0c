"""Every example call of the five documents runs and gives the documented shape."""

import torch
from torch import nn


def test_exo():
    from zeta.nn import Exo

    exo_activation = Exo(alpha=0.5)
    assert exo_activation(torch.randn(2)).shape == (2,)


def test_learnable_selu_variation():
    from zeta.nn import LearnableSELUVariation

    module = LearnableSELUVariation()
    values = {name: parameter.item() for name, parameter in module.named_parameters()}
    documented = {"lambda_": 1.0507, "alpha": 1.67326, "beta": 1.0, "gamma": 0.1, "omega": 2.0}
    assert values == {k: torch.tensor(v).item() for k, v in documented.items()}
    x = torch.randn(3, 4)
    naive = torch.where(
        x > 0,
        module.lambda_ * x,
        module.lambda_
        * (
            module.alpha * (torch.exp(module.beta * x) - 1)
            + module.gamma * torch.sin(module.omega * x)
        ),
    )
    torch.testing.assert_close(module(x), naive)


def test_mixture_of_softmaxes():
    from zeta.ops import MixtureOfSoftmaxes

    mos = MixtureOfSoftmaxes(num_mixtures=3, input_size=128, num_classes=10)
    x = torch.randn(32, 128)
    assert mos(x).shape == (32, 10)
    output, weights = mos(x, need_weights=True)
    assert output.shape == (32, 10)
    assert weights.shape == (32, 3)


def test_mixture_of_softmaxes_with_a_large_vocabulary():
    from zeta.ops import MixtureOfSoftmaxes

    mos = MixtureOfSoftmaxes(num_mixtures=5, input_size=128, num_classes=10000)
    output = mos(torch.randn(32, 128))
    assert output.shape == (32, 10000)
    torch.testing.assert_close(output.sum(-1), torch.ones(32))


def test_selu_softmax_of_a_vector():
    from zeta.ops import selu_softmax

    output = selu_softmax(torch.randn(10))
    assert output.shape == (10,)
    torch.testing.assert_close(output.sum(), torch.tensor(1.0))


def test_selu_softmax_in_a_network():
    from zeta.ops import selu_softmax

    class SimpleNeuralNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(10, 5)

        def forward(self, x):
            return selu_softmax(self.fc1(x), dim=0)

    assert SimpleNeuralNet()(torch.randn(1, 10)).shape == (1, 5)


def test_selu_softmax_in_an_image_classifier():
    """The document's third example, with log-probabilities where it feeds a softmax twice."""
    import torch.nn.functional as F

    from zeta import activations

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
    losses = []
    for _ in range(20):
        log_probabilities = F.log_softmax(activations.selu(model(images)), dim=-1)
        loss = F.nll_loss(log_probabilities, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_laplace():
    from zeta.nn import LaplaceActivation

    lap_act = LaplaceActivation()
    x = torch.randn(10)
    assert lap_act(x).shape == (10,)
    documented = 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * 2**0.5)))
    torch.testing.assert_close(lap_act(x), documented)
    assert lap_act(x, mu=0.5, sigma=0.3).shape == (10,)
