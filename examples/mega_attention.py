"""Attention whose weights are LaplaceActivation of the scores, as in MEGA, instead of a softmax.

Run: python examples/mega_attention.py

The task is associative recall: a sequence of letters, each with a digit, then one of the letters,
whose digit is asked for. The laplace of a score does not depend on the other scores: a place is
attended to or not, and the weights need not sum to one. As in MEGA, queries and keys are scales and
shifts of one shared projection, and the attended values pass a gate.

Shape suffixes: B sequences, L places, D features.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeta.nn import LaplaceActivation

LETTERS, DIGITS, PAIRS = 12, 8, 6


class GatedAttention(nn.Module):
    """One head of gated attention from the last place to the others.

    Args:
        features: of every place.
        weights: turns scores into attention weights.
    """

    def __init__(self, features: int, weights: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shared = nn.Linear(features, features)
        self.scale = nn.Parameter(torch.ones(2, features))
        self.shift = nn.Parameter(torch.zeros(2, features))
        self.value = nn.Linear(features, features)
        self.gate = nn.Linear(features, features)
        self.weights = weights

    def forward(self, x_BLD: Tensor) -> Tensor:
        """What the last place attends to, (B, D)."""
        z_BLD = F.silu(self.shared(x_BLD))
        query_BD = z_BLD[:, -1] * self.scale[0] + self.shift[0]
        key_BLD = z_BLD[:, :-1] * self.scale[1] + self.shift[1]
        score_BL = torch.einsum("bd,bld->bl", query_BD, key_BLD) / math.sqrt(x_BLD.shape[-1])
        value_BLD = F.silu(self.value(x_BLD[:, :-1]))
        attended_BD = torch.einsum("bl,bld->bd", self.weights(score_BL), value_BLD)
        return attended_BD * F.silu(self.gate(x_BLD[:, -1]))


class Recall(nn.Module):
    """Letters and digits embedded, attention, and the digit's logits."""

    def __init__(self, weights: Callable[[Tensor], Tensor], features: int = 64) -> None:
        super().__init__()
        self.letter = nn.Embedding(LETTERS, features)
        self.digit = nn.Embedding(DIGITS + 1, features)  # the last stands for the one asked for
        self.attention = GatedAttention(features, weights)
        self.head = nn.Linear(features, DIGITS)

    def forward(self, letters: Tensor, digits: Tensor) -> Tensor:
        """Logits (B, digits)."""
        logits: Tensor = self.head(self.attention(self.letter(letters) + self.digit(digits)))
        return logits


def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Letters (B, L), digits (B, L) and the digit asked for (B,)."""
    letters = torch.rand(size, LETTERS).argsort(-1)[:, :PAIRS]
    digits = torch.randint(DIGITS, (size, PAIRS))
    asked = torch.randint(PAIRS, (size, 1))
    unknown = torch.full((size, 1), DIGITS)
    answer = digits.gather(1, asked).squeeze(1)
    return (
        torch.cat([letters, letters.gather(1, asked)], 1),
        torch.cat([digits, unknown], 1),
        answer,
    )


def main(weights: Callable[[Tensor], Tensor], steps: int = 300) -> float:
    """Train, and give the accuracy on fresh sequences; guessing gives 1/8."""
    torch.manual_seed(0)
    model = Recall(weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        letters, digits, answer = batch(128)
        loss = F.cross_entropy(model(letters, digits), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    letters, digits, answer = batch(2000)
    with torch.no_grad():
        return (model(letters, digits).argmax(-1) == answer).float().mean().item()


if __name__ == "__main__":
    for name, weights in (("laplace", LaplaceActivation()), ("softmax", nn.Softmax(-1))):
        print(f"{name} accuracy {main(weights):.3f}")
