"""Activations within Keras layers, where surgery has nothing to replace."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras

from zeta.integrations.names import activation_name, named
from zeta.integrations.report import FunctionCall


def function_name(operation: Any) -> str | None:
    """The activation that an operation of a functional model is: "relu" of ``keras.ops.relu``."""
    return named(type(operation).__name__)


def own_activation(layer: Any) -> Any:
    """The function or layer that is a layer's ``activation``; None if it has none to be set."""
    # Recurrent layers have their cell's as a property.
    if isinstance(getattr(type(layer), "activation", None), property):
        return None
    function = getattr(layer, "activation", None)
    return None if function is keras.activations.linear else function


def calls_within(layer: Any) -> list[FunctionCall]:
    """What the code of a layer calls, and the activations of the layers within it.

    Code that is not Keras's is run on symbols. The layer must have been called in a functional or
    Sequential model; a twin of it is run, so that the layer itself is not connected to the symbols.

    Raises:
        Exception: of any type, where the code cannot run on symbols, for it computes with the
            backend's own functions, say.
    """
    return list(dict.fromkeys((*_activations_within(layer), *_calls_in_code(layer, layer.name))))


def _activations_within(layer: Any) -> Iterator[FunctionCall]:
    """Of wrapped layers, cells, and whatever else a layer consists of."""
    for inner in layer._flatten_layers(include_self=False):
        if inner is own_activation(layer):
            continue
        name = activation_name(inner) or activation_name(getattr(inner, "activation", None))
        if name:
            yield FunctionCall(name, f"{layer.name}/{inner.name}")


def _calls_in_code(layer: Any, where: str) -> Iterator[FunctionCall]:
    if not _is_own(layer):
        return
    for operation in _traced(layer).operations:
        if isinstance(operation, keras.Layer):
            yield from _calls_in_code(operation, f"{where}/{operation.name}")
        elif function := function_name(operation):
            yield FunctionCall(function, where)


def _is_own(layer: Any) -> bool:
    """Whether the layer's code is not Keras's: it may call anything."""
    package = type(layer).__module__.partition(".")[0]
    return package not in ("keras", "zeta") or isinstance(layer, keras.layers.Lambda)


def _traced(layer: Any) -> Any:
    """A model of the operations that ``layer.call`` consists of."""
    symbols: list[Any] = []

    def fresh(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        symbols.append(keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return symbols[-1]

    called = layer._inbound_nodes[0].arguments
    args, kwargs = keras.tree.map_structure(fresh, (called.args, called.kwargs))
    twin = type(layer).from_config(layer.get_config())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without a method `build`
        if layer.built:
            twin.build_from_config(layer.get_build_config())
        return keras.Model(symbols, twin.call(*args, **kwargs))
