"""Gradients on whichever backend Keras runs."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

BACKEND = keras.backend.backend()
# Something else may set KERAS_BACKEND before Keras reads it.
assert os.environ.get("EXPECTED_BACKEND", BACKEND) == BACKEND
if BACKEND == "jax":
    import jax

    # XLA leaves out what makes programs fast: its numbers are looked at by tests/jax.
    jax.config.update("jax_disable_most_optimizations", True)


def value_and_gradients(
    function: Callable[..., Any], arrays: Sequence[Any]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """A function's value, and the gradients of its sum by every argument, as float64."""
    return values_and_gradients([(function, arrays)])[0]


def values_and_gradients(
    calls: Sequence[tuple[Callable[..., Any], Sequence[Any]]],
) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Those of several functions, each with its arguments."""
    functions, arguments = zip(*calls, strict=True)
    tensors = [[keras.ops.convert_to_tensor(a) for a in arrays] for arrays in arguments]
    answers = _of_each(functions)(tensors)
    return [(_numpy(value), [_numpy(g) for g in gradients]) for value, gradients in answers]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """As one program on JAX: XLA takes a tenth of a second for any, an eager operation's too."""
    return jax.jit(function) if BACKEND == "jax" else function


@functools.cache
def _of_each(functions: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    own = _OWN[BACKEND]
    return compiled(lambda given: [own(f, t) for f, t in zip(functions, given, strict=True)])


def _numpy(tensor: Any) -> np.ndarray:
    if BACKEND == "torch":
        tensor = tensor.detach()
    wide = (
        tensor
        if keras.backend.standardize_dtype(tensor.dtype) == "float64"
        else (keras.ops.cast(tensor, "float32"))
    )
    return np.asarray(keras.ops.convert_to_numpy(wide), np.float64)


def _torch(function, tensors):
    import torch

    tensors = [t.detach().requires_grad_() for t in tensors]
    value = function(*tensors)
    return value, torch.autograd.grad(value.sum(), tensors)


def _jax(function, tensors):
    value, pull_back = jax.vjp(function, *tensors)
    return value, pull_back(jax.numpy.ones_like(value))


def _tensorflow(function, tensors):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return value, tape.gradient(value, tensors)


_OWN = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}
