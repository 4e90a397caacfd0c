"""What frameworks and authors ship of the catalogue's formulas, to compare with.

Each takes and returns a PyTorch tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import ACT2FN, XIELUActivation

Oracle = Callable[[Tensor], Tensor]


def on_jax(function: Callable[[Any], Any]) -> Oracle:
    return lambda x: torch.from_numpy(np.array(function(jnp.asarray(x.numpy()))))


def on_keras(function: Callable[[Any], Any]) -> Oracle:
    """On the backend that Keras has here."""
    call = lambda x: function(keras.ops.convert_to_tensor(x.numpy()))
    return lambda x: torch.from_numpy(np.array(keras.ops.convert_to_numpy(call(x))))


TORCH: dict[str, Oracle] = {
    "arctan": torch.atan,
    "cube": lambda x: x.pow(3),
    "celu": F.celu,
    "elu": F.elu,
    "exponential": torch.exp,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardshrink": F.hardshrink,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "logsigmoid": F.logsigmoid,
    "mish": F.mish,
    "modulus": torch.abs,
    "prelu": lambda x: F.prelu(x, torch.tensor(0.25, dtype=x.dtype)),
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "shifted_softplus": lambda x: F.softplus(x) - math.log(2),
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "softshrink": F.softshrink,
    "softsign": F.softsign,
    "squared_relu": lambda x: F.relu(x).square(),
    "tanh": torch.tanh,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 1.0, 0.0),
}
JAX: dict[str, Oracle] = {
    name: on_jax(function)
    for name, function in {
        "celu": jax.nn.celu,
        "elu": jax.nn.elu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": jax.nn.gelu,
        "hardsigmoid": jax.nn.hard_sigmoid,
        "hardswish": jax.nn.hard_silu,
        "hardtanh": jax.nn.hard_tanh,
        "leaky_relu": jax.nn.leaky_relu,
        "logsigmoid": jax.nn.log_sigmoid,
        "mish": jax.nn.mish,
        "relu6": jax.nn.relu6,
        "selu": jax.nn.selu,
        "silu": jax.nn.silu,
        "softplus": jax.nn.softplus,
        "softsign": jax.nn.soft_sign,
        "sparse_plus": jax.nn.sparse_plus,
        "sparse_sigmoid": jax.nn.sparse_sigmoid,
        "squareplus": jax.nn.squareplus,
    }.items()
}
KERAS: dict[str, Oracle] = {
    name: on_keras(function)
    for name, function in {
        "celu": keras.activations.celu,
        "exponential": keras.activations.exponential,
        "gelu": keras.activations.gelu,
        "hardshrink": keras.activations.hard_shrink,
        "hardsigmoid": keras.activations.hard_sigmoid,
        "hardswish": keras.activations.hard_silu,
        "hardtanh": keras.activations.hard_tanh,
        "logsigmoid": keras.activations.log_sigmoid,
        "mish": keras.activations.mish,
        "relu6": keras.activations.relu6,
        "selu": keras.activations.selu,
        "silu": keras.activations.silu,
        "softplus": keras.activations.softplus,
        "softshrink": keras.activations.soft_shrink,
        "softsign": keras.activations.softsign,
        "sparse_plus": keras.activations.sparse_plus,
        "sparse_sigmoid": keras.activations.sparse_sigmoid,
        "squareplus": keras.activations.squareplus,
        "tanhshrink": keras.activations.tanh_shrink,
        "threshold": lambda x: keras.activations.threshold(x, 1.0, 0.0),
    }.items()
}
TRANSFORMERS: dict[str, Oracle] = {
    name: lambda x, theirs=theirs: ACT2FN[theirs](x)
    for name, theirs in {
        "gelu_10": "gelu_10",
        "gelu_tanh": "gelu_accurate",
        "laplace": "laplace",
        "mish": "mish",
        "quick_gelu": "quick_gelu",
        "silu": "swish",
        "sqrtsoftplus": "sqrtsoftplus",
        "squared_relu": "relu2",
    }.items()
}
# By default its parameters are bfloat16.
TRANSFORMERS["xielu"] = lambda x: XIELUActivation(dtype=x.dtype)(x).detach()
ORACLES: dict[str, dict[str, Oracle]] = {
    "torch": TORCH, "jax.nn": JAX, "keras.activations": KERAS, "transformers": TRANSFORMERS,
}  # fmt: skip
