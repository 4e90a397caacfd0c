"""What decides a softmax head's loss beside its tensors, on any framework: every option once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

from zeta._formula import Formula

F = TypeVar("F", bound=Callable[..., Any])

OUTPUTS = ("token_loss", "logsumexp", "entropy", "prediction")
REDUCTIONS = ("none", "mean", "sum")


class LossOutputs(NamedTuple):
    """What a head's loss knows of each token, detached; None for what was not asked for.

    Attributes:
        token_loss: (N,), what reduction "none" gives; 0 for an ignored token, as is the rest.
        logsumexp: (N,), of φ(logits); of several mixtures the mean.
        entropy: (N,), of the distribution.
        prediction: (N,), the most probable class; -1 for an ignored token.

    Example:
        >>> import torch
        >>> from zeta.ops import linear_cross_entropy
        >>> hidden, weight, target = torch.eye(2), torch.eye(2), torch.tensor([0, 0])
        >>> loss, found = linear_cross_entropy(hidden, weight, target, outputs=("prediction",))
        >>> found.prediction
        tensor([0, 1])
    """

    token_loss: Any = None
    logsumexp: Any = None
    entropy: Any = None
    prediction: Any = None


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The options of a softmax head's loss.

    ``Σ_n token_weight_n·(-Σ_v m_v·log p_v + z_loss·lse²) / normalizer``, where m is one at the
    target, spread by label smoothing and multiplied by class weights, all as ``F.cross_entropy``
    has it, and lse the logarithm of the softmax's denominator.

    Attributes:
        logits: φ, a formula of one input, between logits and softmax; None for the logits as they
            are. It is computed in float32 for half types.
        logit_parameters: φ's parameters, by name or in their order: numbers or scalar tensors,
            which get gradients. None: its defaults.
        token_weight: (N,), what each token's loss is multiplied by. A token of weight 0 is ignored.
        z_loss: what lse² is multiplied by; of several mixtures the mean of their squares counts.
        normalizer: what the sum is divided by, a positive number or scalar tensor: the number of
            tokens in all batches whose gradients are accumulated, say. None: the sum of the
            weights of the tokens, each multiplied by its class's weight if it has one target.
        ignore_index: targets of this value contribute neither loss nor gradient; on PyTorch they
            are left out of the matrix products.
        reduction: "none", "mean" or "sum". The mean over no target at all is NaN, as in
            ``F.cross_entropy``; its gradients are zero.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1].
        class_weight: (V,), the weight of each class.
        target_probability: (N, k), of the k classes (N, k) that ``target`` names then: each row
            is a distribution. A token is ignored if all its k targets are.
        max_chunk_bytes: bound on the logits held at once, in bytes. Chunks of tokens are computed
            one after another, each with all its mixtures: one token's K·V logits are the least.
            None: 28 MiB, or a quarter of the weight's gradient if that is more; on JAX and
            TensorFlow 16 MiB.
        outputs: names among "token_loss", "logsumexp", "entropy" and "prediction". If there are
            any, the result is a pair, of the loss and a :class:`LossOutputs`.

    Example, of options that the losses take by keyword:
        >>> from zeta.ops import LossOptions
        >>> LossOptions(label_smoothing=0.1, z_loss=1e-4).reduction
        'mean'

    Source: Szegedy et al. 2016 for label smoothing; de Brébisson and Vincent 2016 and Chowdhery
    et al. 2022, PaLM, for the z-loss; Hinton et al. 2015 for soft targets.
    """

    logits: Formula | None = None
    logit_parameters: Mapping[str, Any] | Sequence[Any] | None = None
    token_weight: Any | None = None
    z_loss: float = 0.0
    normalizer: Any | None = None
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    class_weight: Any | None = None
    target_probability: Any | None = None
    max_chunk_bytes: int | None = None
    outputs: Sequence[str] = ()


_FIELDS = fields(LossOptions)
_NAMES = tuple(f.name for f in _FIELDS)


def takes_options(*without: str) -> Callable[[F], F]:
    """Give a function whose last argument is ``**options`` the signature with :class:`LossOptions`.

    Args:
        without: options that it does not take.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type)
        for f in _FIELDS
        if f.name not in without
    ]

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        *arguments, _ = signature.parameters.values()
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*arguments, *options]
        )
        return function

    return decorate


def checked_options(function: str, options: Mapping[str, Any], *without: str) -> LossOptions:
    """The options by keyword.

    Raises:
        TypeError: an option that there is not.
    """
    for name in options:
        if name not in _NAMES or name in without:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    return LossOptions(**options)


def check_formula(function: str, logits: Any) -> None:
    """Raise TypeError unless it can stand between logits and a softmax."""
    if not isinstance(logits, Formula) or len(logits.inputs) != 1:
        kind = repr(logits) if isinstance(logits, Formula) else type(logits).__name__
        raise TypeError(
            f"{function}: logits must be a formula of one input, as zeta.activations.softcap is "
            f"and @zeta.formula makes, got {kind}"
        )


def check_options(function: str, options: LossOptions) -> None:
    """Raise ValueError for an option out of its range."""
    reduction, share, bound = options.reduction, options.label_smoothing, options.max_chunk_bytes
    if reduction not in REDUCTIONS:
        raise ValueError(f"{function}: reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"{function}: label_smoothing must be in [0, 1], got {share}")
    if bound is not None and bound < 1:
        raise ValueError(f"{function}: max_chunk_bytes must be positive, got {bound}")
    if not math.isfinite(options.z_loss):
        raise ValueError(f"{function}: z_loss must be finite, got {options.z_loss}")
    unknown = [name for name in options.outputs if name not in OUTPUTS]
    if unknown or isinstance(options.outputs, str):
        raise ValueError(
            f"{function}: outputs must be names among {OUTPUTS}, in a tuple, "
            f"got {options.outputs!r}"
        )
    if options.normalizer is not None and reduction != "mean":
        raise ValueError(f"{function}: normalizer divides a mean, and reduction is {reduction!r}")


def check_normalizer(function: str, normalizer: Any) -> None:
    """Raise ValueError unless a number, or a scalar whose value is known, can divide a sum."""
    if not (normalizer > 0 and normalizer < math.inf):
        raise ValueError(
            f"{function}: normalizer must be positive and finite, got {float(normalizer)}"
        )


def bound_values(
    function: str, logits: Formula | None, given: Mapping[str, Any] | Sequence[Any] | None
) -> dict[str, Any]:
    """Every parameter of the formula between logits and softmax, by name.

    Raises:
        TypeError: no formula of one input, or parameters that are not its own.
        ValueError: a parameter that is not one number.
    """
    if logits is None:
        if given is not None:
            raise TypeError(f"{function}: logit_parameters are those of logits, which is None")
        return {}
    check_formula(function, logits)
    if given is None:
        return logits.bind()
    values = logits.bind(**given) if isinstance(given, Mapping) else logits.bind(*given)
    for name, value in values.items():
        shape, length = tuple(getattr(value, "shape", ())), logits.vectors.get(name, 1)
        if not isinstance(value, tuple) and math.prod(shape) != length:
            kind = "number or a scalar tensor" if length == 1 else f"vector of length {length}"
            raise ValueError(
                f"{function}: {logits.name}'s {name} must be a {kind}, got shape {shape}"
            )
    return values


def outputs_of(options: LossOptions, values: Sequence[Any]) -> LossOutputs:
    """Those that are asked for, of all in their order."""
    named = zip(OUTPUTS, values, strict=True)
    return LossOutputs(**{name: v for name, v in named if name in options.outputs})


def flat_options(
    options: LossOptions,
    target_shape: Sequence[int],
    reshape: Callable[[Any, tuple[int, ...]], Any],
) -> LossOptions:
    """The options of a layer, whose tokens (…) lie in several dimensions, for a loss of (N,).

    Raises:
        ValueError: weights or probabilities that have not their target's shape.
    """
    soft = options.target_probability is not None
    shape = tuple(target_shape)
    leading = shape[:-1] if soft else shape

    def flat(name: str, expected: tuple[int, ...], kept: tuple[int, ...]) -> Any:
        values = getattr(options, name)
        if values is None:
            return None
        if tuple(values.shape) != expected:
            raise ValueError(f"{name} must have shape {expected}, got {tuple(values.shape)}")
        return reshape(values, (-1, *kept))

    return replace(
        options,
        token_weight=flat("token_weight", leading, ()),
        target_probability=flat("target_probability", shape, shape[len(shape) - 1 :]),
    )
