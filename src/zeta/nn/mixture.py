"""The mixture of softmaxes as an output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, nn

from zeta._backends.torch_plain import compute_dtype
from zeta._formula import Formula
from zeta._mixture import check_tie, checked_sizes
from zeta.nn.activations import FormulaModule
from zeta.nn.head import Head, with_leading_dims
from zeta.nn.softmax_head import SoftmaxHead
from zeta.ops.mixture import inference
from zeta.ops.mixture.inference import Mixture

# How far from linear tanh is used in `from_head`, and how far apart its mixtures start.
_NEARLY_LINEAR, _NOISE = 1 / 32, 0.01


class MixtureOfSoftmaxes(Head):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(φ(decoder_k(x)))_v``

    With ``decoder="separate"`` each mixture is a full softmax layer on x, K·V·D weights. With
    ``decoder="shared"``, the paper's, each mixture has its own ``latent_k = tanh(Linear(x))`` and
    all share one decoder of V·D weights, which may be an embedding (:meth:`tie_weights`).

    Args:
        num_mixtures: K, at least 1.
        input_size: D, the size of the input's last dimension.
        num_classes: V.
        decoder: "separate" or "shared".
        bias: whether the decoder has a bias.
        prior_bias: whether the layer that computes the mixtures' weights has one.
        dropout: probability of dropping a feature that goes into the decoder, in training.
        logits: φ, a formula of one input between logits and softmax, such as
            ``zeta.activations.softcap``, or a module of it that learns its parameters,
            ``softcap.module(learnable=True)``; None for the logits as they are.
        device, dtype: of the parameters.

    Attributes:
        prior: ``nn.Linear(D, K)``.
        latent: ``nn.Linear(D, K·D)``, with the shared decoder only.
        weight: (K, V, D), or (V, D) with the shared decoder.
        bias: (K, V), or (V,) with the shared decoder; or None.

    Shape: input (…, D) with any leading dimensions; output (…, V).

    Raises:
        ValueError: a size below 1, an unknown decoder, a dropout that is no probability, or an
            input with another last dimension.
        TypeError: an input that is not floating point, or a nested tensor; give its ``values()``.

    Example:
        >>> import torch
        >>> from zeta.nn import MixtureOfSoftmaxes
        >>> mos = MixtureOfSoftmaxes(num_mixtures=3, input_size=128, num_classes=10)
        >>> probabilities, weights = mos(torch.randn(32, 128), need_weights=True)
        >>> probabilities.shape, weights.shape
        (torch.Size([32, 10]), torch.Size([32, 3]))
        >>> loss = mos.loss(torch.randn(32, 128), torch.randint(10, (32,)))

    ``log_prob``, ``loss``, ``topk`` and ``sample`` call the module, so that hooks of ``forward``
    run around them too, FSDP2's for instance.

    A state dict of upstream's module (``mixture_weights.*``, ``softmax_layers.{k}.*``) loads.

    Source: Yang et al. 2018, Breaking the Softmax Bottleneck; the MixtureOfSoftmaxes document.
    """

    def __init__(
        self,
        num_mixtures: int,
        input_size: int,
        num_classes: int,
        *,
        decoder: Literal["separate", "shared"] = "separate",
        bias: bool = True,
        prior_bias: bool = True,
        dropout: float = 0.0,
        logits: Formula | FormulaModule | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        self.num_mixtures, self.input_size = K, D
        self.decoder = decoder
        self._set_logits(logits)
        shared = decoder == "shared"
        self.prior = nn.Linear(D, K, bias=prior_bias, device=device, dtype=dtype)
        self.latent = nn.Linear(D, K * D, device=device, dtype=dtype) if shared else None
        self.dropout = nn.Dropout(dropout)
        per_mixture = () if shared else (K,)
        self.weight = nn.Parameter(torch.empty(*per_mixture, V, D, device=device, dtype=dtype))
        self.register_parameter(
            "bias",
            nn.Parameter(torch.empty(*per_mixture, V, device=device, dtype=dtype))
            if bias
            else None,
        )
        self.register_load_state_dict_pre_hook(_translate_upstream_state_dict)
        self._start()

    @overload
    def forward(self, x: Tensor, need_weights: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, need_weights: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        x: Tensor,
        need_weights: bool = False,
        *,
        _call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Probabilities (…, V); with ``need_weights``, also the mixtures' weights (…, K)."""
        if _call is not None:
            method, args, kwargs = _call
            return method(self, x, *args, **kwargs)
        leaf = self._traced(x, need_weights=need_weights)
        if leaf is not None:
            return cast(Tensor, leaf)
        mixture = self._mixture(x)
        p = with_leading_dims(inference.probabilities(mixture).to(x.dtype), x)
        if not need_weights:
            return p
        return p, with_leading_dims(mixture.log_prior_NK.exp().to(x.dtype), x)

    def tie_weights(self, embedding: nn.Embedding) -> None:
        """Make the shared decoder use an embedding's weight, (V, D), as its own.

        Raises:
            ValueError: the decoder is separate, or the embedding has another shape.
        """
        check_tie(self.decoder, self.weight.shape, embedding.weight.shape)
        self.weight = cast(nn.Parameter, embedding.weight)

    def extra_repr(self) -> str:
        """What ``print(module)`` shows."""
        return (
            f"num_mixtures={self.num_mixtures}, input_size={self.input_size}, "
            f"num_classes={self.num_classes}, decoder={self.decoder!r}, "
            f"bias={self.bias is not None}{self._shown_logits()}"
        )

    @classmethod
    def from_head(cls, head: SoftmaxHead | nn.Linear, num_mixtures: int) -> MixtureOfSoftmaxes:
        """A mixture that starts at a trained head's own loss, and can become better from there.

        Its decoder is shared. ``latent_k = tanh(ε·x + noise)`` is nearly ``ε·x``, the decoder's
        weight is the head's divided by ε, and the priors are equal: every mixture is the head, but
        for a noise that tells one from another. With ε = 1/32 the logits are wrong by a
        thousandth where features have about unit size, as after a layer norm.

        Args:
            head: one softmax, whose weight is copied, not used.
            num_mixtures: K, at least 1.

        Raises:
            TypeError: something else than a whole SoftmaxHead or an ``nn.Linear``.

        Example:
            >>> import torch
            >>> from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead
            >>> head = SoftmaxHead(64, 100)
            >>> mixture = MixtureOfSoftmaxes.from_head(head, 4)
            >>> x, target = torch.randn(8, 64), torch.randint(100, (8,))
            >>> bool((mixture.loss(x, target) - head.loss(x, target)).abs() < 0.01)
            True

        Source: Yang et al. 2018 for the mixture; Chen et al. 2016, Net2Net, for growing a network
        without changing what it computes.
        """
        if type(head) not in (SoftmaxHead, nn.Linear):
            raise TypeError(
                "from_head: head must be a whole SoftmaxHead or an nn.Linear, "
                f"got {type(head).__name__}"
            )
        V, D = head.weight.shape
        dropout, logits = 0.0, None
        if isinstance(head, SoftmaxHead):
            dropout, logits = head.dropout.p, copy.deepcopy(head.logits)
        mixture = cls(
            num_mixtures,
            D,
            V,
            decoder="shared",
            bias=head.bias is not None,
            dropout=dropout,
            logits=logits,
            device=head.weight.device,
            dtype=head.weight.dtype,
        )
        assert mixture.latent is not None
        with torch.no_grad():
            noise_KDD = torch.randn_like(mixture.latent.weight).view(-1, D, D)
            latent_KDD = torch.eye(D).to(noise_KDD) + _NOISE / math.sqrt(D) * noise_KDD
            mixture.latent.weight.copy_(_NEARLY_LINEAR * latent_KDD.view(-1, D))
            for parameter in (mixture.latent.bias, *mixture.prior.parameters()):
                parameter.zero_()
            mixture.weight.copy_(head.weight / _NEARLY_LINEAR)
            if mixture.bias is not None and head.bias is not None:
                mixture.bias.copy_(head.bias)
        return mixture.train(head.training)

    def _mixture(self, x: Tensor) -> Mixture:
        """What goes into the decoder, the mixtures' log-weights, and the decoder."""
        x_ND = self._tokens(x)
        K, D = self.num_mixtures, self.input_size
        log_prior_NK = torch.log_softmax(self.prior(x_ND), -1, dtype=compute_dtype(x.dtype))
        if self.latent is None:
            hidden_NKD = x_ND.unsqueeze(1).expand(-1, K, -1)
        else:
            hidden_NKD = torch.tanh(self.latent(x_ND)).unflatten(1, (K, D))
        formula = self._formula(x)
        return Mixture(
            self.dropout(hidden_NKD), log_prior_NK, self.weight, self.bias, *formula, self.shard
        )


def _translate_upstream_state_dict(
    module: MixtureOfSoftmaxes, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Rename upstream's ``mixture_weights`` and stack its K ``softmax_layers``, in place."""
    for kind in ("weight", "bias"):
        old_prior = f"{prefix}mixture_weights.{kind}"
        if old_prior in state_dict:
            state_dict[f"{prefix}prior.{kind}"] = state_dict.pop(old_prior)
        layers = [f"{prefix}softmax_layers.{k}.{kind}" for k in range(module.num_mixtures)]
        if all(layer in state_dict for layer in layers):
            stacked = torch.stack([state_dict.pop(layer) for layer in layers])
            state_dict[f"{prefix}{kind}"] = stacked
