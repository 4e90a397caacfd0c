"""Transfer learning by surgery: a network trained with ReLU goes on with another activation.

Run: python examples/transfer_learning.py

A network learns to tell the digits 0 to 4 apart. Its body then serves for the digits 5 to 9, of
which few images are labelled: with its ReLUs kept, and with ReLU replaced by
LearnableSELUVariation, as it is and matched to the ReLU that it replaces. Printed are how far the
surgery moved the features of the images, relative to their size, and the accuracy after
fine-tuning.
"""

import copy

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zeta

LABELLED = 50  # images for fine-tuning


class Network(nn.Module):
    """A convolutional body and a head for five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.head = nn.Linear(32 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.body(x))
        return logits


def body() -> nn.Sequential:
    """Three convolutions, each normalised."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for inputs, outputs, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Flatten())


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, learning_rate: float) -> None:
    """Steps of Adam on shuffled batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(50):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


def main() -> dict[str, tuple[float, float]]:
    """By what was done to the activations: how far features moved, and the accuracy at last."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy((images / 16).astype("float32")), torch.from_numpy(labels)
    pretrained = Network()
    train(pretrained, x[y < 5], y[y < 5], epochs=10, learning_rate=3e-3)

    x, y = x[y >= 5], y[y >= 5] - 5
    seen, unseen = slice(LABELLED), slice(LABELLED, None)
    with torch.no_grad():
        features = pretrained.body(x[unseen])
    results = {}
    for name in ("ReLU kept", "replaced", "replaced and matched"):
        model = copy.deepcopy(pretrained)
        if name != "ReLU kept":
            zeta.replace_activations(
                model,
                nn.ReLU,
                zeta.nn.LearnableSELUVariation,
                match_gain=name == "replaced and matched",
                example_inputs=x[seen],
            )
        with torch.no_grad():
            moved = (model.body(x[unseen]) - features).norm() / features.norm()
        # The optimizer is made after the surgery, so that it has the new parameters too.
        model.head.reset_parameters()
        train(model, x[seen], y[seen], epochs=20, learning_rate=1e-3)
        with torch.no_grad():
            accuracy = (model(x[unseen]).argmax(-1) == y[unseen]).float().mean()
        results[name] = moved.item(), accuracy.item()
    return results


if __name__ == "__main__":
    for name, (moved, accuracy) in main().items():
        print(f"{name:<21} features moved by {moved:.2f}, accuracy {accuracy:.3f}")
