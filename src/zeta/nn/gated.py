"""A gate as a module."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zeta._formula import Formula
from zeta._gated import Order, check_two_inputs
from zeta._modules import Counts, Learnable
from zeta.nn.activations import FormulaModule
from zeta.ops.gated import Reuse, gated


class GatedUnit(FormulaModule):
    """A formula of two inputs as a module, on one tensor that holds both, or on two.

    Args:
        formula: a gate, ``zeta.activations.swiglu`` say.
        values: starting values by parameter name; the formula's defaults where left out.
        dim: the dimension that holds gate and value.
        layout: ``"halves"``, one after the other, or ``"interleaved"``, in turn.
        gate_first: whether the gate comes before the value.
        reuse: ``"inputs"`` writes the gradient over the packed tensor, see :func:`zeta.ops.gated`.
        learnable, num_parameters, shape: as in :class:`FormulaModule`.
        channel_dim: the dimension of the result that holds the channels.
        device, dtype: of the parameters, as in every module.

    Shape: one input with ``2·n`` along ``dim`` gives ``n``; two of one shape give that shape.

    Raises:
        TypeError: the formula has not two inputs, or an unknown parameter name.
        ValueError: an odd size along ``dim``, two tensors where one is to be reused, or as
            :class:`FormulaModule`.

    Example:
        >>> import torch
        >>> from zeta.activations import swiglu
        >>> from zeta.nn import GatedUnit
        >>> unit = GatedUnit(swiglu)
        >>> unit
        GatedUnit(swiglu)
        >>> unit(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([2.1932, 7.0464])
        >>> unit(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        tensor([2.1932, 7.0464])
    """

    _inputs = 2
    # Of the class too, so that no parameter takes their names.
    dim = -1
    layout: Order = "halves"
    gate_first = True
    reuse: Reuse = None

    def __init__(
        self,
        formula: Formula,
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        dim: int = -1,
        layout: Order = "halves",
        gate_first: bool = True,
        reuse: Reuse = None,
        learnable: Learnable = None,
        num_parameters: Counts = 1,
        channel_dim: int = -1,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_two_inputs(formula)
        super().__init__(
            formula,
            values,
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            shape=shape,
            device=device,
            dtype=dtype,
        )
        self.dim, self.layout, self.gate_first, self.reuse = dim, layout, gate_first, reuse

    def forward(self, input: Tensor, value: Tensor | None = None) -> Tensor:
        """The gate, elementwise: of one packed tensor, or of gate and value."""
        if value is not None and self.reuse:
            raise ValueError('GatedUnit: reuse="inputs" is for one tensor that holds both, got two')
        if value is not None:
            return self.formula(input, value, **self.parameter_values(input))
        # The parameters belong to channels of the result, half as many.
        half = input.chunk(2, self.dim)[0] if self._counts else input
        return gated(
            self.formula,
            input,
            self.dim,
            layout=self.layout,
            gate_first=self.gate_first,
            reuse=self.reuse,
            **self.parameter_values(half),
        )

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        changed: dict[str, tuple[object, object]] = {
            "dim": (self.dim, -1),
            "layout": (self.layout, "halves"),
        }
        changed |= {"gate_first": (self.gate_first, True), "reuse": (self.reuse, None)}
        shown = [f"{name}={value!r}" for name, (value, usual) in changed.items() if value != usual]
        return ", ".join([super().extra_repr(), *shown])
