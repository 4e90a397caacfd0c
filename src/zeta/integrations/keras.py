"""Model surgery on Keras models, whose layers are fixed: the model is cloned."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from zeta import activations
from zeta import keras as zeta_keras
from zeta._formula import Formula
from zeta.integrations.names import FUNCTIONS, zeta_class
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import nothing_matched

Matches = Callable[[str, Any], bool]

NOT_LOOKED = "the code inside Keras layers is not looked through"


def replace(
    model: Any, matches: Matches, replacement: str | Formula | Callable[[], Any]
) -> SurgeryReport:
    """:func:`zeta.integrations.replace_activations` on a Sequential or functional Keras model."""
    make = _factory(replacement)
    if isinstance(model, keras.Layer) and not isinstance(model, keras.Model):
        if not matches(model.name, model):
            raise nothing_matched(model, [model])
        new = _like(_one(make), model)
        replaced = (Replaced(model.name, _shown(model), _shown(new)),)
        return SurgeryReport(new, replaced, not_looked=NOT_LOOKED, _undo=lambda: model)
    if not _is_clonable(model):
        raise TypeError(
            f"{type(model).__name__} is a subclassed Keras model, which cannot be cloned layer by "
            "layer; only Sequential and functional models can"
        )
    surgeon = _Surgeon(matches, make)
    clone = surgeon.clone_model(model)
    if not surgeon.replaced:
        raise nothing_matched(model, surgeon.visited, surgeon.calls)
    for old, new in surgeon.kept:
        new.trainable = old.trainable
        for variable, copy in zip(old.weights, new.weights, strict=True):
            copy.assign(variable)
    surgeon.build_functions()
    return SurgeryReport(
        clone,
        tuple(surgeon.replaced),
        tuple(surgeon.calls),
        not_looked=NOT_LOOKED,
        _undo=lambda: model,
    )


class _Surgeon:
    """Clones layers one by one; called once for a layer that several places share.

    Attributes:
        kept: layers with their clones.
        with_function: clones whose function was replaced.
        visited: all that could have matched.
        calls: operations of a functional model that are activations, ``keras.ops.relu(x)`` say.
    """

    def __init__(self, matches: Matches, make: Callable[[], Any]) -> None:
        self.matches = matches
        self.make = make
        self.kept: list[tuple[Any, Any]] = []
        self.with_function: list[Any] = []
        self.replaced: list[Replaced] = []
        self.visited: list[Any] = []
        self.calls: list[FunctionCall] = []

    def clone_model(self, model: Any) -> Any:
        """The model's twin, models within it included."""
        return keras.models.clone_model(model, clone_function=self.clone, recursive=True)

    def clone(self, layer: Any) -> Any:
        """The layer's twin in the new model."""
        if _is_clonable(layer):  # inside a Sequential, where Keras does not recurse
            return self.clone_model(layer)
        if not isinstance(layer, keras.Layer):
            name = type(layer).__name__.lower()
            if name in FUNCTIONS:
                self.calls.append(FunctionCall(name, layer.name))
            return layer.__class__.from_config(layer.get_config())
        self.visited.append(layer)
        is_wrapper = isinstance(layer, keras.layers.Activation)  # of a function
        candidates = (layer, layer.activation) if is_wrapper else (layer,)
        if any(self.matches(layer.name, candidate) for candidate in candidates):
            new = _like(_one(self.make), layer)
            self.replaced.append(Replaced(layer.name, _shown(layer), _shown(new)))
            return new
        clone = layer.__class__.from_config(layer.get_config())
        if not is_wrapper:
            self._replace_function(layer, clone)
        self.kept.append((layer, clone))
        return clone

    def _replace_function(self, layer: Any, clone: Any) -> None:
        """Of ``Dense(8, activation="relu")``, say."""
        # Recurrent layers have their cell's as a property, which cannot be set.
        function = vars(layer).get("activation")
        name = f"{layer.name}.activation"
        if function is None or function is keras.activations.linear:
            return
        self.visited.append(function)
        if self.matches(name, function):
            clone.activation = _like(_one(self.make), layer, name=name.replace(".", "_"))
            self.with_function.append(clone)
            self.replaced.append(Replaced(name, _shown(function), _shown(clone.activation)))

    def build_functions(self) -> None:
        """Make the parameters now: a layer infers its output's shape without its activation."""
        for clone in self.with_function:
            if clone.built and not clone.activation.built:
                clone.activation.build(clone.output.shape)


def _is_clonable(model: Any) -> bool:
    """Whether it is a Sequential or functional model; only these know their operations."""
    is_functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    return is_functional or isinstance(model, keras.Sequential)


def _factory(replacement: str | Formula | Callable[[], Any]) -> Callable[[], Any]:
    if isinstance(replacement, str):
        replacement = activations.get(replacement)
    if isinstance(replacement, Formula):
        build, arguments = zeta_class(replacement, zeta_keras, zeta_keras.FormulaLayer)
        return functools.partial(build, **arguments)
    if isinstance(replacement, keras.Layer) or not callable(replacement):
        raise TypeError(
            "the replacement must be a name of the catalogue, a formula, or a class or function "
            f"that makes a layer for every place; got {replacement!r}"
        )
    return replacement


def _one(make: Callable[[], Any]) -> Any:
    layer = make()
    if not isinstance(layer, keras.Layer):
        raise TypeError(
            f"the replacement {make!r} must make a Keras layer, not {type(layer).__name__}"
        )
    return layer


def _like(new: Any, old: Any, name: str | None = None) -> Any:
    new.name = name or old.name
    new.dtype_policy = old.dtype_policy
    return new


def _shown(value: Any) -> str:
    return getattr(value, "__name__", type(value).__name__)
