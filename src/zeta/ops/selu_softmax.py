"""SELU, then softmax."""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function

from zeta import activations
from zeta._backends.torch import is_symbol
from zeta._backends.torch_plain import check_input
from zeta._call_forms import input_also_called
from zeta._selu_softmax import DIM_LEFT_OUT, checked_dim
from zeta.activations import SELU_ALPHA, SELU_SCALE


@input_also_called("x")
def selu_softmax(
    input: Tensor,
    dim: int = DIM_LEFT_OUT,
    *,
    alpha: float = SELU_ALPHA,
    scale: float = SELU_SCALE,
) -> Tensor:
    """Softmax of the SELU of the input.

    ``softmax(scale·(max(0, x) + min(0, alpha·(e^x - 1))), dim)``. The input is left untouched.

    Upstream's implementation applied SELU's scale twice; ``scale=SELU_SCALE**2`` gives its
    numbers.

    Args:
        input: any shape; float16, bfloat16, float32 or float64.
        dim: the dimension that sums to one. The documented default 0 normalises over the batch
            if there is one: leaving it out on an input of two or more dimensions warns, once
            per process.
        alpha: SELU's saturation value, positive.
        scale: SELU's slope.

    Returns:
        Probabilities of the input's shape and dtype.

    Raises:
        TypeError: the input is not a floating-point tensor, or dim is no integer.
        IndexError: the input has no such dimension.

    Example:
        >>> import torch
        >>> from zeta.ops import selu_softmax
        >>> selu_softmax(torch.tensor([[-1.0, 0.0, 1.0]]), dim=-1)
        tensor([[0.0786, 0.2387, 0.6827]])

    For training, take log-probabilities, which cannot underflow to log(0):
    ``F.nll_loss(zeta.activations.selu.log_softmax(logits), target)``.

    Source: the selu_softmax document of Zeta; Klambauer et al. 2017 for SELU.
    """
    if is_symbol(input):
        node: Tensor = handle_torch_function(
            selu_softmax, (input,), input, dim, alpha=alpha, scale=scale
        )
        return node
    check_input(input, "selu_softmax")
    axis = checked_dim(dim, input.dim(), may_warn=not torch.compiler.is_compiling())
    return activations.selu.softmax(input, float(alpha), float(scale), dim=axis)
