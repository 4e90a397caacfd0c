"""Model surgery on Keras models, whose layers are fixed: the model is cloned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from zeta import keras as zeta_keras
from zeta._formula import Formula
from zeta.integrations import keras_calls
from zeta.integrations.gain import GainSums, normal_quantiles
from zeta.integrations.names import activation_name
from zeta.integrations.replacement import Maker
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import call_arguments, nothing_matched

Matches = Callable[[str, Any], bool]

MAKER = Maker(zeta_keras, zeta_keras.FormulaLayer, keras.Layer, "a Keras layer")


@keras.saving.register_keras_serializable(package="zeta")
class Matched(keras.Layer):
    """An activation matched to the one it replaced, ``gain·f(x) + shift``.

    Args:
        activation: the layer that computes f.
        axis: the dimension that holds the channels.
        **kwargs: ``keras.Layer``'s.

    Gain and shifts, one per channel, are weights that are saved and not trained.

    Example:
        >>> import keras
        >>> from zeta.integrations.keras import Matched
        >>> matched = Matched(keras.layers.ReLU())
        >>> matched.build((None, 2))
        >>> matched.set_weights([0.5, [1.0, 0.0]])
        >>> keras.ops.convert_to_numpy(matched(keras.ops.array([[-1.0, 2.0]])))
        array([[1., 1.]], dtype=float32)
    """

    def __init__(self, activation: Any, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation
        self.axis = axis

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights, and those of the activation."""
        if not self.activation.built:
            self.activation.build(input_shape)
        channels = input_shape[self.axis] if len(input_shape) > 1 else None
        shape = () if channels is None else (channels,)
        options = {"trainable": False}
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain", **options)
        self.shift = self.add_weight(shape=shape, initializer="zeros", name="shift", **options)

    def call(self, inputs: Any) -> Any:
        """The matched activation, in the activation's dtype."""
        y = self.activation(inputs)
        shift = keras.ops.cast(self.shift, y.dtype)
        if len(shift.shape):
            around = [1] * len(y.shape)
            around[self.axis] = -1
            shift = keras.ops.reshape(shift, around)
        return y * keras.ops.cast(self.gain, y.dtype) + shift

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What ``from_config`` takes."""
        activation = keras.saving.serialize_keras_object(self.activation)
        return {**super().get_config(), "activation": activation, "axis": self.axis}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Matched:
        """The layer that ``get_config`` described."""
        activation = keras.saving.deserialize_keras_object(config["activation"])
        return cls(**{**config, "activation": activation})


def replace(
    model: Any,
    matches: Matches,
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
    if not _is_clonable(model):
        raise TypeError(
            f"{type(model).__name__} is a subclassed Keras model, which cannot be cloned layer by "
            "layer; only Sequential and functional models can"
        )
    surgeon = _Surgeon(matches, make, match_gain=match_gain)
    clone = surgeon.clone_model(model)
    if not surgeon.places:
        raise nothing_matched(model, surgeon.visited, surgeon.calls)
    for old, new in surgeon.kept:
        new.trainable = old.trainable
        for variable, copy in zip(old.weights, new.weights, strict=True):
            copy.assign(variable)
    for place in surgeon.places:
        place.build()
    if match_gain:
        sums = _observed(model, surgeon.places, example_inputs)
    else:
        sums = [GainSums() for _ in surgeon.places]
    return SurgeryReport(
        clone,
        tuple(
            Replaced(place.name, _shown(place.old), _shown(place.new), _match(place.new, each))
            for place, each in zip(surgeon.places, sums, strict=True)
        ),
        tuple(surgeon.calls),
        _not_looked(surgeon.not_traced),
        tuple(
            place.name
            for place, each in zip(surgeon.places, sums, strict=True)
            if match_gain and not each.count
        ),
        _undo=lambda: model,
    )


def _replace_layer(layer: Any, matches: Matches, make: Callable[[], Any]) -> SurgeryReport:
    if not matches(layer.name, layer):
        raise nothing_matched(layer, [layer])
    new = _like(MAKER.one(make), layer, layer.name)
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

    @contextmanager
    def recording(self, sums: GainSums) -> Iterator[None]:
        """While the former model runs, what f and g answer here goes to ``sums``."""
        attribute = "call" if self.clone is None else "activation"
        f, g = getattr(self.layer, attribute), self.new.activation

        def record(x: Any, *args: Any, **kwargs: Any) -> Any:
            y = f(x, *args, **kwargs)
            sums.add(_numpy(y), _numpy(g(x)))
            return y

        setattr(self.layer, attribute, record)
        try:
            yield
        finally:
            if self.clone is None:
                del self.layer.call  # the class has it
            else:
                self.layer.activation = f


def _observed(model: Any, places: list[_Place], example_inputs: Any) -> list[GainSums]:
    """What the old and the new activation of each place answer."""
    sums = [GainSums(place.new.axis) for place in places]
    if example_inputs is None:
        for place, each in zip(places, sums, strict=True):
            x = keras.ops.convert_to_tensor(normal_quantiles(), "float32")
            each.add(_numpy(place.old(x)), _numpy(place.new.activation(x)))
        return sums
    args, kwargs = call_arguments(example_inputs)
    with ExitStack() as undo:
        for place, each in zip(places, sums, strict=True):
            undo.enter_context(place.recording(each))
        model(*args, training=False, **kwargs)
    return sums


def _match(new: Any, sums: GainSums) -> float | None:
    """Set the gain and the shifts of a ``Matched``; nothing if nothing was seen."""
    solved = sums.solve()
    if solved is None:
        return None
    gain, shift = solved
    new.gain.assign(gain)
    new.shift.assign(np.broadcast_to(shift, new.shift.shape))
    return gain


def _numpy(y: Any) -> Any:
    return keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))


class _Surgeon:
    """Clones layers one by one; called once for a layer that several places share.

    Attributes:
        places: where activations were replaced.
        kept: layers with their clones.
        visited: all that could have matched.
        calls: activations called in the code of a layer, and operations of a functional model that
            are activations, ``keras.ops.relu(x)`` say.
        not_traced: layers whose code could not be looked through.
    """

    def __init__(self, matches: Matches, make: Callable[[], Any], *, match_gain: bool) -> None:
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
            return layer.__class__.from_config(layer.get_config())
        self.visited.append(layer)
        is_wrapper = isinstance(layer, keras.layers.Activation)  # of a function
        candidates = (layer, layer.activation) if is_wrapper else (layer,)
        if any(self.matches(layer.name, candidate) for candidate in candidates):
            new = self._new(layer, layer.name)
            self.places.append(_Place(layer.name, layer, new, layer))
            return new
        self._look(layer)
        clone = layer.__class__.from_config(layer.get_config())
        if not is_wrapper:
            self._replace_function(layer, clone)
        self.kept.append((layer, clone))
        return clone

    def _new(self, layer: Any, name: str) -> Any:
        new = MAKER.one(self.make)
        if not self.match_gain:
            return _like(new, layer, name)
        is_image = len(layer.output.shape) > 2
        first = is_image and keras.config.image_data_format() == "channels_first"
        matched = Matched(_like(new, layer, f"{name}_activation"), axis=1 if first else -1)
        return _like(matched, layer, name)

    def _look(self, layer: Any) -> None:
        """For what the layer's own code calls."""
        if not keras_calls.is_own(layer) or activation_name(layer):
            return
        try:
            self.calls += keras_calls.calls_within(layer)
        except Exception:  # whatever a layer's code raises on symbols
            self.not_traced.append(layer.name)

    def _replace_function(self, layer: Any, clone: Any) -> None:
        """Of ``Dense(8, activation="relu")``, say."""
        # Recurrent layers have their cell's as a property, which cannot be set.
        function = vars(layer).get("activation")
        name = f"{layer.name}.activation"
        if function is None or function is keras.activations.linear:
            return
        self.visited.append(function)
        if self.matches(name, function):
            clone.activation = self._new(layer, name.replace(".", "_"))
            self.places.append(_Place(name, function, clone.activation, layer, clone))


def _is_clonable(model: Any) -> bool:
    """Whether it is a Sequential or functional model; only these know their operations."""
    is_functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    return is_functional or isinstance(model, keras.Sequential)


def _like(new: Any, old: Any, name: str) -> Any:
    new.name = name
    new.dtype_policy = old.dtype_policy
    return new


def _shown(value: Any) -> str:
    if isinstance(value, Matched):
        value = value.activation
    return getattr(value, "__name__", type(value).__name__)
