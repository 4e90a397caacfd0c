"""What output layers have in common: a mixture of softmaxes, of which one softmax is a case.

Shape suffixes: N tokens, K mixtures, D features, V classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, cast, overload

import torch
from torch import Tensor, fx, nn

from zeta._backends.torch_plain import check_input, compute_dtype
from zeta._formula import Formula
from zeta._loss_options import (
    LossOptions,
    LossOutputs,
    checked_options,
    flat_options,
    takes_options,
)
from zeta._mixture import (
    check_k,
    check_logits,
    check_sampling,
    check_target_shape,
    check_tie,
    check_x,
)
from zeta.nn._wrappers import as_forward
from zeta.nn.activations import FormulaModule
from zeta.nn.module import Module
from zeta.ops.mixture import inference
from zeta.ops.mixture.cross_entropy import bound_formula, cross_entropy
from zeta.ops.mixture.inference import Mixture
from zeta.ops.mixture.shard import Shard

# An ignore_index that no target has.
_NOTHING_IGNORED = torch.iinfo(torch.int64).min


class Head(Module):
    """A distribution over classes, which `_mixture` computes from what forward is given.

    Attributes:
        input_size: D.
        logits: the formula between logits and softmax, a module that learns its parameters, or
            None.
        weight, bias: the decoder's.
        dropout: of features that go into the decoder.
    """

    input_size: int
    logits: Formula | FormulaModule | None
    weight: nn.Parameter
    bias: nn.Parameter | None
    dropout: nn.Dropout
    # Which classes these are of, where several processes share them: `zeta.distributed`.
    shard: Shard | None = None

    @property
    def num_classes(self) -> int:
        """The weight's V, which follows an embedding that it is tied to and that is resized."""
        return self.weight.shape[-2] if self.shard is None else self.shard.num_classes

    def reset_parameters(self) -> None:
        """Draw every weight anew, as ``nn.Linear`` does: uniform within ±1/√D."""
        bound = 1 / math.sqrt(self.input_size)
        layers = (child for child in self.children() if not isinstance(child, FormulaModule))
        within = (layer.parameters() for layer in layers)
        for parameter in itertools.chain(*within, self.parameters(recurse=False)):
            nn.init.uniform_(parameter, -bound, bound)
        if isinstance(self.logits, FormulaModule):
            self.logits.reset_parameters()

    def _never_decayed(self, name: str) -> bool:
        """The bias, which has two dimensions where each mixture has its own."""
        return name == "bias"

    def _traced(self, x: Any, **options: Any) -> Any:
        """Within a model that torch.fx traces, a leaf, as modules of PyTorch's own are."""
        if isinstance(x, fx.Proxy) and (path := cast(Any, x.tracer).path_of_module(self)):
            return cast(Any, x.tracer).create_proxy("call_module", path, (x,), options)
        return None

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
            options = LossOptions(ignore_index=_NOTHING_IGNORED, reduction="none")
            return -cast(Tensor, self._cross_entropy(x, target, options))
        return with_leading_dims(inference.log_prob(self._mixture(x)).to(x.dtype), x)

    @overload
    def loss(
        self, x: Tensor, target: Tensor, *, outputs: Sequence[str], **options: Any
    ) -> tuple[Tensor, LossOutputs]: ...

    @overload
    def loss(self, x: Tensor, target: Tensor, **options: Any) -> Tensor: ...

    @as_forward
    @takes_options("logits", "logit_parameters")
    def loss(
        self, x: Tensor, target: Tensor, **options: Any
    ) -> Tensor | tuple[Tensor, LossOutputs]:
        """Cross-entropy of targets (…).

        Args:
            x: (…, D).
            target: (…), class indices; or (…, k) with ``target_probability``, (…, k).
            **options: see :class:`zeta.ops.LossOptions`; ``token_weight`` has the shape (…).

        Returns:
            A scalar, or (…) with reduction "none"; with ``outputs`` a pair, of that and a
            :class:`zeta.ops.LossOutputs` of tensors (…).

        Raises:
            ValueError: an input with another last dimension, a target whose shape is not the
                input's leading dimensions, or an option out of its range.
            IndexError: a target that is no class (checked on CPU).
        """
        own = ("logits", "logit_parameters")  # the module's
        return self._cross_entropy(
            x, target, checked_options(f"{type(self).__name__}.loss", options, *own)
        )

    @as_forward
    def topk(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k most probable classes: log-probabilities and indices, (…, k), best first.

        Raises:
            ValueError: k is not between 1 and the number of classes.
        """
        check_k(k, self.num_classes, layer=type(self).__name__)
        log_probs_NK, indices_NK = inference.topk(self._mixture(x), k)
        return with_leading_dims(log_probs_NK.to(x.dtype), x), with_leading_dims(indices_NK, x)

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
        """Classes drawn from the distribution, with replacement: (…, num_samples), int64.

        ``q(v) ∝ p(v)^(1/temperature)`` among the kept classes, of the distribution p that
        ``forward`` gives: in training mode, dropout acts.

        Without options, of several mixtures one is drawn first, then a class from its softmax, so
        that one softmax is computed and not K. Options, compilers and exporters take all of p(v).

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
        check_sampling(num_samples, temperature, top_k, top_p, layer=type(self).__name__)
        drawn_NS = inference.sample(
            self._mixture(x), num_samples, generator, temperature, top_k, top_p
        )
        return with_leading_dims(drawn_NS, x)

    def tie_weights(self, embedding: nn.Embedding) -> None:
        """Make the decoder use an embedding's weight, (V, D), as its own.

        Raises:
            ValueError: the embedding has another shape.
        """
        check_tie("shared", self.weight.shape, embedding.weight.shape, layer=type(self).__name__)
        self.weight = cast(nn.Parameter, embedding.weight)

    def _cross_entropy(
        self, x: Tensor, target: Tensor, options: LossOptions
    ) -> Tensor | tuple[Tensor, LossOutputs]:
        head, name = self._mixture(x), type(self).__name__
        soft = options.target_probability is not None
        leading = target.shape[:-1] if soft else target.shape
        check_target_shape(leading, x.shape, layer=name)
        options = flat_options(options, target.shape, torch.reshape)
        flat = target.reshape(-1, target.shape[-1]) if soft else target.reshape(-1)
        found = cross_entropy(name, head, flat, options)
        loss, of_tokens = found if isinstance(found, tuple) else (found, None)
        loss = loss.reshape(leading) if options.reduction == "none" else loss
        if of_tokens is None:
            return loss
        return loss, LossOutputs(*(None if t is None else t.reshape(leading) for t in of_tokens))

    def _mixture(self, x: Tensor) -> Mixture:
        """What goes into the decoder, the mixtures' log-weights, and the decoder."""
        raise NotImplementedError

    def _tokens(self, x: Tensor) -> Tensor:
        """The input as (N, D)."""
        name = type(self).__name__
        check_input(x, name, "x")
        if x.is_nested:
            raise TypeError(
                f"{name}: x is nested; give its tokens, x.values(), and for a loss the targets of "
                "these, target.values()"
            )
        check_x(x.shape, self.input_size, layer=name)
        return x.reshape(-1, self.input_size)

    def _formula(self, x: Tensor) -> tuple[Formula, Tensor]:
        """What stands between logits and softmax, and its parameters."""
        logits, given = self.logits, None
        if isinstance(logits, FormulaModule):
            given = logits.parameter_values(x)
            logits = logits.formula
        like = x.new_zeros((), dtype=compute_dtype(x.dtype))
        return bound_formula(type(self).__name__, logits, given, like)

    def _set_logits(self, logits: Formula | FormulaModule | None) -> None:
        """Keep what stands between logits and softmax, if it can."""
        check_logits(type(self).__name__, logits)
        self.logits = logits

    def _shown_logits(self) -> str:
        """What of ``print(module)`` is about the formula; a module is shown as one."""
        return f", logits={self.logits!r}" if isinstance(self.logits, Formula) else ""


def with_leading_dims(y: Tensor, x: Tensor) -> Tensor:
    """(N, …) as (leading dimensions of x, …)."""
    return y.reshape(*x.shape[:-1], *y.shape[1:])
