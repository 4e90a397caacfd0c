"""Handwritten digits in PyTorch: a learnable Exo and a mixture of softmaxes.

Run: python examples/digits_pytorch.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from zeta.nn import Exo, MixtureOfSoftmaxes


def main(epochs: int = 20) -> float:
    """Train, and give the accuracy on held-out images."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = map(
        torch.from_numpy,
        train_test_split((images / 16).astype("float32"), labels, random_state=0),
    )
    body = nn.Sequential(nn.Linear(64, 64), Exo(learnable=True, num_parameters=64))
    head = MixtureOfSoftmaxes(num_mixtures=3, input_size=64, num_classes=10)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(x_train)).split(128):
            # The loss takes features, not probabilities: all in log space.
            loss = head.loss(body(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return (head(body(x_test)).argmax(-1) == y_test).float().mean().item()


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
