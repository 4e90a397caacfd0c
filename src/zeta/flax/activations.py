"""Activation functions as NNX modules: one class for every formula, and the documents' three."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from zeta import _modules, activations
from zeta._backends.jax import check_input
from zeta._call_forms import input_also_called
from zeta._formula import Formula
from zeta._modules import EXO, LAPLACE, SELU, Counts, Learnable
from zeta.jax.activations import on_arrays


class Fixed(nnx.Variable[Array]):
    """A parameter's value per channel that is not learned."""


class FormulaModule(nnx.Module):
    """A formula as a module, its parameters fixed, learnable, or learnable per channel.

    Starting values are exact, so no key is needed. A vector of length n has shape (n,), (n, groups)
    or (n, channels).

    Args:
        formula: the formula.
        values: starting values by parameter name; the formula's defaults where left out.
        learnable: make every parameter an ``nnx.Param``, or those that are named; None for the
            formula's own choice, :attr:`zeta.Formula.learnable`.
        num_parameters: how many values a parameter has: 1, the number of channels, or a divisor of
            it for one value per group of neighbouring channels; by parameter name where they
            differ, 1 for those left out.
        channel_dim: the dimension of the input that holds the channels; -1 in most Flax models.
        param_dtype: of the parameters.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, a vector's value of another length, or an input whose
            ``channel_dim`` is missing or is not divisible by num_parameters.
        TypeError: an unknown parameter name, or an input that is not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.activations import leaky_relu
        >>> from zeta.flax import FormulaModule
        >>> module = FormulaModule(leaky_relu, {"negative_slope": 0.2}, learnable=True)
        >>> [round(value, 4) for value in module(jnp.array([-1.0, 1.0])).tolist()]
        [-0.2, 1.0]
    """

    _inputs = 1

    def __init__(
        self,
        formula: Formula,
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        learnable: Learnable = None,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        if self._inputs == 1:
            _modules.check_one_input(formula, type(self).__name__)
        counts = _modules.parameter_counts(formula, num_parameters)
        self.formula = formula
        self.learnable = _modules.which_learned(formula, learnable)
        self.num_parameters = num_parameters
        self.channel_dim = channel_dim
        self._counts = tuple((name, count) for name, count in counts.items() if count > 1)
        _modules.check_names(self, formula, "module")
        learned = formula.learned(learnable)
        for name, value in _modules.starting_values(formula, values).items():
            if name not in learned and counts[name] == 1:
                setattr(self, name, value)
                continue
            shape = _modules.parameter_shape(formula, name, counts[name])
            start = jnp.array(value, param_dtype)
            start = start.reshape(start.shape + (1,) * (len(shape) - start.ndim))
            variable = nnx.Param if name in learned else Fixed
            setattr(self, name, variable(jnp.broadcast_to(start, shape)))

    @input_also_called("x", "inputs")
    def __call__(self, input: Array) -> Array:
        """The formula, elementwise."""
        return on_arrays(self.formula)(input, **self.parameter_values(input))

    def parameter_values(self, input: Array) -> dict[str, Any]:
        """Every parameter's value by name, shaped to broadcast over the input's channels."""
        stored = {name: getattr(self, name) for name in self.formula.parameters}
        values = {k: v[...] if isinstance(v, nnx.Variable) else v for k, v in stored.items()}
        if self._counts:
            check_input(input, self.formula.name)
        for name, count in self._counts:
            shape = _modules.channel_shape(
                input.shape, self.channel_dim, count, type(self).__name__
            )
            each = jnp.repeat(values[name], shape[self.channel_dim] // count, axis=-1)
            values[name] = each.reshape(*values[name].shape[:-1], *shape)
        return values


class Exo(FormulaModule):
    """A sigmoid gate between the identity and tanh.

    ``g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``.

    Args:
        alpha: sharpness of the gate.
        learnable: make alpha an ``nnx.Param``.
        num_parameters: 1, the number of channels for one alpha per channel, or a divisor of it for
            one per group of channels.
        channel_dim: the dimension of the input that holds the channels.
        param_dtype: of the parameter.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.flax import Exo
        >>> [round(value, 4) for value in Exo(alpha=0.5)(jnp.array([-2.0, 2.0])).tolist()]
        [-1.2426, 1.7214]

    Source: the Exo document of Zeta.
    """

    def __init__(
        self,
        alpha: float = EXO["alpha"],
        *,
        learnable: Learnable = False,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(
            activations.exo,
            {"alpha": alpha},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            param_dtype=param_dtype,
        )


class LearnableSELUVariation(FormulaModule):
    """SELU with a sine and five learnable parameters.

    ``lambda_·x`` for x > 0, else ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``.

    Args:
        lambda_, alpha, beta, gamma, omega: starting values of the five ``nnx.Param`` s.
        num_parameters: 1, the number of channels for five values per channel, or a divisor of it
            for five per group of channels; by name where they differ.
        channel_dim: the dimension of the input that holds the channels.
        param_dtype: of the parameters.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.flax import LearnableSELUVariation
        >>> y = LearnableSELUVariation()(jnp.array([0.0, 2.0]))
        >>> [round(value, 4) for value in y.tolist()]
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
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(
            activations.learnable_selu_variation,
            {"lambda_": lambda_, "alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega},
            learnable=True,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            param_dtype=param_dtype,
        )


class LaplaceActivation(FormulaModule):
    """The normal distribution function as an activation.

    ``0.5·(1 + erf((x - mu) / (sigma·√2)))``.

    Args:
        mu: mean.
        sigma: standard deviation; not 0.
        learnable: make mu and sigma ``nnx.Param`` s, or the one that is named.
        num_parameters: 1, the number of channels for one pair per channel, or a divisor of it for
            one per group of channels; by name where they differ.
        channel_dim: the dimension of the input that holds the channels.
        param_dtype: of the parameters.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from zeta.flax import LaplaceActivation
        >>> LaplaceActivation()(jnp.array([0.707107])).tolist()
        [0.5]

    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """

    def __init__(
        self,
        mu: float = LAPLACE["mu"],
        sigma: float = LAPLACE["sigma"],
        *,
        learnable: Learnable = False,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        super().__init__(
            activations.laplace,
            {"mu": mu, "sigma": sigma},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            param_dtype=param_dtype,
        )

    def __call__(
        self, input: Array, mu: float | Array | None = None, sigma: float | Array | None = None
    ) -> Array:
        """The activation, elementwise; ``mu`` and ``sigma`` given here win over the module's."""
        values = _modules.given_or_own(lambda: self.parameter_values(input), mu=mu, sigma=sigma)
        return on_arrays(self.formula)(input, **values)
