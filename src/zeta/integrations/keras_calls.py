"""Activations that Keras layers of one's own call, where surgery has nothing to replace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from zeta.integrations.names import FUNCTIONS, activation_name
from zeta.integrations.report import FunctionCall

_FUNCTIONS = {name.replace("_", ""): name for name in sorted(FUNCTIONS)}


def function_name(operation: Any) -> str | None:
    """The activation that an operation of a functional model is: "relu" of ``keras.ops.relu``."""
    return _FUNCTIONS.get(type(operation).__name__.lower())


def is_own(layer: Any) -> bool:
    """Whether the layer's code is not Keras's: it may call anything."""
    package = type(layer).__module__.partition(".")[0]
    return package != "keras" or isinstance(layer, keras.layers.Lambda)


def calls_within(layer: Any) -> list[FunctionCall]:
    """What ``layer.call`` calls, by running it on symbols, and what the layers within it call.

    The layer must have been called in a functional or Sequential model. A twin of it is run, so
    that the layer itself is not connected to the symbols.

    Raises:
        Exception: of any type, where the code cannot run on symbols, for it computes with the
            backend's own functions, say.
    """
    symbols, args, kwargs = _symbolic_arguments(layer)
    twin = type(layer).from_config(layer.get_config())
    if layer.built:
        twin.build_from_config(layer.get_build_config())
    outputs = twin.call(*args, **kwargs)
    return list(_calls(keras.Model(symbols, outputs), layer.name))


def _symbolic_arguments(layer: Any) -> tuple[list[Any], tuple[Any, ...], dict[str, Any]]:
    """Fresh symbols in the place of those that the layer was first called with."""
    symbols: list[Any] = []

    def fresh(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        symbols.append(keras.Input(batch_shape=value.shape, dtype=value.dtype))
        return symbols[-1]

    called = layer._inbound_nodes[0].arguments
    args, kwargs = keras.tree.map_structure(fresh, (called.args, called.kwargs))
    return symbols, args, kwargs


def _calls(model: Any, where: str) -> Iterator[FunctionCall]:
    for operation in model.operations:
        function = function_name(operation)
        if not isinstance(operation, keras.Layer):
            if function:
                yield FunctionCall(function, where)
        elif activation_name(operation) or isinstance(operation, keras.layers.Activation):
            yield FunctionCall(operation.name, where)
        elif is_own(operation):
            yield from (
                FunctionCall(call.function, f"{where}/{call.module}")
                for call in calls_within(operation)
            )
