"""The mixture of softmaxes as an output layer.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor, fx, nn

from zeta._backends.torch_plain import check_input, compute_dtype
from zeta._mixture import (
    check_k,
    check_sampling,
    check_target_shape,
    check_tie,
    check_x,
    checked_sizes,
)
from zeta.nn._wrappers import as_forward
from zeta.nn.module import Module
from zeta.ops.mixture import inference
from zeta.ops.mixture.cross_entropy import Options, cross_entropy
from zeta.ops.mixture.inference import Mixture
from zeta.ops.mixture.shard import Shard

# An ignore_index that no target has.
_NOTHING_IGNORED = torch.iinfo(torch.int64).min


class MixtureOfSoftmaxes(Module):
    """K softmax distributions over the classes, mixed with weights that depend on the input.

    ``p(v | x) = Σ_k prior_k(x) · softmax(decoder_k(x))_v``

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

    bias: nn.Parameter | None
    # Which classes these are of, where several processes share them: `zeta.distributed`.
    shard: Shard | None = None

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        K, D, V = checked_sizes(num_mixtures, input_size, num_classes, decoder, dropout)
        self.num_mixtures, self.input_size = K, D
        self.decoder = decoder
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

    @property
    def num_classes(self) -> int:
        """The weight's V, which follows an embedding that it is tied to and that is resized."""
        return self.weight.shape[-2] if self.shard is None else self.shard.num_classes

    def reset_parameters(self) -> None:
        """Draw every weight anew, as ``nn.Linear`` does: uniform within ±1/√D."""
        bound = 1 / math.sqrt(self.input_size)
        within = (child.parameters() for child in self.children())
        for parameter in itertools.chain(*within, self.parameters(recurse=False)):
            nn.init.uniform_(parameter, -bound, bound)

    def _never_decayed(self, name: str) -> bool:
        """The bias, which has two dimensions where each mixture has its own."""
        return name == "bias"

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
        # Within a model that torch.fx traces, a leaf, as modules of PyTorch's own are.
        given: Any = x
        if isinstance(given, fx.Proxy) and (path := cast(Any, given.tracer).path_of_module(self)):
            options = {"need_weights": need_weights}
            leaf: Any = given.tracer.create_proxy("call_module", path, (given,), options)
            return cast(Tensor, leaf)
        mixture = self._mixture(x)
        p = _with_leading_dims(inference.probabilities(mixture).to(x.dtype), x)
        if not need_weights:
            return p
        return p, _with_leading_dims(mixture.log_prior_NK.exp().to(x.dtype), x)

    @as_forward
    def log_prob(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Log-probabilities, in log space: no probability underflows to log 0.

        Of all classes, (…, V), or of one target class each, (…), which needs neither (…, V)
        numbers nor, in backward, more memory than :meth:`loss`.

        Raises:
            ValueError: shapes that do not fit, as in :meth:`loss`.
            IndexError: a target that is no class (checked on CPU).
        """
        if target is not None:
            return -self._cross_entropy(x, target, Options(_NOTHING_IGNORED, "none"))
        return _with_leading_dims(inference.log_prob(self._mixture(x)).to(x.dtype), x)

    @as_forward
    def loss(
        self,
        x: Tensor,
        target: Tensor,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        class_weight: Tensor | None = None,
        max_chunk_bytes: int | None = None,
    ) -> Tensor:
        """Cross-entropy of targets (…); see :func:`zeta.ops.mixture_cross_entropy`.

        Returns:
            A scalar, or the target's shape with reduction "none".

        Raises:
            ValueError: an input with another last dimension, or a target whose shape is not the
                input's leading dimensions.
            IndexError: a target that is no class (checked on CPU).
        """
        options = Options(ignore_index, reduction, label_smoothing, class_weight, max_chunk_bytes)
        return self._cross_entropy(x, target, options)

    @as_forward
    def topk(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes)
        log_probs_NK, indices_NK = inference.topk(self._mixture(x), k)
        return _with_leading_dims(log_probs_NK.to(x.dtype), x), _with_leading_dims(indices_NK, x)

    @torch.no_grad()
    @as_forward
    def sample(
        self,
        x: Tensor,
        num_samples: int = 1,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        """Classes drawn from the mixture, with replacement: (…, num_samples), int64.

        ``q(v) ∝ p(v)^(1/temperature)`` among the kept classes, of the distribution p that
        ``forward`` gives: in training mode, dropout acts.

        Without options a mixture is drawn first, then a class from its softmax, so that one
        softmax is computed and not K. Options, compilers and exporters take all of p(v).

        Args:
            x: (…, D).
            num_samples: how many for each.
            generator: draws; None for PyTorch's own.
            temperature: below 1 it favours probable classes, above 1 the others.
            top_k: keeps the k most probable classes.
            top_p: then keeps the fewest most probable classes whose probabilities, after
                temperature and top-k, add up to p: at least one.

        Raises:
            ValueError: num_samples or top_k is below 1, temperature is not positive and finite,
                or top_p not between 0 and 1.

        Example:
            >>> import torch
            >>> from zeta.nn import MixtureOfSoftmaxes
            >>> mos = MixtureOfSoftmaxes(num_mixtures=3, input_size=128, num_classes=10)
            >>> mos.sample(torch.randn(32, 128), temperature=0.8, top_k=5, top_p=0.95).shape
            torch.Size([32, 1])

        Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration.
        """
        check_sampling(num_samples, temperature, top_k, top_p)
        drawn_NS = inference.sample(
            self._mixture(x), num_samples, generator, temperature, top_k, top_p
        )
        return _with_leading_dims(drawn_NS, x)

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
            f"bias={self.bias is not None}"
        )

    def _cross_entropy(self, x: Tensor, target: Tensor, options: Options) -> Tensor:
        mixture = self._mixture(x)
        check_target_shape(target.shape, x.shape)
        loss = cross_entropy(
            mixture.hidden_NKD,
            mixture.log_prior_NK,
            mixture.weight,
            target.reshape(-1),
            mixture.bias,
            options,
            self.shard,
        )
        return loss.reshape(target.shape) if options.reduction == "none" else loss

    def _mixture(self, x: Tensor) -> Mixture:
        """What goes into the decoder, the mixtures' log-weights, and the decoder."""
        check_input(x, "MixtureOfSoftmaxes", "x")
        if x.is_nested:
            raise TypeError(
                "MixtureOfSoftmaxes: x is nested; give its tokens, x.values(), and for a loss the "
                "targets of these, target.values()"
            )
        check_x(x.shape, self.input_size)
        K, D = self.num_mixtures, self.input_size
        x_ND = x.reshape(-1, D)
        log_prior_NK = torch.log_softmax(self.prior(x_ND), -1, dtype=compute_dtype(x.dtype))
        if self.latent is None:
            hidden_NKD = x_ND.unsqueeze(1).expand(-1, K, -1)
        else:
            hidden_NKD = torch.tanh(self.latent(x_ND)).unflatten(1, (K, D))
        return Mixture(self.dropout(hidden_NKD), log_prior_NK, self.weight, self.bias, self.shard)


def _with_leading_dims(y: Tensor, x: Tensor) -> Tensor:
    """(N, …) as (leading dimensions of x, …)."""
    return y.reshape(*x.shape[:-1], *y.shape[1:])


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
