"""SELU, then softmax, as a module."""

import torch
from torch import Tensor, nn

from zeta.ops.selu_softmax import selu_softmax


class SELUSoftmax(nn.Module):
    """Softmax of the SELU of the input; see :func:`zeta.ops.selu_softmax`.

    Args:
        dim: the dimension that sums to one.
        device, dtype: taken as every module takes them; there is no parameter to place.

    Shape: any; the output has the input's shape and dtype.

    Example:
        >>> import torch
        >>> from zeta.nn import SELUSoftmax
        >>> SELUSoftmax()(torch.zeros(1, 4))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def __init__(
        self,
        dim: int = -1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim

    def reset_parameters(self) -> None:
        """There are none; so that a loop over modules may call it."""

    def forward(self, input: Tensor) -> Tensor:
        """Probabilities along ``dim``."""
        return selu_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return f"dim={self.dim}"
