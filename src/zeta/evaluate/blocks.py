"""Blocks of layers that take any leading dimensions, so that stacked networks run them as they are.

Shape suffixes: T places of a sequence, D features of a place, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A module whose forward pass takes inputs with one more leading dimension, of networks.

    It has no parameters of its own beside its layers', calls these on one tensor each, and counts
    dimensions from the last. :class:`zeta.evaluate.stack.Stack` then runs the forward pass once for
    all networks, with layers that compute for all of them; a forward pass of any other module goes
    through ``torch.vmap``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zeta.evaluate.blocks import Residual
        >>> Residual(nn.Identity())(torch.ones(2, 3)).sum()
        tensor(12.)
    """


class Residual(nn.Sequential, Block):
    """``x + layers(x)`` (He et al., 2015, "Deep residual learning for image recognition")."""

    def forward(self, x: Tensor) -> Tensor:
        """What the layers give is added to what they are given."""
        y: Tensor = super().forward(x)
        return x + y


class CausalAttention(Block):
    """Self-attention in which a place sees itself and those before (Vaswani et al., 2017).

    Args:
        features: D, of a place.
        heads: H, which divide the features.

    Shape: (…, T, D), as the result.
    """

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Without a bias, as that of the keys has no gradient: the softmax takes no notice of it.
        self.inputs = nn.Linear(features, 3 * features, bias=False)
        self.output = nn.Linear(features, features)

    def forward(self, x_TD: Tensor) -> Tensor:
        """softmax(q·kᵀ/√d)·v of each head, joined and mapped."""
        q_HTD, k_HTD, v_HTD = (
            # The fast kernels take one batch dimension.
            part.unflatten(-1, (self.heads, -1)).transpose(-2, -3).flatten(0, -4)
            for part in self.inputs(x_TD).chunk(3, dim=-1)
        )
        y_HTD = F.scaled_dot_product_attention(q_HTD, k_HTD, v_HTD, is_causal=True)
        y_TD: Tensor = self.output(y_HTD.transpose(-2, -3).reshape(x_TD.shape))
        return y_TD


class LastPlace(Block):
    """(…, T, D) to (…, D)."""

    def forward(self, x_TD: Tensor) -> Tensor:
        """The last place's features."""
        return x_TD[..., -1, :]


class Places(nn.Module):
    """Learned features of each place, added: (…, T, D), as the result."""

    def __init__(self, places: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(places, features))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x_TD: Tensor) -> Tensor:
        """``x + weight``."""
        return x_TD + self.weight


class Gate(Block):
    """``activation(gate)·value`` of the two halves of the last dimension (Shazeer, 2020).

    Args:
        activation: of one input.

    Shape: (…, 2·D) to (…, D).
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """The first half goes through the activation."""
        gate, value = x.chunk(2, dim=-1)
        y: Tensor = self.activation(gate) * value
        return y
