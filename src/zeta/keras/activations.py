"""Activation functions as Keras layers: one class for every formula, and the documents' three."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from zeta import _modules, activations
from zeta._formula import Formula
from zeta._modules import EXO, LAPLACE, SELU, Learnable
from zeta._selu_softmax import checked_dim
from zeta.keras.functions import PACKAGE, evaluate, selu_softmax

# One axis or several; None where a parameter has one value.
SharedAxes = int | Sequence[int] | None


@keras.saving.register_keras_serializable(package=PACKAGE)
class FormulaLayer(keras.Layer):
    """A formula as a layer, its parameters fixed, learnable, or learnable per channel.

    Parameters are kept and used in the variables' dtype, float32 under mixed precision: half
    precision is computed in float32 and rounded once.

    Args:
        formula: the formula, or its name in the catalogue.
        values: starting values by parameter name; the formula's defaults where left out.
        learnable: train every parameter, or those that are named; None for the formula's own
            choice, :attr:`zeta.Formula.learnable`.
        shared_axes: None for one value of each parameter. Else one value per position of the
            input without its batch, except along these axes, as in ``keras.layers.PReLU``:
            ``[1, 2]`` for one per channel of an image, ``[]`` for one per feature. By parameter
            name where they differ, None for those left out.
        groups: into how many groups of neighbours the last axis that is not shared is divided, each
            with one value; None for a value per position.
        defaults: other defaults for the formula, see :meth:`zeta.Formula.with_defaults`: what a
            saved layer keeps of them.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Shape: any; the output has the input's shape.

    Raises:
        TypeError: an unknown parameter name, or an input that is not floating point.
        ValueError: shared axes that the input lacks, an axis of unknown size that is not
            shared, or one that cannot be divided into so many groups.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import FormulaLayer
        >>> layer = FormulaLayer("leaky_relu", {"negative_slope": 0.2}, learnable=True)
        >>> y = ops.convert_to_numpy(layer(np.array([-1.0, 1.0], "float32")))
        >>> [round(value, 4) for value in y.tolist()]
        [-0.2, 1.0]
    """

    _inputs = 1

    def __init__(
        self,
        formula: Formula | str,
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        learnable: Learnable = None,
        shared_axes: SharedAxes | Mapping[str, SharedAxes] = None,
        groups: int | None = None,
        defaults: Mapping[str, float | Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        found = activations.get(formula) if isinstance(formula, str) else formula
        self.formula = found.with_defaults(**defaults) if defaults else found
        self.initial_values = _modules.starting_values(self.formula, values)
        self.learnable = _modules.which_learned(self.formula, learnable)
        self.shared_axes = _checked_axes(self.formula, shared_axes)
        self.groups = _checked_groups(groups, self.shared_axes)
        if self._inputs == 1:
            _modules.check_one_input(self.formula, type(self).__name__)
        _modules.check_names(self, self.formula, "layer")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the parameters, each at its starting value exactly."""
        learned = self.formula.learned(self.learnable)
        self._repeats: dict[str, tuple[int, int]] = {}
        axes: dict[int, int] = {}
        for name, value in self.initial_values.items():
            shared = self._shared(name)
            if name not in learned and shared is None:
                setattr(self, name, value)
                continue
            sizes = () if shared is None else self._parameter_shape(input_shape, shared)
            if shared is not None:
                axes |= {i: size for i, size in enumerate(sizes, 1) if i not in shared}
                sizes = self._grouped(name, sizes, shared, self.groups) if self.groups else sizes
            weight = self.add_weight(
                name=name,
                shape=sizes if isinstance(value, float) else (len(value), *sizes),
                initializer=_initializer(value),
                trainable=name in learned,
                autocast=False,
            )
            setattr(self, name, weight)
        if self.shared_axes is not None:
            self.input_spec = keras.InputSpec(ndim=len(input_shape), axes=axes)

    def _shared(self, name: str) -> list[int] | None:
        """The axes along which the parameter has one value; None for all."""
        if isinstance(self.shared_axes, Mapping):
            return self.shared_axes.get(name)
        return self.shared_axes

    def _parameter_shape(
        self, input_shape: Sequence[int | None], shared: list[int]
    ) -> tuple[int, ...]:
        rank = len(input_shape)
        if missing := [axis for axis in shared if not 1 <= axis < rank]:
            raise ValueError(
                f"{self.name}: shared_axes {missing[0]} is no axis of an input of shape "
                f"{tuple(input_shape)} beside the batch; accepted: 1 to {rank - 1}"
            )
        sizes = [1 if i in shared else input_shape[i] for i in range(1, rank)]
        if None in sizes:
            axis = sizes.index(None) + 1
            raise ValueError(
                f"{self.name}: axis {axis} of the input's shape {tuple(input_shape)} has no fixed "
                f"size; add it to shared_axes"
            )
        return tuple(size for size in sizes if size is not None)

    def _grouped(
        self, name: str, sizes: tuple[int, ...], shared: list[int], groups: int
    ) -> tuple[int, ...]:
        """The sizes with one value per group, each of which calls repeat."""
        axis = max((i for i in range(len(sizes)) if i + 1 not in shared), default=None)
        if axis is None or sizes[axis] % groups:
            size = "no axis" if axis is None else f"axis {axis + 1} of size {sizes[axis]}"
            raise ValueError(f"{self.name}: {size} cannot be divided into {groups} groups")
        self._repeats[name] = sizes[axis] // groups, axis + (name in self.formula.vectors)
        return (*sizes[:axis], groups, *sizes[axis + 1 :])

    def call(self, inputs: Any) -> Any:
        """The formula, elementwise."""
        return evaluate(self.formula, (inputs,), self.parameter_values())

    def parameter_values(self) -> dict[str, Any]:
        """Every parameter's value by name: a number, a variable or a tensor."""
        values = {name: getattr(self, name) for name in self.initial_values}
        repeated = {
            k: keras.ops.repeat(values[k], n, axis) for k, (n, axis) in self._repeats.items()
        }
        return values | repeated

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What builds the same layer.

        Raises:
            ValueError: the formula is not in the catalogue, where its name would find it.
        """
        return super().get_config() | self._arguments()

    def _arguments(self) -> dict[str, Any]:
        known = activations.find(self.formula.name)
        if known is not (self.formula._origin or self.formula):
            kind = "FormulaLayer" if self._inputs == 1 else "GatedUnit"
            raise ValueError(
                f"{self.formula!r} is not in zeta's catalogue, so a {kind} of it cannot be "
                f"saved; register it, with zeta.activations.register"
            )
        others = {} if known is self.formula else {"defaults": dict(self.formula.parameters)}
        return {
            "formula": self.formula.name,
            "values": self.initial_values,
            **others,
        } | self._options()

    def _options(self) -> dict[str, Any]:
        groups = {} if self.groups is None else {"groups": self.groups}
        return {"learnable": self.learnable, "shared_axes": self.shared_axes, **groups}


def _checked_axes(
    formula: Formula, given: SharedAxes | Mapping[str, SharedAxes]
) -> list[int] | dict[str, list[int]] | None:
    if not isinstance(given, Mapping):
        return _axes(given)
    if unknown := [name for name in given if name not in formula.parameters]:
        raise TypeError(
            f"{formula.name}: shared_axes has {unknown[0]!r}, which is not a parameter; "
            f"it has {', '.join(formula.parameters) or 'none'}"
        )
    found = {name: _axes(axes) for name, axes in given.items()}
    return {name: axes for name, axes in found.items() if axes is not None}


def _axes(given: SharedAxes) -> list[int] | None:
    if given is None:
        return None
    axes = given if isinstance(given, Iterable) else [given]
    return [operator.index(axis) for axis in axes]


def _checked_groups(groups: int | None, shared_axes: Any) -> int | None:
    if groups is None:
        return None
    if operator.index(groups) < 1 or shared_axes is None:
        raise ValueError(
            f"groups must be at least 1, with shared_axes beside it, got {groups} and {shared_axes}"
        )
    return operator.index(groups)


def _initializer(value: float | tuple[float, ...]) -> Any:
    """Of one number everywhere, or of a vector's along the first axis."""
    if isinstance(value, float):
        return keras.initializers.Constant(value)

    def rows(shape: tuple[int, ...], dtype: Any = None) -> Any:
        numbers = keras.ops.convert_to_tensor(value, dtype=dtype)
        column = keras.ops.reshape(numbers, (-1,) + (1,) * (len(shape) - 1))
        return column * keras.ops.ones(shape, dtype)

    return rows


@keras.saving.register_keras_serializable(package=PACKAGE)
class Exo(FormulaLayer):
    """A sigmoid gate between the identity and tanh.

    ``g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``.

    Args:
        alpha: sharpness of the gate.
        learnable: train alpha.
        shared_axes: None for one alpha; else as :class:`FormulaLayer` has it, ``[1, 2]`` for one
            alpha per channel of an image.
        groups: as :class:`FormulaLayer` has it.
        **kwargs: as every layer takes them.

    Shape: any; the output has the input's shape.

    Raises:
        TypeError: an input that is not floating point.
        ValueError: shared axes that do not fit the input.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import Exo
        >>> y = Exo(alpha=0.5)(np.array([-2.0, 2.0], "float32"))
        >>> [round(value, 4) for value in ops.convert_to_numpy(y).tolist()]
        [-1.2426, 1.7214]

    Source: the Exo document of Zeta.
    """

    def __init__(
        self,
        alpha: float = EXO["alpha"],
        *,
        learnable: Learnable = False,
        shared_axes: SharedAxes | Mapping[str, SharedAxes] = None,
        groups: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.exo,
            {"alpha": alpha},
            learnable=learnable,
            shared_axes=shared_axes,
            groups=groups,
            **kwargs,
        )

    def _arguments(self) -> dict[str, Any]:
        return self.initial_values | self._options()


@keras.saving.register_keras_serializable(package=PACKAGE)
class LearnableSELUVariation(FormulaLayer):
    """SELU with a sine and five learnable parameters.

    ``lambda_·x`` for x > 0, else ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``.

    Args:
        lambda_, alpha, beta, gamma, omega: starting values of the five parameters.
        shared_axes, groups: as :class:`FormulaLayer` has them.
        **kwargs: as every layer takes them.

    Shape: any; the output has the input's shape.

    Raises:
        TypeError: an input that is not floating point.
        ValueError: shared axes that do not fit the input.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import LearnableSELUVariation
        >>> y = LearnableSELUVariation()(np.array([0.0, 2.0], "float32"))
        >>> [round(value, 4) for value in ops.convert_to_numpy(y).tolist()]
        [0.0, 2.1014]

    Source: Apoorv 2024, LearnableSELUVariation.
    """

    def __init__(
        self,
        lambda_: float = SELU["lambda_"],
        alpha: float = SELU["alpha"],
        beta: float = SELU["beta"],
        gamma: float = SELU["gamma"],
        omega: float = SELU["omega"],
        *,
        shared_axes: SharedAxes | Mapping[str, SharedAxes] = None,
        groups: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.learnable_selu_variation,
            {"lambda_": lambda_, "alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega},
            learnable=True,
            shared_axes=shared_axes,
            groups=groups,
            **kwargs,
        )

    def _arguments(self) -> dict[str, Any]:
        options = self._options()
        del options["learnable"]
        return self.initial_values | options


@keras.saving.register_keras_serializable(package=PACKAGE)
class LaplaceActivation(FormulaLayer):
    """The normal distribution function as an activation.

    ``0.5·(1 + erf((x - mu) / (sigma·√2)))``.

    Args:
        mu: mean.
        sigma: standard deviation; not 0.
        learnable: train mu and sigma.
        shared_axes, groups: as :class:`FormulaLayer` has them.
        **kwargs: as every layer takes them.

    Shape: any; the output has the input's shape.

    Raises:
        TypeError: an input that is not floating point.
        ValueError: shared axes that do not fit the input.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import LaplaceActivation
        >>> ops.convert_to_numpy(LaplaceActivation()(np.array([0.707107], "float32"))).tolist()
        [0.5]

    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """

    def __init__(
        self,
        mu: float = LAPLACE["mu"],
        sigma: float = LAPLACE["sigma"],
        *,
        learnable: Learnable = False,
        shared_axes: SharedAxes | Mapping[str, SharedAxes] = None,
        groups: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.laplace,
            {"mu": mu, "sigma": sigma},
            learnable=learnable,
            shared_axes=shared_axes,
            groups=groups,
            **kwargs,
        )

    def call(self, inputs: Any, mu: Any = None, sigma: Any = None) -> Any:
        """The activation, elementwise; ``mu`` and ``sigma`` given here win over the layer's."""
        values = _modules.given_or_own(self.parameter_values, mu=mu, sigma=sigma)
        return evaluate(self.formula, (inputs,), values)

    def _arguments(self) -> dict[str, Any]:
        return self.initial_values | self._options()


@keras.saving.register_keras_serializable(package=PACKAGE)
class SELUSoftmax(keras.Layer):
    """Softmax of the SELU of the input; see :func:`zeta.keras.selu_softmax`.

    Args:
        dim: the dimension that sums to one.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Shape: any; the output has the input's shape.

    Example:
        >>> import numpy as np
        >>> from keras import ops
        >>> from zeta.keras import SELUSoftmax
        >>> ops.convert_to_numpy(SELUSoftmax()(np.zeros((1, 4), "float32")))
        array([[0.25, 0.25, 0.25, 0.25]], dtype=float32)
    """

    def __init__(self, dim: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.dim = dim

    def call(self, inputs: Any) -> Any:
        """Probabilities along ``dim``."""
        return selu_softmax(inputs, self.dim)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        checked_dim(self.dim, len(input_shape))
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What builds the same layer."""
        return super().get_config() | {"dim": self.dim}
