"""Handwritten digits with selu_softmax as the output layer, trained on log-probabilities.

Run: python examples/classify_selu_softmax.py

`nn.CrossEntropyLoss` applies a softmax of its own. Fed with the probabilities of `selu_softmax`, it
computes the softmax of numbers between 0 and 1: with ten classes no loss is below 1.46, however
right the network is. `NLLLoss` on log-probabilities is the loss of the probabilities themselves.
This script trains both ways and prints what came of it.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from zeta import activations
from zeta.ops import selu_softmax


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Of selu_softmax's probabilities, whose logarithm is taken in one step, without underflow."""
    return F.nll_loss(F.log_softmax(activations.selu(logits), dim=-1), labels)


def cross_entropy_of_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """The mistake: a softmax of a softmax."""
    return F.cross_entropy(selu_softmax(logits, dim=-1), labels)


def main(loss_of: Callable[[Tensor, Tensor], Tensor], epochs: int = 10) -> tuple[float, float]:
    """Train; the accuracy on held-out images and their negative log-likelihood."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = map(
        torch.from_numpy,
        train_test_split((images / 16).astype("float32"), labels, random_state=0),
    )
    model = nn.Sequential(nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(x_train)).split(128):
            loss = loss_of(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        logits = model(x_test)
        accuracy = (selu_softmax(logits, dim=-1).argmax(-1) == y_test).float().mean()
        return accuracy.item(), negative_log_likelihood(logits, y_test).item()


if __name__ == "__main__":
    for loss in (negative_log_likelihood, cross_entropy_of_probabilities):
        accuracy, likelihood = main(loss)
        print(f"{loss.__name__:<31} accuracy {accuracy:.3f} test loss {likelihood:.3f}")
