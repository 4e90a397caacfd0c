"""Weights between frameworks: a module of `zeta.nn` and its Flax and Keras twins.

All three hold the same numbers under different names and in different layouts. In between they are
NumPy arrays under PyTorch's names and in PyTorch's layout, so that two functions take any module to
any other, and :func:`copy_weights` does both. What a constructor was given and does not become a
weight, an alpha that is neither learnable nor per channel say, stays as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Weights", "copy_weights", "load_weights", "weights"]

#: By PyTorch's names, in PyTorch's layout.
Weights = dict[str, npt.NDArray[Any]]


def weights(module: Any) -> Weights:
    """A module's weights under PyTorch's names and in PyTorch's layout, as NumPy arrays.

    Args:
        module: an activation or a softmax head of ``zeta.nn``, ``zeta.flax`` or ``zeta.keras``; a
            Keras layer must have been built. Half precision comes as float32.

    Returns:
        By name, a learnable or per-channel parameter's array of shape () or (channels,), with the
        length before it where it is a vector; of a head, ``weight``, ``bias``, ``prior.weight``,
        ``prior.bias``, ``latent.weight``, ``latent.bias`` and ``logits.cap``, say, of a formula
        that learns, those that it has. The arrays are copies.

    Raises:
        TypeError: the module is of none of these, or a container of them.
        ValueError: a Keras layer that has not been built.

    Example:
        >>> from zeta import convert
        >>> from zeta.nn import Exo
        >>> convert.weights(Exo(learnable=True))
        {'alpha': array(1., dtype=float32)}
    """
    return {name: _canonical(slot) for name, slot in _slots(module).items()}


def load_weights(module: Any, weights: Mapping[str, npt.ArrayLike]) -> None:
    """Set a module's weights, in its own dtype, from what :func:`weights` answered.

    Raises:
        TypeError: the module is none that :func:`weights` takes.
        ValueError: a Keras layer that has not been built, a name that is missing or too many, or a
            shape that does not fit.

    Example:
        >>> from zeta import convert
        >>> from zeta.nn import Exo
        >>> module = Exo(learnable=True)
        >>> convert.load_weights(module, {"alpha": 0.5})
        >>> module.alpha.item()
        0.5
    """
    slots = _slots(module)
    if set(slots) != set(weights):
        raise ValueError(
            f"{type(module).__name__} has the weights {sorted(slots)}, got {sorted(weights)}"
        )
    arrays = {name: _fitted(name, slots[name], weights[name]) for name in slots}
    for name, slot in slots.items():  # nothing is set unless everything fits
        slot.set(arrays[name])


def copy_weights(source: Any, target: Any) -> None:
    """Set the weights of one framework's module from its twin in another.

    Raises:
        TypeError: a module that :func:`weights` does not take.
        ValueError: the modules' weights differ in name or shape.

    Example:
        >>> from zeta import convert, flax, nn
        >>> source, target = nn.Exo(0.5, learnable=True), flax.Exo(learnable=True)
        >>> convert.copy_weights(source, target)
        >>> target.alpha.item()
        0.5
    """
    load_weights(target, weights(source))


class _Slot(ABC):
    """One weight where a framework keeps it.

    Attributes:
        variable: the framework's own.
        of_formula: a formula's parameter: one number, or one per channel, in a shape that
            broadcasts; of a vector, so many of them.
        is_vector: whether it is a vector, whose length comes first.
        transposed: kept as (inputs, outputs), where PyTorch has (outputs, inputs).
    """

    def __init__(
        self,
        variable: Any,
        *,
        of_formula: bool = False,
        is_vector: bool = False,
        transposed: bool = False,
    ) -> None:
        self.variable = variable
        self.of_formula = of_formula
        self.is_vector = is_vector
        self.transposed = transposed

    @abstractmethod
    def get(self) -> npt.NDArray[Any]:
        """A copy of the numbers as they are kept."""

    @abstractmethod
    def set(self, array: npt.NDArray[Any]) -> None:
        """Replace the numbers by others of the kept shape."""


class _TorchSlot(_Slot):
    def get(self) -> npt.NDArray[Any]:
        tensor = self.variable.detach().cpu()
        return (tensor if tensor.itemsize > 2 else tensor.float()).numpy().copy()

    def set(self, array: npt.NDArray[Any]) -> None:
        import torch

        with torch.no_grad():
            self.variable.copy_(torch.tensor(array))


class _FlaxSlot(_Slot):
    def get(self) -> npt.NDArray[Any]:
        return _wide(np.array(self.variable[...]))

    def set(self, array: npt.NDArray[Any]) -> None:
        self.variable[...] = array.astype(self.variable.dtype)


class _KerasSlot(_Slot):
    def get(self) -> npt.NDArray[Any]:
        import keras

        return _wide(np.array(keras.ops.convert_to_numpy(self.variable.value)))

    def set(self, array: npt.NDArray[Any]) -> None:
        self.variable.assign(array)


def _slots(module: Any) -> dict[str, _Slot]:
    """Every weight of a module by PyTorch's name."""
    packages = {".".join(base.__module__.split(".")[:2]) for base in type(module).__mro__}
    if "zeta.nn" in packages:
        state = [*module.named_parameters(), *module.named_buffers()]
        return {
            name: _TorchSlot(
                tensor, of_formula=hasattr(module, "formula"), is_vector=_is_vector(module, name)
            )
            for name, tensor in state
        }
    if "zeta.keras" in packages:
        if not module.built:
            raise ValueError(f"{module.name}: build the layer first, by a call or by build(shape)")
        return _layer_slots(module, _KerasSlot)
    if "zeta.flax" in packages:
        return _layer_slots(module, _FlaxSlot)
    raise TypeError(
        "expected an activation or a softmax head of zeta.nn, zeta.flax or zeta.keras; "
        f"got {type(module).__module__}.{type(module).__qualname__}"
    )


def _layer_slots(module: Any, slot: type[_Slot]) -> dict[str, _Slot]:
    """Of a Flax module or a Keras layer, which keep dense layers alike."""
    if hasattr(module, "formula"):
        stored = {name: getattr(module, name) for name in module.formula.parameters}
        variables = {k: v for k, v in stored.items() if not isinstance(v, float | tuple)}
        return {
            name: slot(v, of_formula=True, is_vector=_is_vector(module, name))
            for name, v in variables.items()
        }
    found = {"weight": slot(module.weight)} if hasattr(module, "weight") else {}
    if getattr(module, "bias", None) is not None:
        found["bias"] = slot(module.bias)
    if hasattr(getattr(module, "logits", None), "formula"):
        learned = _layer_slots(module.logits, slot)
        found |= {f"logits.{name}": variable for name, variable in learned.items()}
    for name in ("prior", "latent"):
        dense = getattr(module, name, None)
        if dense is not None:
            found[f"{name}.weight"] = slot(dense.kernel, transposed=True)
            if dense.bias is not None:
                found[f"{name}.bias"] = slot(dense.bias)
    return found


def _canonical(slot: _Slot) -> npt.NDArray[Any]:
    array = slot.get()
    if slot.transposed:
        return np.ascontiguousarray(array.T)
    return array.reshape(_kept_shape(slot, array.shape)) if slot.of_formula else array


def _fitted(name: str, slot: _Slot, given: npt.ArrayLike) -> npt.NDArray[Any]:
    kept = tuple(slot.variable.shape)
    array = np.asarray(given)
    if slot.transposed:
        array = np.ascontiguousarray(array.T)
    if slot.of_formula and _kept_shape(slot, array.shape) == _kept_shape(slot, kept):
        array = array.reshape(kept)
    if array.shape != kept:
        raise ValueError(f"{name} is kept with shape {kept}, got {array.shape}")
    return array


def _kept_shape(slot: _Slot, shape: tuple[int, ...]) -> tuple[int, ...]:
    """PyTorch's shape of one number, or one per channel: in Keras, (1, 1, channels) say."""
    length, each = (shape[:1], shape[1:]) if slot.is_vector else ((), shape)
    sizes = tuple(size for size in each if size != 1)
    return length + (sizes if len(sizes) <= 1 else each)


def _is_vector(module: Any, name: str) -> bool:
    return hasattr(module, "formula") and name in module.formula.vectors


def _wide(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array if array.dtype.itemsize > 2 else array.astype(np.float32)
