"""Activation functions as modules: one class for every formula, and the documents' three."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from zeta import _modules, activations
from zeta._call_forms import input_also_called
from zeta._formula import Formula, shown
from zeta._modules import EXO, LAPLACE, SELU, Counts, Learnable
from zeta.nn.module import Module


class FormulaModule(Module):
    """A formula as a module, its parameters fixed, learnable, or learnable per channel.

    Usually made by :meth:`zeta.Formula.module`. A parameter that is learned is an ``nn.Parameter``
    of shape ``shape``, (groups,) or (channels,); a vector of length n has shape (n,), (n, groups)
    or (n, channels).

    Args:
        formula: the formula.
        values: starting values by parameter name; the formula's defaults where left out.
        learnable: make every parameter an ``nn.Parameter``, or those that are named; None for the
            formula's own choice, :attr:`zeta.Formula.learnable`.
        num_parameters: how many values a parameter has: 1, the number of channels, or a divisor of
            it for one value per group of neighbouring channels. By parameter name where they
            differ, 1 for those left out: ``{"gamma": 64, "beta": 64}``.
        channel_dim: the dimension of the input that holds the channels.
        shape: of a scalar with one value: () or (1,). FSDP2 shards no parameter of shape ().
        device, dtype: of the parameters, as in every module.

    Shape: any; the output has the input's shape and dtype.

    Raises:
        ValueError: num_parameters < 1, another shape, a vector's value of another length, or an
            input whose ``channel_dim`` is missing or is not divisible by num_parameters.
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
        values: Mapping[str, float | Sequence[float]] | None = None,
        *,
        learnable: Learnable = None,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if self._inputs == 1:
            _modules.check_one_input(formula, self._get_name())
        if tuple(shape) not in ((), (1,)):
            raise ValueError(f"{self._get_name()}: shape must be () or (1,), got {shape!r}")
        counts = _modules.parameter_counts(formula, num_parameters)
        self.formula = formula
        self.initial_values = _modules.starting_values(formula, values)
        self.learnable = _modules.which_learned(formula, learnable)
        self.num_parameters = num_parameters
        self.channel_dim = channel_dim
        self._counts = {name: count for name, count in counts.items() if count > 1}
        _modules.check_names(self, formula, "module")
        learned = formula.learned(learnable)
        for name, value in self.initial_values.items():
            if name not in learned and counts[name] == 1:
                setattr(self, name, value)
                continue
            size = _modules.parameter_shape(formula, name, counts[name]) or tuple(shape)
            tensor = torch.empty(size, device=device, dtype=dtype)
            if name in learned:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        self._start()

    def reset_parameters(self) -> None:
        """Set every learnable or per-channel parameter to its starting value, exactly."""
        for name, value in self.initial_values.items():
            parameter = getattr(self, name)
            if isinstance(parameter, Tensor):
                start_at(parameter, value)

    @input_also_called("x", "inputs")
    def forward(self, input: Tensor) -> Tensor:
        """The formula, elementwise."""
        return self.formula(input, **self.parameter_values(input))

    def parameter_values(self, input: Tensor) -> dict[str, Any]:
        """Every parameter's value by name, shaped to broadcast over the input's channels."""
        values = {name: getattr(self, name) for name in self.initial_values}
        if not self._counts:
            return values
        shaped = _along_channels(
            tuple([values[name] for name in self._counts]),
            input,
            self.channel_dim,
            (*self._counts.values(),),
            self._get_name(),
        )
        return values | {name: shaped[i] for i, name in enumerate(self._counts)}

    def extra_repr(self) -> str:
        """What ``print(module)`` shows; of what is learned, the starting values."""
        has_own_class = type(self).__name__ in _modules.CLASSES.values()
        about = [] if has_own_class else [self.formula.name]
        now = {name: getattr(self, name) for name in self.initial_values}
        fixed = {name: value for name, value in now.items() if not isinstance(value, Tensor)}
        values = {**self.initial_values, **fixed}
        about += [f"{name}={shown(value)}" for name, value in values.items()]
        if self.learnable:
            about.append(f"learnable={self.learnable}")
        if self._counts:
            about.append(f"num_parameters={self.num_parameters}, channel_dim={self.channel_dim}")
        return ", ".join(about)


def start_at(parameter: Tensor, value: float | tuple[float, ...]) -> None:
    """Set a parameter to a number, or each row of a vector's to its own.

    Rows have no function in ``torch.nn.init``: what transformers has loaded is left alone here.
    """
    if isinstance(value, float):
        nn.init.constant_(parameter, value)
    elif not getattr(parameter, "_is_hf_initialized", False):
        rows = torch.tensor(value, dtype=parameter.dtype, device=parameter.device)
        rows = rows.view(-1, *[1] * (parameter.dim() - 1)).expand(parameter.shape)
        if hasattr(parameter, "device_mesh"):
            rows = _distributed(rows.contiguous(), parameter)
        with torch.no_grad():
            parameter.copy_(rows)


def _distributed(rows: Tensor, like: Any) -> Tensor:
    """As FSDP2 keeps the parameter: each process its share."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(rows, like.device_mesh, like.placements)


@fx.wrap  # one node to torch.fx, whose symbols have no shapes
def _along_channels(
    parameters: tuple[Tensor, ...],
    input: Tensor,
    channel_dim: int,
    counts: tuple[int, ...],
    module: str,
) -> list[Tensor]:
    """One value per channel or group of each, shaped to broadcast over the input."""
    shaped = []
    for parameter, count in zip(parameters, counts, strict=True):
        shape, lead = (
            _modules.channel_shape(input.shape, channel_dim, count, module),
            parameter.shape[:-1],
        )
        group = shape[channel_dim] // count
        if group > 1:
            parameter = parameter.unsqueeze(-1).expand(*parameter.shape, group)
        shaped.append(parameter.reshape(*lead, *shape))
    return shaped


class Exo(FormulaModule):
    """A sigmoid gate between the identity and tanh; see :func:`zeta.ops.exo`.

    ``g·x + (1 - g)·tanh(x)`` with ``g = sigmoid(alpha·x)``.

    Args:
        alpha: sharpness of the gate.
        learnable: make alpha an ``nn.Parameter``.
        num_parameters: 1, the number of channels for one alpha per channel, or a divisor of it for
            one per group of channels.
        channel_dim: the dimension of the input that holds the channels.
        shape: of a single alpha, () or (1,).
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
        learnable: Learnable = False,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.exo,
            {"alpha": alpha},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            shape=shape,
            device=device,
            dtype=dtype,
        )


class LearnableSELUVariation(FormulaModule):
    """SELU with a sine and five learnable parameters.

    ``lambda_·x`` for x > 0, else ``lambda_·(alpha·(e^(beta·x) - 1) + gamma·sin(omega·x))``. The
    function is :func:`zeta.ops.learnable_selu_variation`.

    Args:
        lambda_, alpha, beta, gamma, omega: starting values of the five ``nn.Parameter`` s.
        num_parameters: 1, the number of channels for five values per channel, or a divisor of it
            for five per group of channels; by name where they differ.
        channel_dim: the dimension of the input that holds the channels.
        shape: of a parameter with one value, () or (1,).
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
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.learnable_selu_variation,
            {"lambda_": lambda_, "alpha": alpha, "beta": beta, "gamma": gamma, "omega": omega},
            learnable=True,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            shape=shape,
            device=device,
            dtype=dtype,
        )


class LaplaceActivation(FormulaModule):
    """The normal distribution function as an activation; see :func:`zeta.ops.laplace`.

    ``0.5·(1 + erf((x - mu) / (sigma·√2)))``.

    Args:
        mu: mean.
        sigma: standard deviation; not 0.
        learnable: make mu and sigma ``nn.Parameter`` s, or the one that is named.
        num_parameters: 1, the number of channels for one pair per channel, or a divisor of it for
            one per group of channels; by name where they differ.
        channel_dim: the dimension of the input that holds the channels.
        shape: of a parameter with one value, () or (1,).
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
        learnable: Learnable = False,
        num_parameters: Counts = 1,
        channel_dim: int = 1,
        shape: tuple[int, ...] = (),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            activations.laplace,
            {"mu": mu, "sigma": sigma},
            learnable=learnable,
            num_parameters=num_parameters,
            channel_dim=channel_dim,
            shape=shape,
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
