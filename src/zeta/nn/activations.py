"""Activation functions as modules: one class for every formula, and the documents' three."""

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from zeta import _modules, activations
from zeta._call_forms import input_also_called
from zeta._formula import Formula
from zeta._modules import EXO, LAPLACE, SELU
from zeta.nn.module import Module


class FormulaModule(Module):
    """A formula as a module, its parameters fixed, learnable, or learnable per channel.

    Usually made by :meth:`zeta.Formula.module`.

    Args:
        formula: the formula.
        values: starting values by parameter name; the formula's defaults where left out.
        learnable: make every parameter an ``nn.Parameter``: a scalar, or one value per channel.
        num_parameters: 1, or the number of channels for one value per channel.
        channel_dim: the dimension of the input that holds the channels.
        device, dtype: of the parameters, as in every module.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input whose ``channel_dim`` is missing or has
            another size.
        TypeError: an unknown parameter name, or an input that is not floating point.

    Example:
        >>> from zeta.activations import leaky_relu
        >>> from zeta.nn import FormulaModule
        >>> FormulaModule(leaky_relu, {"negative_slope": 0.2}, learnable=True)
        FormulaModule(leaky_relu, negative_slope=0.2, learnable=True)
    """

    _inputs = 1

    def __init__(
        self,
        formula: Formula,
        values: Mapping[str, float] | None = None,
        *,
        learnable: bool = False,
        num_parameters: int = 1,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if self._inputs == 1:
            _modules.check_one_input(formula, self._get_name())
        shape = _modules.parameter_shape(num_parameters)
        self.formula = formula
        self.initial_values = {k: float(v) for k, v in formula.bind(**(values or {})).items()}
        self.learnable = learnable
        self.num_parameters = num_parameters
        self.channel_dim = channel_dim
        _modules.check_names(self, formula, "module")
        for name, value in self.initial_values.items():
            if not learnable and num_parameters == 1:
                setattr(self, name, value)
                continue
            tensor = torch.empty(shape, device=device, dtype=dtype)
            if learnable:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self._start()

    def reset_parameters(self) -> None:
        """Set every learnable or per-channel parameter to its starting value, exactly."""
        for name, value in self.initial_values.items():
            parameter = getattr(self, name)
            if isinstance(parameter, Tensor):
                nn.init.constant_(parameter, value)

    @input_also_called("x", "inputs")
    def forward(self, input: Tensor) -> Tensor:
        """The formula, elementwise."""
        return self.formula(input, **self.parameter_values(input))

    def parameter_values(self, input: Tensor) -> dict[str, float | Tensor]:
        """Every parameter's value by name, shaped to broadcast over the input's channels."""
        values = {name: getattr(self, name) for name in self.initial_values}
        if self.num_parameters == 1:
            return values
        shaped = _along_channels(
            (*values.values(),), input, self.channel_dim, self.num_parameters, self._get_name()
        )
        return {name: shaped[i] for i, name in enumerate(values)}

    def extra_repr(self) -> str:
        """What ``print(module)`` shows; of what is learned, the starting values."""
        has_own_class = type(self).__name__ in _modules.CLASSES.values()
        shown = [] if has_own_class else [self.formula.name]
        current = {k: v for k in self.initial_values if isinstance(v := getattr(self, k), float)}
        values = {**self.initial_values, **current}
        shown += [f"{name}={value:g}" for name, value in values.items()]
        if self.learnable:
            shown.append("learnable=True")
        if self.num_parameters > 1:
            shown.append(f"num_parameters={self.num_parameters}, channel_dim={self.channel_dim}")
        return ", ".join(shown)


@fx.wrap  # one node to torch.fx, whose symbols have no shapes
def _along_channels(
    parameters: tuple[Tensor, ...], input: Tensor, channel_dim: int, channels: int, module: str
) -> list[Tensor]:
    """One value per channel of each, shaped to broadcast over the input."""
    shape = _modules.channel_shape(input.shape, channel_dim, channels, module)
    return [parameter.view(shape) for parameter in parameters]


class Exo(FormulaModule):
    """A sigmoid gate between the identity and tanh; see :func:`zeta.ops.exo`.

    ``g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``.

    Args:
        alpha: sharpness of the gate.
        learnable: make alpha an ``nn.Parameter``.
        num_parameters: 1, or the number of channels for one alpha per channel.
        channel_dim: the dimension of the input that holds the channels.
        device, dtype: of the parameter.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import torch
        >>> from zeta.nn import Exo
        >>> Exo(alpha=0.5)(torch.tensor([-2.0, 2.0]))
        tensor([-1.2426,  1.7214])

    Source: the Exo document of Zeta.
    """

    alpha: float | Tensor

    def __init__(
        self,
        alpha: float = EXO["alpha"],
        *,
        learnable: bool = False,
        num_parameters: int = 1,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.exo,
            {"alpha": alpha},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            device=device,
            dtype=dtype,
        )


class LearnableSELUVariation(FormulaModule):
    """SELU with a sine and five learnable parameters.

    ``lambda_·x`` for x > 0, else ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``. The
    function is :func:`zeta.ops.learnable_selu_variation`.

    Args:
        lambda_, alpha, beta, gamma, omega: starting values of the five ``nn.Parameter`` s.
        num_parameters: 1, or the number of channels for five values per channel.
        channel_dim: the dimension of the input that holds the channels.
        device, dtype: of the parameters.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import torch
        >>> from zeta.nn import LearnableSELUVariation
        >>> LearnableSELUVariation()(torch.tensor([-2.0, 2.0])).detach()
        tensor([-1.4406,  2.1014])

    Source: Apoorv 2024, LearnableSELUVariation.
    """

    lambda_: nn.Parameter
    alpha: nn.Parameter
    beta: nn.Parameter
    gamma: nn.Parameter
    omega: nn.Parameter

    def __init__(
        self,
        lambda_: float = SELU["lambda_"],
        alpha: float = SELU["alpha"],
        beta: float = SELU["beta"],
        gamma: float = SELU["gamma"],
        omega: float = SELU["omega"],
        *,
        num_parameters: int = 1,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.learnable_selu_variation,
            {"lambda_": lambda_, "alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega},
            learnable=True,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            device=device,
            dtype=dtype,
        )


class LaplaceActivation(FormulaModule):
    """The normal distribution function as an activation; see :func:`zeta.ops.laplace`.

    ``0.5·(1 + erf((x - mu) / (sigma·√2)))``.

    Args:
        mu: mean.
        sigma: standard deviation; not 0.
        learnable: make mu and sigma ``nn.Parameter`` s.
        num_parameters: 1, or the number of channels for one pair per channel.
        channel_dim: the dimension of the input that holds the channels.
        device, dtype: of the parameters.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, or an input with another number of channels.
        TypeError: an input that is not floating point.

    Example:
        >>> import torch
        >>> from zeta.nn import LaplaceActivation
        >>> LaplaceActivation()(torch.tensor([0.0, 0.707107, 2.0]))
        tensor([0.0061, 0.5000, 1.0000])

    Source: Ma et al. 2022, Mega: Moving Average Equipped Gated Attention.
    """

    mu: float | Tensor
    sigma: float | Tensor

    def __init__(
        self,
        mu: float = LAPLACE["mu"],
        sigma: float = LAPLACE["sigma"],
        *,
        learnable: bool = False,
        num_parameters: int = 1,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.laplace,
            {"mu": mu, "sigma": sigma},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            device=device,
            dtype=dtype,
        )

    def forward(
        self,
        input: Tensor,
        mu: float | Tensor | None = None,
        sigma: float | Tensor | None = None,
    ) -> Tensor:
        """The activation, elementwise; ``mu`` and ``sigma`` given here win over the module's."""
        values = _modules.given_or_own(lambda: self.parameter_values(input), mu=mu, sigma=sigma)
        return self.formula(input, **values)
