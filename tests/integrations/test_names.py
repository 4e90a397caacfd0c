"""Which classes and functions are known to compute an activation."""

import functools

import jax
import keras
import pytest
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import activation
from transformers.activations import ACT2CLS, ACT2FN

from zeta.integrations.names import activation_name, known

# What mixes the elements, is linear, or has no formula's name; of PyTorch, of JAX and Keras.
OTHERS = {"MultiheadAttention", "Softmin", "Softmax", "Softmax2d", "LogSoftmax"}
OTHERS |= {"softmax", "log_softmax", "sparsemax", "linear", "identity", "standardize"}
OTHERS |= {"exponential", "log1mexp", "deserialize", "serialize", "get"}
OTHERS |= {"gelu_10", "sqrtsoftplus", "xielu"}
CLASSES = sorted(set(activation.__all__) - OTHERS)
ARGUMENTS = {"Threshold": (0.0, 0.0)}
SPELLED_OTHERWISE = {"LeakyReLU": "leaky_relu"}


def functions(module):
    """The public functions of one array."""
    found = {name: value for name, value in vars(module).items() if callable(value)}
    return {name: value for name, value in found.items() if name[0] != "_" and name not in OTHERS}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_pytorch_has_the_name_of_its_function(kind):
    name = SPELLED_OTHERWISE.get(kind, kind.lower())
    module = getattr(nn, kind)(*ARGUMENTS.get(kind, ()))
    assert activation_name(module) == activation_name(getattr(F, name)) == name in known(name)


def test_every_activation_of_keras_and_jax_is_known():
    """JAX's share its module with other functions, and Keras has nearly all of them."""
    of_keras = functions(keras.activations)
    of_jax = {n: f for n, f in functions(jax.nn).items() if n in of_keras or n == "soft_sign"}
    assert len(of_jax) > 15
    for name, function in (*of_keras.items(), *of_jax.items()):
        assert activation_name(function) in known(name), name


@pytest.mark.parametrize("name", sorted(set(ACT2CLS) - OTHERS))
def test_the_words_of_transformers_configurations_name_their_classes(name):
    assert activation_name(ACT2FN[name]) in known(name)


@pytest.mark.parametrize("value", [nn.Linear(1, 1), nn.ReLU, "relu", lambda x: x, nn.Softmax()])
def test_what_is_no_activation(value):
    assert activation_name(value) is None


def test_a_partial_is_its_function():
    function = functools.partial(functools.partial(F.gelu), approximate="tanh")
    assert activation_name(function) == "gelu"


@pytest.mark.parametrize("pattern", ["ReLU", "encoder.*", "relu_", "_relu", "*relu"])
def test_patterns_are_no_names(pattern):
    assert not known(pattern)
