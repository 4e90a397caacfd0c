"""Activation functions as Keras layers: one class for every formula, and the documents' three."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from zeta import _modules, activations
from zeta._formula import Formula
from zeta._modules import EXO, LAPLACE, SELU
from zeta._selu_softmax import checked_dim
from zeta.keras.functions import PACKAGE, evaluate, selu_softmax


@keras.saving.register_keras_serializable(package=PACKAGE)
class FormulaLayer(keras.Layer):
    """A formula as a layer, its parameters fixed, learnable, or learnable per channel.

    Parameters are kept and used in the variables' dtype, float32 under mixed precision: half
    precision is computed in float32 and rounded once.

    Args:
        formula: the formula, or its name in the catalogue.
        values: starting values by parameter name; the formula's defaults where left out.
        learnable: train every parameter.
        shared_axes: None for one value of each parameter. Else one value per position of the
            input without its batch, except along these axes, as in ``keras.layers.PReLU``:
            ``[1, 2]`` for one per channel of an image, ``[]`` for one per feature.
        **kwargs: as every layer takes them, ``name`` and ``dtype`` say.

    Shape: any; the output has the input's shape.

    Raises:
        TypeError: an unknown parameter name, or an input that is not floating point.
        ValueError: shared axes that the input lacks, or an axis of unknown size that is not
            shared.

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
        values: Mapping[str, float] | None = None,
        *,
        learnable: bool = False,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.formula = activations.get(formula) if isinstance(formula, str) else formula
        bound = self.formula.bind(**(values or {}))
        self.initial_values = {name: float(value) for name, value in bound.items()}
        self.learnable = learnable
        self.shared_axes = None if shared_axes is None else _axes(shared_axes)
        if self._inputs == 1:
            _modules.check_one_input(self.formula, type(self).__name__)
        _modules.check_names(self, self.formula, "layer")

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the parameters, each at its starting value exactly."""
        fixed = not self.learnable and self.shared_axes is None
        shape = () if fixed else self._parameter_shape(input_shape)
        for name, value in self.initial_values.items():
            if fixed:
                setattr(self, name, value)
                continue
            weight = self.add_weight(
                name=name,
                shape=shape,
                initializer=keras.initializers.Constant(value),
                trainable=self.learnable,
                autocast=False,
            )
            setattr(self, name, weight)

    def _parameter_shape(self, input_shape: Sequence[int | None]) -> tuple[int, ...]:
        if self.shared_axes is None:
            return ()
        rank = len(input_shape)
        if missing := [axis for axis in self.shared_axes if not 1 <= axis < rank]:
            raise ValueError(
                f"{self.name}: shared_axes {missing[0]} is no axis of an input of shape "
                f"{tuple(input_shape)} beside the batch; accepted: 1 to {rank - 1}"
            )
        sizes = [1 if i in self.shared_axes else input_shape[i] for i in range(1, rank)]
        if None in sizes:
            axis = sizes.index(None) + 1
            raise ValueError(
                f"{self.name}: axis {axis} of the input's shape {tuple(input_shape)} has no fixed "
                f"size; add it to shared_axes"
            )
        self.input_spec = keras.InputSpec(
            ndim=rank, axes={i: s for i, s in enumerate(sizes, 1) if i not in self.shared_axes}
        )
        return tuple(size for size in sizes if size is not None)

    def call(self, inputs: Any) -> Any:
        """The formula, elementwise."""
        return evaluate(self.formula, (inputs,), self.parameter_values())

    def parameter_values(self) -> dict[str, Any]:
        """Every parameter's value by name: a number or a variable."""
        return {name: getattr(self, name) for name in self.initial_values}

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
        if (activations.CATALOGUE | activations.GATES).get(self.formula.name) is not self.formula:
            kind = "FormulaLayer" if self._inputs == 1 else "GatedUnit"
            raise ValueError(
                f"{self.formula!r} is not in zeta's catalogue, so a {kind} of it cannot be "
                f"saved; derive a layer from {kind} that passes the formula on"
            )
        return {
            "formula": self.formula.name,
            "values": self.initial_values,
            "learnable": self.learnable,
            "shared_axes": self.shared_axes,
        }


def _axes(shared_axes: int | Sequence[int]) -> list[int]:
    axes = shared_axes if isinstance(shared_axes, Iterable) else [shared_axes]
    return [operator.index(axis) for axis in axes]


@keras.saving.register_keras_serializable(package=PACKAGE)
class Exo(FormulaLayer):
    """A sigmoid gate between the identity and tanh.

    ``g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``.

    Args:
        alpha: sharpness of the gate.
        learnable: train alpha.
        shared_axes: None for one alpha; else as :class:`FormulaLayer` has it, ``[1, 2]`` for one
            alpha per channel of an image.
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
        learnable: bool = False,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.exo,
            {"alpha": alpha},
            learnable=learnable,
            shared_axes=shared_axes,
            **kwargs,
        )

    def _arguments(self) -> dict[str, Any]:
        options = {"learnable": self.learnable, "shared_axes": self.shared_axes}
        return self.initial_values | options


@keras.saving.register_keras_serializable(package=PACKAGE)
class LearnableSELUVariation(FormulaLayer):
    """SELU with a sine and five learnable parameters.

    ``lambda_·x`` for x > 0, else ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``.

    Args:
        lambda_, alpha, beta, gamma, omega: starting values of the five parameters.
        shared_axes: None for one value of each; else as :class:`FormulaLayer` has it.
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
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.learnable_selu_variation,
            {"lambda_": lambda_, "alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega},
            learnable=True,
            shared_axes=shared_axes,
            **kwargs,
        )

    def _arguments(self) -> dict[str, Any]:
        return self.initial_values | {"shared_axes": self.shared_axes}


@keras.saving.register_keras_serializable(package=PACKAGE)
class LaplaceActivation(FormulaLayer):
    """The normal distribution function as an activation.

    ``0.5·(1 + erf((x - mu) / (sigma·√2)))``.

    Args:
        mu: mean.
        sigma: standard deviation; not 0.
        learnable: train mu and sigma.
        shared_axes: None for one pair; else as :class:`FormulaLayer` has it.
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
        learnable: bool = False,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            activations.laplace,
            {"mu": mu, "sigma": sigma},
            learnable=learnable,
            shared_axes=shared_axes,
            **kwargs,
        )

    def call(self, inputs: Any, mu: Any = None, sigma: Any = None) -> Any:
        """The activation, elementwise; ``mu`` and ``sigma`` given here win over the layer's."""
        values = _modules.given_or_own(self.parameter_values, mu=mu, sigma=sigma)
        return evaluate(self.formula, (inputs,), values)

    def _arguments(self) -> dict[str, Any]:
        options = {"learnable": self.learnable, "shared_axes": self.shared_axes}
        return self.initial_values | options


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
