"""The mixture of softmaxes where frameworks share it: its losses, and what it accepts.

The checks and what a sample is drawn from are every framework's, PyTorch's too. The losses are
written against what ``jax.numpy`` and ``keras.ops`` have in common; each framework adds the loop
over chunks of tokens and the derivative. Shape suffixes: C tokens of a chunk, N all tokens,
K mixtures, D features, V classes, T targets of a token, M classes that may be drawn.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from zeta._backends.evaluate import dtype_name
from zeta._loss_options import LossOptions, check_formula

DECODERS = ("separate", "shared")
DEFAULT_CHUNK_BYTES = 2**24
# An ignore_index that no target has.
NOTHING_IGNORED = -(2**31)

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

    def at(self, values_CKV: Any, target_CT: Any) -> Any:
        """The values at each token's target classes, (C, K, T)."""

    def best(self, values_CV: Any) -> Any:
        """The class of the largest value, the first of several."""


class Tokens(NamedTuple):
    """What is known of some tokens' targets.

    Attributes:
        target_CT: class indices; 0 where ignored.
        mass_CT: how much each target counts.
        ignored_C: whether the token counts for nothing.
    """

    target_CT: Any
    mass_CT: Any
    ignored_C: Any


class Found(NamedTuple):
    """Of each token, (C,): 0 and class -1 where ignored. The last two are None unless wanted."""

    loss_C: Any
    log_sum_exp_C: Any
    entropy_C: Any
    prediction_C: Any


def most_rows(options: LossOptions, row_elements: int, itemsize: int) -> int:
    """How many tokens a chunk may have, at least 1."""
    bound = options.max_chunk_bytes or DEFAULT_CHUNK_BYTES
    return max(1, bound // max(1, row_elements * itemsize))


def wants_distribution(options: LossOptions) -> bool:
    """Whether the tokens' entropies and predictions are asked for."""
    return "entropy" in options.outputs or "prediction" in options.outputs


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
    return _mixed(log_sum_exp, log_scale_CK[..., None] + logits_CKV)


def _mixed(log_sum_exp: Callable[..., Any], joint_CKX: Any) -> Any:
    """logsumexp over the mixtures. Of one, -inf has a gradient too."""
    return joint_CKX[:, 0] if joint_CKX.shape[1] == 1 else log_sum_exp(joint_CKX, axis=1)


def weighed_targets(
    xp: Any, classes: Classes, target_N: Any, options: LossOptions, like: Any
) -> tuple[Tokens, Any | None, Any, Any]:
    """How much every token, target and class counts: all as F.cross_entropy has it.

    Args:
        xp: ``jax.numpy`` or ``keras.ops``.
        classes: operations over the classes.
        target_N: class indices, (N,) or (N, T), of a type that holds ``ignore_index``.
        options: tensors among them of the dtype that arithmetic runs in.
        like: (V,) of that dtype, the classes that are here.

    Returns:
        The tokens; how much each class counts besides, (V,) or None; each token's weight, (N,), 0
        where ignored; and what a mean is divided by.
    """
    token_weight_N, class_weight_V = options.token_weight, options.class_weight
    target_NT = several(target_N)
    ignored_N = xp.all(target_NT == options.ignore_index, axis=1)
    if token_weight_N is not None:
        ignored_N = xp.logical_or(ignored_N, token_weight_N == 0)
    target_NT = xp.where(ignored_N[:, None], xp.zeros_like(target_NT), target_NT)
    ones_NT = mass_NT = xp.ones_like(target_NT, dtype=like.dtype)
    if options.target_probability is not None:
        mass_NT = options.target_probability
    if class_weight_V is not None:
        flat_CT = xp.reshape(target_NT, (1, -1))
        of_class_CKT = classes.at(class_weight_V[None, None], flat_CT)
        mass_NT = mass_NT * xp.reshape(of_class_CKT, xp.shape(target_NT))
    weight_N = ones_NT[:, 0] if token_weight_N is None else token_weight_N
    weight_N = without(xp, ignored_N, weight_N)
    # Of soft targets the tokens alone count.
    counts_N = weight_N if options.target_probability is not None else weight_N * mass_NT[:, 0]
    total = options.normalizer
    total = xp.sum(without(xp, ignored_N, counts_N)) if total is None else total
    share, class_mass_V = options.label_smoothing, None
    if share:
        every_V = xp.ones_like(like) if class_weight_V is None else class_weight_V
        class_mass_V = share / classes.count * every_V
        mass_NT = (1 - share) * mass_NT
    tokens = Tokens(target_NT, without(xp, ignored_N, mass_NT), ignored_N)
    return tokens, class_mass_V, weight_N, total


def several(target_N: Any) -> Any:
    """Targets (N,) or (N, T) as (N, T)."""
    return target_N[:, None] if len(target_N.shape) == 1 else target_N


def without(xp: Any, ignored_C: Any, values: Any) -> Any:
    """Values, 0 for ignored tokens, which must not spoil the others' gradients: 0 · inf is NaN."""
    ignored = xp.reshape(ignored_C, (-1, *[1] * (len(values.shape) - 1)))
    return xp.where(ignored, xp.zeros_like(values), values)


def of_tokens(
    xp: Any,
    log_sum_exp: Callable[..., Any],
    classes: Classes,
    logits_CKV: Any,
    log_prior_CK: Any,
    tokens: Tokens,
    class_mass_V: Any | None,
    z_loss: float,
    distribution: bool,
) -> Found:
    """``-Σ_t mass_t·log p(target_t) - Σ_v class_mass_v·log p_v + z_loss·mean_k lse_k²``, and more.

    Args:
        xp: ``jax.numpy`` or ``keras.ops``.
        log_sum_exp: of the framework, taking ``axis``.
        classes: operations over the classes.
        logits_CKV, log_prior_CK: floating point, of one dtype; finite for ignored tokens.
        tokens: what is known of them.
        class_mass_V: how much each class counts for every token, or None.
        z_loss: how much the squared logarithm of the softmax's denominator counts.
        distribution: whether entropy and prediction are wanted.
    """

    def kept(values: Any) -> Any:
        return without(xp, tokens.ignored_C, values)

    def expected(sum_of: Callable[[Any], Any], mass: Any, log_prob_CX: Any) -> Any:
        # What has no mass may be impossible, and 0 · inf is NaN, in the gradient too.
        known_CX = xp.where(mass == 0, xp.zeros_like(log_prob_CX), log_prob_CX)
        return -sum_of(mass * known_CX)

    lse_CK = kept(classes.log_sum_exp(logits_CKV))
    log_scale_CK1 = (log_prior_CK - lse_CK)[..., None]
    joint_CKT = kept(classes.at(logits_CKV, tokens.target_CT) + log_scale_CK1)
    log_prob_CT = _mixed(log_sum_exp, joint_CKT)
    loss_C = expected(lambda terms: xp.sum(terms, axis=-1), tokens.mass_CT, log_prob_CT)
    entropy_C = prediction_C = None
    if distribution or class_mass_V is not None:
        log_prob_CV = _mixed(log_sum_exp, kept(logits_CKV + log_scale_CK1))
        if class_mass_V is not None:
            loss_C = loss_C + expected(classes.sum, class_mass_V, log_prob_CV)
        if distribution:
            entropy_C = kept(expected(classes.sum, xp.exp(log_prob_CV), log_prob_CV))
            one = logits_CKV.shape[1] == 1
            best_C = classes.best(logits_CKV[:, 0] if one else log_prob_CV)
            prediction_C = xp.where(tokens.ignored_C, -xp.ones_like(best_C), best_C)
    if z_loss:
        loss_C = loss_C + z_loss * xp.mean(lse_CK**2, axis=1)
    return Found(kept(loss_C), xp.mean(lse_CK, axis=1), entropy_C, prediction_C)


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


def check_one_softmax(
    check_input: Callable[[Any, str, str], None], function: str, hidden: Any, weight: Any
) -> None:
    """Raise TypeError or ValueError unless a head of one softmax can be made of these."""
    check_input(hidden, function, "hidden")
    if len(hidden.shape) != 2:
        raise ValueError(f"{function}: hidden must be (N, D), got shape {tuple(hidden.shape)}")
    check_input(weight, function, "weight")
    if len(weight.shape) != 2:
        raise ValueError(f"{function}: weight must have shape (V, D), got {tuple(weight.shape)}")


def check_targets(
    target_NT: Any, ignored_N: Any, num_classes: int, *, function: str = _HERE
) -> None:
    """Raise IndexError if there are targets out of range, naming the first; NumPy arrays."""
    bad_NT = ((target_NT < 0) | (target_NT >= num_classes)) & ~ignored_N[:, None]
    if bad_NT.any():
        raise IndexError(
            f"{function}: target {target_NT[bad_NT][0]} is out of range for {num_classes} classes; "
            f"accepted: 0 to {num_classes - 1}, or ignore_index"
        )


def check_distribution(
    probability_NT: Any, ignored_N: Any, epsilon: float, *, function: str = _HERE
) -> None:
    """Raise ValueError unless every token's probabilities are a distribution; NumPy arrays.

    Args:
        probability_NT: in the dtype that arithmetic runs in.
        ignored_N: the tokens whose probabilities are not used.
        epsilon: of the dtype that they were given in.
        function: whose argument it is.
    """
    slack = 4 * epsilon + probability_NT.shape[1] * np.finfo(probability_NT.dtype).eps
    off_N = abs(probability_NT.sum(1) - 1) > slack
    bad_N = (off_N | ~(probability_NT >= 0).all(1)) & ~ignored_N
    if bad_N.any():
        token = bad_N.argmax()
        of_token = probability_NT[token]
        raise ValueError(
            f"{function}: target_probability must be a distribution for every token; of token "
            f"{token} the least is {of_token.min():g} and the sum {of_token.sum():g}: "
            "divide by the sum"
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


def check_logits(layer: str, logits: Any) -> None:
    """Raise unless a formula, a module of one, or None can stand between logits and softmax.

    Raises:
        TypeError: no formula of one input.
        ValueError: each channel has parameters of its own.
    """
    if logits is not None:
        check_formula(layer, getattr(logits, "formula", logits))
    if counts := dict(getattr(logits, "_counts", ())):
        raise ValueError(
            f"{layer}: logits must have one value of each parameter, got one for each of "
            f"{max(counts.values())} channels"
        )


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
