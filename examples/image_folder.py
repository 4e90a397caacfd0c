"""Images in a folder of class folders, 32×32 as CIFAR-10's, with a learnable Exo per channel.

Run: python examples/image_folder.py FOLDER [--epochs 10]

FOLDER holds one folder of images per class, as torchvision's ImageFolder has it; Pillow reads them,
and torchvision is not needed. Every fifth image is held out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from zeta.nn import Exo

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
SIZE = 32


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Pairs of an image, (3, 32, 32) in [-1, 1], and the index of its class.

    Args:
        root: the folder; classes are its folders in alphabetical order.

    Raises:
        FileNotFoundError: no images in folders of it.
    """

    def __init__(self, root: Path) -> None:
        self.classes = sorted(path.name for path in root.glob("*/"))
        self.samples = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((root / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        if not self.samples:
            raise FileNotFoundError(f"no images in folders of {str(root)!r}: FOLDER/CLASS/IMAGE")

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1, label


def network(num_classes: int) -> nn.Module:
    """Three convolutions, each followed by an Exo with one alpha per channel."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.BatchNorm2d(outputs),
            Exo(learnable=True, num_parameters=outputs),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


def main(folder: Path, epochs: int) -> float:
    """Train, and give the accuracy on the images held out."""
    torch.manual_seed(0)
    images = ImageFolder(folder)
    held_out = range(0, len(images), 5)
    train = DataLoader(
        Subset(images, [i for i in range(len(images)) if i % 5]), batch_size=64, shuffle=True
    )
    model = network(len(images.classes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        model.train()
        for x, y in train:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        test = DataLoader(Subset(images, list(held_out)), batch_size=64)
        correct = sum(int((model(x).argmax(-1) == y).sum()) for x, y in test)
    return correct / len(held_out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on a folder of class folders of images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    try:
        print(f"accuracy {main(arguments.folder, arguments.epochs):.3f}")
    except OSError as error:
        sys.exit(f"image_folder: {error}")
