"""Model surgery on Keras models, whose layers are fixed: the model is cloned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zeta import keras as zeta_keras
from zeta._errors import one_line
from zeta._formula import Formula
from zeta._modules import IsMatched
from zeta.integrations import keras_calls
from zeta.integrations.gain import NORMAL_QUANTILES, GainSums, on_normal
from zeta.integrations.names import activation_name, own_name, unmatched
from zeta.integrations.replacement import Maker, check_distinct
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import Selection
from zeta.keras.matched import Matched

MAKER = Maker(zeta_keras, zeta_keras.FormulaLayer, keras.Layer, "a Keras layer")


def replace(
    model: Any,
    matches: Selection,
    replacement: str | Formula | Callable[[], Any],
    *,
    match_gain: bool,
    example_inputs: Any,
) -> SurgeryReport:
    """:func:`zeta.integrations.replace_activations` on a Sequential or functional Keras model."""
    make = MAKER.factory(replacement)
    if isinstance(model, keras.Layer) and not isinstance(model, keras.Model):
        if match_gain:
            raise TypeError("gain matching is for models; this is a single layer")
        return _replace_layer(model, matches, make)
    _check(model)
    surgeon = _Surgeon(matches, make, match_gain=match_gain)
    clone = surgeon.clone_model(model)
    places = surgeon.places
    if not places:
        raise matches.nothing_matched(model, surgeon.visited, surgeon.calls)
    check_distinct((place.new for place in places), make, len(places))
    surgeon.copy_weights()
    for place in places:
        place.build()
    sums = [GainSums() for _ in places]
    if match_gain:
        _observe(model, places, sums, example_inputs)
    gains = [_match(place.new, each) for place, each in zip(places, sums, strict=True)]
    seen = list(zip(places, sums, gains, strict=True)) if match_gain else []
    return SurgeryReport(
        clone,
        tuple(
            Replaced(place.name, _shown(place.old), _shown(place.new), gain)
            for place, gain in zip(places, gains, strict=True)
        ),
        tuple(surgeon.calls),
        _not_looked(surgeon.not_traced),
        tuple(place.name for place, each, _ in seen if not each.count),
        tuple(place.name for place, each, gain in seen if each.count and gain is None),
        tuple(text for place in places for text in place.lost()),
        _undo=lambda: model,
    )


def _check(model: Any) -> None:
    if not _is_clonable(model):
        raise TypeError(
            f"{type(model).__name__} is a subclassed Keras model, which cannot be cloned layer by "
            "layer; only Sequential and functional models can"
        )
    if not model.built:
        raise ValueError("the model has no weights yet; call it once, or begin it with keras.Input")
    for layer in model._flatten_layers():
        if getattr(layer.dtype_policy, "quantization_mode", None):
            raise TypeError(f"{layer.name} is quantised; replace activations before that")


def _replace_layer(layer: Any, matches: Selection, make: Callable[[], Any]) -> SurgeryReport:
    if not matches(layer.name, layer):
        raise matches.nothing_matched(layer, [layer])
    new = _like(MAKER.one(make, layer), layer, layer.name)
    replaced = (Replaced(layer.name, _shown(layer), _shown(new)),)
    return SurgeryReport(new, replaced, _undo=lambda: layer)


def _not_looked(layers: list[str]) -> str:
    names = ", ".join(layers)
    return f"Keras cannot trace the code of {names} with its symbolic tensors" if layers else ""


@dataclass(frozen=True)
class _Place:
    """Where an activation stands: as a layer, or as the ``activation`` of one.

    Attributes:
        old: the layer or function that stands there in the former model.
        new: the layer that takes its place.
        layer: the former model's layer whose code calls ``old``: itself, or the one it is of.
        clone: the new model's layer whose ``activation`` is ``new``; None if ``new`` is a layer
            of the model.
    """

    name: str
    old: Any
    new: Any
    layer: Any
    clone: Any = None

    def build(self) -> None:
        """Make the parameters now: a layer infers its output's shape without its activation."""
        if self.clone is not None and self.clone.built and not self.new.built:
            self.new.build(self.clone.output.shape)

    def lost(self) -> Iterator[str]:
        """The former activation's weights."""
        names = [variable.name for variable in getattr(self.old, "weights", ())]
        if names:
            yield f"{self.name}: {', '.join(names)} of {_shown(self.old)}"

    @contextmanager
    def recording(self, sums: GainSums) -> Iterator[None]:
        """While the former model runs, what f and g answer here goes to ``sums``."""
        is_layer = isinstance(self.old, keras.Layer)
        holder, attribute = (self.old, "call") if is_layer else (self.layer, "activation")
        is_set = attribute in vars(holder)  # `call` is the class's as a rule
        f, g, axis = getattr(holder, attribute), self.new.activation, self.new.axis

        def record(x: Any, *args: Any, **kwargs: Any) -> Any:
            y = f(x, *args, **kwargs)
            sums.add(_numpy(y), _numpy(g(x)), axis)
            return y

        setattr(holder, attribute, record)
        try:
            yield
        finally:
            if is_set:
                setattr(holder, attribute, f)
            else:
                delattr(holder, attribute)


def _observe(model: Any, places: list[_Place], sums: list[GainSums], example_inputs: Any) -> None:
    """Take in what the old and the new activation of each place answer."""
    if example_inputs is None:
        x = keras.ops.convert_to_tensor(NORMAL_QUANTILES, "float32")
        for place, each in zip(places, sums, strict=True):
            old, new = place.old, place.new.activation
            each.add(*(_numpy(on_normal(place.name, activation, x)) for activation in (old, new)))
        return
    with ExitStack() as undo:
        for place, each in zip(places, sums, strict=True):
            undo.enter_context(place.recording(each))
        model(example_inputs, training=False)


def _match(new: Any, sums: GainSums) -> float | None:
    """Set the gain and the shifts of a ``Matched``; nothing if nothing tells them."""
    match = sums.solve()
    if match is None:
        return None
    new.gain.assign(match.gain)
    new.shift.assign(np.broadcast_to(match.shift, new.shift.shape))
    return match.gain


def _numpy(y: Any) -> Any:
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


class _Surgeon:
    """Clones layers one by one; called once for a layer that several places share.

    Attributes:
        places: where activations were replaced.
        kept: layers with their clones.
        visited: all that could have matched.
        calls: activations that no place can be made of: in the code of a layer, in a layer within
            one, or an operation of a functional model, ``keras.ops.relu(x)`` say.
        not_traced: layers whose code could not be looked through.
    """

    def __init__(self, matches: Selection, make: Callable[[], Any], *, match_gain: bool) -> None:
        self.matches = matches
        self.make = make
        self.match_gain = match_gain
        self.places: list[_Place] = []
        self.kept: list[tuple[Any, Any]] = []
        self.visited: list[Any] = []
        self.calls: list[FunctionCall] = []
        self.not_traced: list[str] = []

    def clone_model(self, model: Any) -> Any:
        """The model's twin, models within it included."""
        return keras.models.clone_model(model, clone_function=self.clone, recursive=True)

    def clone(self, layer: Any) -> Any:
        """The layer's twin in the new model."""
        if _is_clonable(layer):  # inside a Sequential, where Keras does not recurse
            return self.clone_model(layer)
        if not isinstance(layer, keras.Layer):
            if name := keras_calls.function_name(layer):
                self.calls.append(FunctionCall(name, layer.name))
            return _twin(layer)
        self.visited.append(layer)
        is_wrapper = isinstance(layer, keras.layers.Activation)  # of a function
        candidates = (layer, layer.activation) if is_wrapper else (layer,)
        if any(self.matches(layer.name, candidate) for candidate in candidates):
            new = self._new(layer, layer.name, candidates[-1])
            self.places.append(_Place(layer.name, layer, new, layer))
            return new
        self._look(layer)
        clone = self._with_function_replaced(layer) if not is_wrapper else None
        clone = clone or _twin(layer)
        self.kept.append((layer, clone))
        return clone

    def copy_weights(self) -> None:
        """Give the clones the weights of their layers, and what of these is trained."""
        replaced = {id(place.layer): place.old for place in self.places if place.clone is not None}
        for layer, clone in self.kept:
            lost = {id(v) for v in getattr(replaced.get(id(layer)), "weights", ())}
            made = {id(v) for v in clone.activation.weights} if id(layer) in replaced else set()
            kept = (variable for variable in layer.weights if id(variable) not in lost)
            copies = (variable for variable in clone.weights if id(variable) not in made)
            for variable, copy in zip(kept, copies, strict=True):
                # By way of NumPy: JAX would share the array, and `fit` gives its arrays away.
                copy.assign(keras.ops.convert_to_numpy(variable))
                copy.trainable = variable.trainable

    def _new(self, layer: Any, name: str, old: Any) -> Any:
        new = MAKER.one(self.make, old)
        if not self.match_gain:
            return _like(new, layer, name)
        matched = Matched(_like(new, layer, f"{name}_activation"), axis=_channel_axis(layer))
        return _like(matched, layer, name)

    def _look(self, layer: Any) -> None:
        """For what the layer's own code calls, and the layers within it."""
        if activation_name(layer) or isinstance(layer, IsMatched):
            return
        try:
            self.calls += keras_calls.calls_within(layer)
        except Exception:  # whatever a layer's code raises on symbols
            self.not_traced.append(layer.name)

    def _with_function_replaced(self, layer: Any) -> Any:
        """The twin of ``Dense(8, activation="relu")``, say; None if there is nothing to replace."""
        function = keras_calls.own_activation(layer)
        if function is None:
            return None
        name = f"{layer.name}.activation"
        self.visited.append(function)
        if not self.matches(name, function):
            return None
        clone = _twin(layer, activation="linear")
        clone.activation = self._new(layer, name.replace(".", "_"), function)
        self.places.append(_Place(name, function, clone.activation, layer, clone))
        return clone


def _twin(layer: Any, **changes: Any) -> Any:
    try:
        return layer.__class__.from_config({**layer.get_config(), **changes})
    except Exception as error:  # of whatever type the layer chooses
        raise TypeError(
            f"{layer.name} ({type(layer).__name__}) cannot be cloned from its configuration: "
            f"{one_line(error, 200)}"
        ) from error


def _channel_axis(layer: Any) -> int | None:
    """Where the channels are in what ``layer`` answers; None if their number is open or varies."""
    shapes = [node.output_tensors[0].shape for node in layer._inbound_nodes]
    axis = 1 if _is_channels_first(layer) and len(shapes[0]) > 2 else -1
    numbers = {shape[axis] for shape in shapes if len(shape) > 1}
    return axis if len(numbers) == 1 and None not in numbers else None


def _is_channels_first(operation: Any) -> bool:
    """By the nearest operation, this one or one before it, that knows."""
    if isinstance(operation, keras.layers.BatchNormalization):
        return bool(operation.axis == 1)
    if isinstance(operation, keras.layers.Dense):
        return False
    if hasattr(operation, "data_format"):
        return bool(operation.data_format == "channels_first")
    parents = operation._inbound_nodes[0].parent_nodes
    if parents:
        return _is_channels_first(parents[0].operation)
    is_image = len(operation.output.shape) > 3
    return is_image and keras.config.image_data_format() == "channels_first"


def _is_clonable(model: Any) -> bool:
    """Whether it is a Sequential or functional model; only these know their operations."""
    is_functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    return is_functional or isinstance(model, keras.Sequential)


def _like(new: Any, old: Any, name: str) -> Any:
    new.name = name
    new.dtype_policy = old.dtype_policy
    return new


def _shown(value: Any) -> str:
    value = unmatched(value)
    if type(value) is zeta_keras.FormulaLayer:
        return f"FormulaLayer({value.formula.name})"
    return own_name(value)
