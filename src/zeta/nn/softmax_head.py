"""One softmax over a formula of linear logits as an output layer.

Shape suffixes: N tokens, D features, V classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from zeta._backends.torch_plain import compute_dtype
from zeta._formula import Formula
from zeta._mixture import checked_sizes
from zeta.nn.activations import FormulaModule
from zeta.nn.head import Head, with_leading_dims
from zeta.ops.mixture import inference
from zeta.ops.mixture.inference import Mixture


class SoftmaxHead(Head):
    """A softmax over a formula of linear logits.

    ``p(v | x) = softmax(φ(x @ weight.T + bias))_v``

    It takes the calls of :class:`MixtureOfSoftmaxes`. Its state dict is that of an ``nn.Linear``.

    Args:
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        logits: φ, a formula of one input between logits and softmax, such as
            ``zeta.activations.softcap``, or a module of it that learns its parameters,
            ``softcap.module(learnable=True)``; None for the logits as they are.
        bias: whether there is one.
        dropout: probability of dropping a feature of the input, in training.
        device, dtype: of the parameters.

    Attributes:
        weight: (V, D), which may be an embedding's (``tie_weights``).
        bias: (V,) or None.
        logits: as given.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, a dropout that is no probability, or an input with another last
            dimension.
        TypeError: ``logits`` that is no formula of one input, an input that is not floating point,
            or a nested tensor; give its ``values()``.

    Example:
        >>> import torch
        >>> from zeta.activations import softcap
        >>> from zeta.nn import SoftmaxHead
        >>> head = SoftmaxHead(128, 10, logits=softcap.with_defaults(cap=50.0))
        >>> head(torch.randn(32, 128)).shape
        torch.Size([32, 10])
        >>> loss = head.loss(torch.randn(32, 128), torch.randint(10, (32,)), z_loss=1e-4)

    Source: Bridle 1990 for the softmax; the formula's own.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        *,
        logits: Formula | FormulaModule | None = None,
        bias: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _, D, V = checked_sizes(1, input_size, num_classes, "shared", dropout, layer=name)
        self.input_size = D
        self._set_logits(logits)
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(V, D, device=device, dtype=dtype))
        own = nn.Parameter(torch.empty(V, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", own)
        self._start()

    def forward(
        self,
        x: Tensor,
        *,
        _call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Tensor:
        """Probabilities (…, V)."""
        if _call is not None:
            method, args, kwargs = _call
            return cast(Tensor, method(self, x, *args, **kwargs))
        leaf = self._traced(x)
        if leaf is not None:
            return cast(Tensor, leaf)
        return with_leading_dims(inference.probabilities(self._mixture(x)).to(x.dtype), x)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return (
            f"input_size={self.input_size}, num_classes={self.num_classes}, "
            f"bias={self.bias is not None}{self._shown_logits()}"
        )

    def _mixture(self, x: Tensor) -> Mixture:
        x_ND = self._tokens(x)
        log_prior_N1 = x_ND.new_zeros((), dtype=compute_dtype(x.dtype)).expand(x_ND.shape[0], 1)
        return Mixture(
            self.dropout(x_ND).unsqueeze(1),
            log_prior_N1,
            self.weight,
            self.bias,
            *self._formula(x),
            self.shard,
        )
