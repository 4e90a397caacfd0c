"""An activation and a linear map as one module, which keeps the activation's inputs alone."""

from typing import Any

import torch
from torch import Tensor, nn

from zeta._formula import Formula
from zeta._gated import Order
from zeta._modules import Learnable
from zeta.nn.activations import FormulaModule
from zeta.nn.gated import GatedUnit
from zeta.ops.activated_linear import activated_linear
from zeta.ops.gated import Reuse


class ActivatedLinear(nn.Linear):
    """``linear(formula(…))``, an ``nn.Linear`` that applies a formula first; for its memory.

    See :func:`zeta.ops.activated_linear`. Its state is that of ``nn.Linear``, and the formula's
    parameters under ``activation`` where they are learned.

    Args:
        in_features: the last size of an activation.
        out_features: the last size of the result.
        formula: of one input, or a gate of two.
        bias: whether there is a bias.
        layout, gate_first, reuse: of one tensor, as in :func:`zeta.ops.gated`.
        learnable: make every parameter of the formula an ``nn.Parameter``, or those that are named;
            None for the formula's own choice.
        shape: of a learned scalar, () or (1,), as in :class:`FormulaModule`.
        device, dtype: as in every module.

    Shape: (…, in) for each input of the formula, or (…, 2·in) for both of a gate; gives (…, out).

    Raises:
        TypeError: the formula takes more than two inputs.

    Example:
        >>> import torch
        >>> from zeta.activations import swiglu
        >>> from zeta.nn import ActivatedLinear
        >>> down = ActivatedLinear(8, 4, swiglu, bias=False)
        >>> down
        ActivatedLinear(
          in_features=8, out_features=4, bias=False
          (activation): GatedUnit(swiglu)
        )
        >>> down(torch.ones(3, 16)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        formula: Formula,
        bias: bool = True,
        *,
        layout: Order = "halves",
        gate_first: bool = True,
        reuse: Reuse = None,
        learnable: Learnable = None,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        own: dict[str, Any] = {"learnable": learnable, "shape": shape}
        own |= {"device": device, "dtype": dtype}
        if len(formula.inputs) == 2:
            own |= {"layout": layout, "gate_first": gate_first, "reuse": reuse}
        kind = GatedUnit if len(formula.inputs) == 2 else FormulaModule
        self.activation: FormulaModule = kind(formula, **own)
        self.layout, self.gate_first, self.reuse = layout, gate_first, reuse

    def forward(self, *inputs: Tensor) -> Tensor:
        """The formula of the inputs, then the linear map."""
        return activated_linear(
            *inputs,
            weight=self.weight,
            bias=self.bias,
            formula=self.activation.formula,
            layout=self.layout,
            gate_first=self.gate_first,
            reuse=self.reuse,
            **self.activation.parameter_values(inputs[0]),
        )
