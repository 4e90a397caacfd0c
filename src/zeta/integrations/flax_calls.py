"""Activations that a Flax model calls as functions, where surgery has nothing to replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from flax import nnx

from zeta.integrations.names import named
from zeta.integrations.report import FunctionCall
from zeta.integrations.surgery import call_arguments

_JAX = str(Path(jax.__file__).parent)
# A call's line is the nearest one that is in none of these folders.
_PASSED_OVER = (_JAX, str(Path(flax.__file__).parent), str(Path(__file__).parent))

# The function that calls, "Block.__call__", and file and line.
Where = tuple[str, str]

# Functions that leave no trace but the primitive that they are.
_PRIMITIVES = {"tanh": "tanh", "logistic": "sigmoid"}


def traced_calls(model: nnx.Module, example_inputs: Any) -> list[FunctionCall]:
    """By tracing one call of the model, as :func:`jax.make_jaxpr` does; nothing is computed.

    Each line that calls a function counts once. Arguments that are no arrays are constants.

    Raises:
        Exception: of any type, where the model cannot be traced.
    """
    leaves, tree = jax.tree.flatten(call_arguments(example_inputs))
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    graph, state = nnx.split(model)

    def call(state: Any, traced: list[Any]) -> None:
        arrays = iter(traced)
        mixed = [next(arrays) if a else leaf for a, leaf in zip(is_array, leaves, strict=True)]
        args, kwargs = jax.tree.unflatten(tree, mixed)
        nnx.merge(graph, state)(*args, **kwargs)

    arrays = [leaf for a, leaf in zip(is_array, leaves, strict=True) if a]
    jaxpr = jax.make_jaxpr(call)(state, arrays).jaxpr
    return list(dict.fromkeys(_calls(jaxpr)))


def _calls(jaxpr: Any, called: Where | None = None) -> Iterator[FunctionCall]:
    """Of an expression and those within it; ``called`` says where, if its equations do not."""
    for equation in jaxpr.eqns:
        frames = _frames(equation)
        where = called or _where(frames)
        function = _function(equation, frames)
        if function:
            yield FunctionCall(function, *(where or ("", "")))
            continue
        # What JAX has cached of a function with derivatives of its own tells of an earlier call.
        is_cached = equation.primitive.name.startswith("custom_")
        for parameter in equation.params.values():
            for value in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from _calls(inner, where if is_cached else called)


def _frames(equation: Any) -> list[Any]:
    """The way to the call, the nearest first."""
    traceback = equation.source_info.traceback
    return traceback.frames if traceback else []


def _function(equation: Any, frames: list[Any]) -> str:
    """The activation that an equation is part of; empty if none.

    JAX compiles some of them (relu, silu), which shows in the name of the equation, and writes
    others out (gelu), which shows in the functions that called.
    """
    if name := named(str(equation.params.get("name"))):
        return name
    inside = (named(f.function_name) for f in frames if f.file_name.startswith(_JAX))
    written_out = next(filter(None, inside), "")
    return written_out or _PRIMITIVES.get(equation.primitive.name, "")


def _where(frames: list[Any]) -> Where | None:
    """Of the nearest frame that is the user's; None if there is none."""
    for frame in frames:
        if not frame.file_name.startswith(_PASSED_OVER):
            return frame.function_name, f"{Path(frame.file_name).name}:{frame.line_num}"
    return None
