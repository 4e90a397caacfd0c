"""The mixture of softmaxes where frameworks share it: its losses, and what it accepts.

The checks and what a sample is drawn from are every framework's, PyTorch's too. The losses are
written against what ``jax.numpy`` and ``keras.ops`` have in common; each framework adds the loop
over chunks of tokens and the derivative. Shape suffixes: C tokens of a chunk, N all tokens,
K mixtures, D features, V classes, M of them that may be drawn.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from zeta._backends.evaluate import dtype_name

REDUCTIONS = ("none", "mean", "sum")
DECODERS = ("separate", "shared")
DEFAULT_CHUNK_BYTES = 2**24

_HERE = "mixture_cross_entropy"
_LAYER = "MixtureOfSoftmaxes"
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


class Classes(Protocol):
    """Operations over the classes, the last axis, wherever they lie: here or on several devices."""

    @property
    def count(self) -> int:
        """How many classes there are."""

    def log_sum_exp(self, logits: Any) -> Any:
        """The logarithm of the sum of the exponentials over all classes."""

    def sum(self, values: Any) -> Any:
        """The sum over all classes."""

    def at(self, values: Any, target: Any) -> Any:
        """The value at each token's target class; the first axis holds the tokens."""


@dataclass(frozen=True)
class LossOptions:
    """What decides a token's loss beside the tensors.

    Attributes:
        label_smoothing: share of the target spread evenly over all classes.
        max_chunk_bytes: bound on the logits held at once; None for the default.
    """

    label_smoothing: float
    max_chunk_bytes: int | None

    def most_rows(self, row_elements: int, itemsize: int) -> int:
        """How many tokens a chunk may have, at least 1."""
        bound = self.max_chunk_bytes or DEFAULT_CHUNK_BYTES
        return max(1, bound // max(1, row_elements * itemsize))


def mixture_logits(xp: Any, hidden_CKD: Any, weight: Any, bias: Any | None) -> Any:
    """Every mixture's logits, (C, K, V); weight (V, D) shared by all mixtures, or (K, V, D)."""
    _, K, D = hidden_CKD.shape
    if len(weight.shape) == 3:
        logits_CKV = xp.einsum("ckd,kvd->ckv", hidden_CKD, weight)
    else:
        # As one product: Keras repeats the weight for every token otherwise.
        logits = xp.einsum("rd,vd->rv", xp.reshape(hidden_CKD, (-1, D)), weight)
        logits_CKV = xp.reshape(logits, (-1, K, weight.shape[0]))
    return logits_CKV if bias is None else logits_CKV + bias


def mixture_log_prob(
    log_sum_exp: Callable[..., Any], classes: Classes, logits_CKV: Any, log_prior_CK: Any
) -> Any:
    """log p(v) = logsumexp_k(log_prior_k + logits_kv - logsumexp_v(logits_k)), (C, V)."""
    log_scale_CK = log_prior_CK - classes.log_sum_exp(logits_CKV)
    return log_sum_exp(log_scale_CK[..., None] + logits_CKV, axis=1)


def token_losses(
    xp: Any,
    log_sum_exp: Callable[..., Any],
    classes: Classes,
    logits_CKV: Any,
    log_prior_CK: Any,
    target_C: Any,
    ignored_C: Any,
    target_weight_C: Any,
    class_weight_V: Any | None,
    label_smoothing: float,
) -> Any:
    """Each token's loss, (C,), 0 where ignored: smoothing and weights as F.cross_entropy has them.

    Args:
        xp: ``jax.numpy`` or ``keras.ops``.
        log_sum_exp: of the framework, taking ``axis``.
        classes: operations over the classes.
        logits_CKV, log_prior_CK: floating point, of one dtype.
        target_C: class indices, in range for ignored tokens too.
        ignored_C: whether the token counts for nothing.
        target_weight_C: the weight of each token's target class.
        class_weight_V: of the logits' dtype, or None.
        label_smoothing: share of the target spread evenly over all classes.
    """

    def unless_ignored(values: Any) -> Any:
        # An ignored token must not spoil the others' gradients: 0 · inf is NaN.
        ignored = xp.reshape(ignored_C, (-1, *[1] * (len(values.shape) - 1)))
        return xp.where(ignored, xp.zeros_like(values), values)

    if label_smoothing == 0:
        log_scale_CK = log_prior_CK - classes.log_sum_exp(logits_CKV)
        joint_CK = unless_ignored(log_scale_CK + classes.at(logits_CKV, target_C))
        losses_C = -target_weight_C * log_sum_exp(joint_CK, axis=1)
    else:
        log_prob_CV = mixture_log_prob(
            log_sum_exp, classes, unless_ignored(logits_CKV), unless_ignored(log_prior_CK)
        )
        if class_weight_V is not None:
            log_prob_CV = log_prob_CV * class_weight_V
        at_target_C = classes.at(log_prob_CV, target_C)
        mean_C = classes.sum(log_prob_CV) / classes.count
        losses_C = -(1 - label_smoothing) * at_target_C - label_smoothing * mean_C
    return unless_ignored(losses_C)


def warped_logits(
    xp: Any,
    best: Callable[[Any, int], tuple[Any, Any]],
    log_prob_NV: Any,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> tuple[Any, Any | None]:
    """What a class is drawn from: by temperature, then top-k, then top-p, as transformers has it.

    Args:
        xp: ``torch``, ``jax.numpy`` or ``keras.ops``.
        best: of the framework, the k largest of the last axis and their places, largest first.
        log_prob_NV: log p(v).
        temperature, top_k, top_p: as `check_sampling` accepts them.

    Returns:
        Logits (N, M), and the classes that they are of, (N, M), or None: of all, in their order.
    """
    # Relative to the most probable class, so that no quotient overflows. At 1e-30, which float32
    # holds, no other class is left: a lower temperature changes nothing.
    highest_N1 = xp.amax(log_prob_NV, axis=-1, keepdims=True)
    logits_NV = (log_prob_NV - highest_N1) / max(temperature, 1e-30)
    if top_k is None and top_p is None:
        return logits_NV, None
    V = logits_NV.shape[-1]
    logits_NM, classes_NM = best(logits_NV, V if top_k is None else min(top_k, V))
    if top_p is not None and top_p < 1:
        p_NM = xp.exp(logits_NM)
        mass_NM = xp.cumsum(p_NM, -1)
        mass_before_NM = (mass_NM - p_NM) / mass_NM[:, -1:]
        kept_NM = (mass_before_NM < top_p) | (mass_before_NM == 0)
        logits_NM = xp.where(kept_NM, logits_NM, -math.inf)
    return logits_NM, classes_NM


def check_arguments(
    check_input: Callable[[Any, str, str], None],
    hidden: Any,
    log_prior: Any,
    weight: Any,
    target: Any,
    bias: Any | None,
    class_weight: Any | None,
    *,
    num_classes: int | None = None,
    any_dtype: bool = False,
    function: str = _HERE,
    token_weight: Any | None = None,
    target_probability: Any | None = None,
) -> None:
    """Raise TypeError or ValueError for tensors that do not fit one another.

    Args:
        check_input: the framework's, which raises TypeError for what is not floating point.
        hidden, log_prior, weight, target, bias, class_weight: as the loss takes them.
        num_classes: how many classes there are, if weight holds a part of them; None: weight's.
        any_dtype: whether hidden, weight and bias may have different ones.
        function: whose arguments these are.
        token_weight, target_probability: as the loss takes them.
    """
    optional = {
        "bias": bias,
        "class_weight": class_weight,
        "token_weight": token_weight,
        "target_probability": target_probability,
    }
    given = {name: tensor for name, tensor in optional.items() if tensor is not None}
    floats = {"hidden": hidden, "log_prior": log_prior, "weight": weight} | given
    for name, tensor in floats.items():
        check_input(tensor, function, name)
    kind = dtype_name(target) if hasattr(target, "dtype") else type(target).__name__
    if kind not in INTEGERS:
        raise TypeError(f"{function}: target must consist of integer class indices, got {kind}")
    if not any_dtype:
        for name in ("weight", "bias"):
            if name in floats and floats[name].dtype != hidden.dtype:
                raise TypeError(
                    f"{function}: hidden and {name} must have one dtype, "
                    f"got {dtype_name(hidden)} and {dtype_name(floats[name])}"
                )
    if len(hidden.shape) != 3:
        raise ValueError(f"{function}: hidden must be (N, K, D), got shape {tuple(hidden.shape)}")
    N, K, D = hidden.shape
    if K == 0:
        raise ValueError(f"{function}: hidden must have at least one mixture, got K = 0")
    V = weight.shape[-2] if len(weight.shape) in (2, 3) else 0
    per_mixture = () if len(weight.shape) == 2 else (K,)
    all_classes = V if num_classes is None else num_classes
    targets: tuple[int, ...] = ()
    if target_probability is not None:
        if len(target.shape) != 2:
            raise ValueError(
                f"{function}: target must be (N, k), the classes that target_probability is of, "
                f"got shape {tuple(target.shape)}"
            )
        targets = (target.shape[1],)
        if targets > (all_classes,):
            raise ValueError(
                f"{function}: target names {targets[0]} classes of each token, "
                f"and there are {all_classes}"
            )
    shapes = {
        "log_prior": (N, K),
        "weight": (*per_mixture, V, D),
        "bias": (*per_mixture, V),
        "class_weight": (all_classes,),
        "token_weight": (N,),
        "target_probability": (N, *targets),
    }
    for name, tensor in (floats | {"target": target}).items():
        if name != "hidden":
            _check_shape(function, name, tensor, shapes.get(name, (N, *targets)))


def check_options(
    reduction: str, label_smoothing: float, max_chunk_bytes: int | None, *, function: str = _HERE
) -> None:
    """Raise ValueError for an option out of its range."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{function}: reduction must be one of {REDUCTIONS}, got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{function}: label_smoothing must be in [0, 1], got {label_smoothing}")
    if max_chunk_bytes is not None and max_chunk_bytes < 1:
        raise ValueError(f"{function}: max_chunk_bytes must be positive, got {max_chunk_bytes}")


def check_targets(bad: Sequence[int], num_classes: int, *, function: str = _HERE) -> None:
    """Raise IndexError if there are targets out of range, naming the first."""
    if len(bad):
        raise IndexError(
            f"{function}: target {bad[0]} is out of range for {num_classes} classes; "
            f"accepted: 0 to {num_classes - 1}, or ignore_index"
        )


def checked_sizes(
    num_mixtures: int,
    input_size: int,
    num_classes: int,
    decoder: str,
    dropout: float,
    *,
    layer: str = _LAYER,
) -> tuple[int, int, int]:
    """The three sizes of a layer.

    Raises:
        ValueError: a size below 1, an unknown decoder, or a dropout that is no probability.
    """
    sizes = {"num_mixtures": num_mixtures, "input_size": input_size, "num_classes": num_classes}
    for name, size in sizes.items():
        if operator.index(size) < 1:
            raise ValueError(f"{layer}: {name} must be at least 1, got {size}")
    if decoder not in DECODERS:
        raise ValueError(f"{layer}: decoder must be one of {DECODERS}, got {decoder!r}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"{layer}: dropout must be between 0 and 1, got {dropout}")
    return num_mixtures, input_size, num_classes


def check_x(shape: Sequence[int | None], input_size: int, *, layer: str = _LAYER) -> None:
    """Raise ValueError unless the last dimension is the layer's input size."""
    if not shape or shape[-1] != input_size:
        raise ValueError(f"{layer}: x must have shape (…, {input_size}), got {tuple(shape)}")


def check_target_shape(
    target: Sequence[int | None], x: Sequence[int | None], *, layer: str = _LAYER
) -> None:
    """Raise ValueError unless targets have the input's leading dimensions."""
    if not _fits(target, x[:-1]):
        raise ValueError(
            f"{layer}: target must have the input's leading dimensions {tuple(x[:-1])}, "
            f"got {tuple(target)}"
        )


def check_k(k: int, num_classes: int, *, layer: str = _LAYER) -> None:
    """Raise ValueError unless there are k classes."""
    if not 1 <= k <= num_classes:
        raise ValueError(f"{layer}: k must be between 1 and {num_classes}, got {k}")


def check_sampling(
    num_samples: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    *,
    layer: str = _LAYER,
) -> None:
    """Raise ValueError for no samples, or for an option of sampling out of its range."""
    if num_samples < 1:
        raise ValueError(f"{layer}: num_samples must be at least 1, got {num_samples}")
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"{layer}: temperature must be positive and finite, got {temperature}; "
            "topk(x, 1) gives the most probable class"
        )
    if top_k is not None and operator.index(top_k) < 1:
        raise ValueError(f"{layer}: top_k must be at least 1, or None for all, got {top_k}")
    if top_p is not None and not 0 <= top_p <= 1:
        raise ValueError(f"{layer}: top_p must be between 0 and 1, got {top_p}")


def check_tie(
    decoder: str, weight: Sequence[int], embedding: Sequence[int], *, layer: str = _LAYER
) -> None:
    """Raise ValueError unless a decoder of this kind and shape can be the embedding."""
    if decoder != "shared":
        raise ValueError(f"{layer}: tie_weights needs decoder='shared'")
    if tuple(weight) != tuple(embedding):
        raise ValueError(
            f"{layer}: tie_weights needs an embedding of shape {tuple(weight)}, "
            f"got {tuple(embedding)}"
        )


def _check_shape(function: str, name: str, tensor: Any, expected: tuple[int | None, ...]) -> None:
    if not _fits(tensor.shape, expected):
        raise ValueError(
            f"{function}: {name} must have shape {expected} to fit the other arguments, "
            f"got {tuple(tensor.shape)}"
        )


def _fits(shape: Sequence[int | None], expected: Sequence[int | None]) -> bool:
    """A size may be None while a model is traced, and is then taken on trust."""
    return tuple(shape) == tuple(expected) or (
        len(shape) == len(expected)
        and all(
            None in (size, wanted) or size == wanted
            for size, wanted in zip(shape, expected, strict=True)
        )
    )
