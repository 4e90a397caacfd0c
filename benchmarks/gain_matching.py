"""What gain matching does to a trained network before any fine-tuning.

    python benchmarks/gain_matching.py [--out benchmarks/results/NAME.md]

Networks learn to read digits with ReLU or GELU on 900 images, which then also are the example
inputs of the surgery. On the other 897: the distance of the logits from those before the surgery,
relative to these, and the accuracy. Medians over seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import zeta

NEW = ("exo", "learnable_selu_variation", "laplace", "silu", "tanh")
SEEN = 900
SEEDS = 5
EPOCHS = 20


def plain(act: Callable[[], nn.Module]) -> nn.Module:
    """Three hidden layers of 64."""
    hidden = [part for width in (64, 64, 64) for part in (nn.LazyLinear(width), act())]
    return nn.Sequential(*hidden, nn.LazyLinear(10))


def normalised(act: Callable[[], nn.Module]) -> nn.Module:
    """Three convolutions with batch normalisation."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for channels, stride in ((16, 1), (32, 2), (32, 1)):
        convolution = nn.LazyConv2d(channels, 3, stride=stride, padding=1)
        layers += [convolution, nn.BatchNorm2d(channels), act()]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Adam on shuffled batches of 50."""
    model(x[:2])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def after_surgery(
    model: nn.Module, old: type[nn.Module], name: str, x: Tensor, y: Tensor, *, match_gain: bool
) -> tuple[float, float]:
    """The relative distance of the logits, and the accuracy."""
    expected = model(x[SEEN:])
    report = zeta.replace_activations(
        model, old, name, match_gain=match_gain, example_inputs=x[:SEEN]
    )
    logits = model(x[SEEN:])
    report.undo()
    distance = (logits - expected).norm() / expected.norm()
    accuracy = (logits.argmax(-1) == y[SEEN:]).float().mean()
    return distance.item(), accuracy.item()


def rows() -> list[str]:
    """Of a Markdown table: a network and a new activation each."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy((images / 16).astype("float32")), torch.from_numpy(labels)
    lines = []
    for old in (nn.ReLU, nn.GELU):
        for build in (plain, normalised):
            models = []
            for seed in range(SEEDS):
                torch.manual_seed(seed)
                models.append(build(old))
                train(models[-1], x[:SEEN], y[:SEEN])
            for name in NEW:
                cells = []
                for match_gain in (False, True):
                    results = [
                        after_surgery(model, old, name, x, y, match_gain=match_gain)
                        for model in models
                    ]
                    cells.append(
                        [statistics.median(column) for column in zip(*results, strict=True)]
                    )
                (apart, accuracy), (apart_matched, accuracy_matched) = cells
                lines.append(
                    f"| {old.__name__} | {build.__name__} | {name} "
                    f"| {apart:.2f} → {apart_matched:.2f} "
                    f"| {accuracy:.3f} → {accuracy_matched:.3f} |"
                )
                print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    table = [
        "# Gain matching",
        "",
        f"`python benchmarks/gain_matching.py`: digits, medians of {SEEDS} seeds,",
        "without → with matching.",
        "",
        "| former | network | new | distance of the logits | accuracy |",
        "|---|---|---|---|---|",
        *rows(),
    ]
    if out:
        out.write_text("\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
