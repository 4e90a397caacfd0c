"""Networks that train together: alike but for their weights and learning rates.

A small network's step costs more in calls than in arithmetic; S of them stacked into one cost
about as many calls as one. Shape suffixes: S networks, B rows of a batch, I inputs, O outputs.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zeta.nn import FormulaModule

Parameters = dict[str, Tensor]
Forward = Callable[[Tensor], Tensor]


class Networks(Protocol):
    """S networks: their weights, their outputs, and their optimiser."""

    @property
    def parameters(self) -> Parameters:
        """By name as in one network, each (S, …)."""

    def __call__(self, x_SB: Tensor) -> Tensor:
        """Every network's output (S, B, …) for a batch of its own, (S, B, …)."""

    def step(self) -> None:
        """Update the weights by the gradients that a backward pass has left, and drop these."""


def networks_of(networks: Sequence[nn.Module], learning_rates: Sequence[float]) -> Networks:
    """Networks of one architecture, each with a learning rate for Adam.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zeta.evaluate.stack import networks_of
        >>> three = networks_of([nn.Linear(4, 2) for _ in range(3)], [0.1, 0.1, 0.2])
        >>> three(torch.zeros(3, 5, 4)).shape
        torch.Size([3, 5, 2])
    """
    if len(networks) == 1:
        return Alone(networks[0], learning_rates[0])
    return Stack(networks, learning_rates)


class Alone:
    """One network, as it is: what a stack is measured against."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        self._network = network
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    @property
    def parameters(self) -> Parameters:
        """By name, each (1, …)."""
        return {name: p.detach()[None] for name, p in self._network.named_parameters()}

    def __call__(self, x_SB: Tensor) -> Tensor:
        """The network's output, (1, B, …)."""
        output: Tensor = self._network(x_SB[0])
        return output[None]

    def step(self) -> None:
        """One step of Adam."""
        self._optimizer.step()
        self._optimizer.zero_grad()


class Stack:
    """Networks as one: each layer computes for all of them at once."""

    def __init__(self, networks: Sequence[nn.Module], learning_rates: Sequence[float]) -> None:
        named = [dict(network.named_parameters()) for network in networks]
        self._parameters = {
            name: torch.stack([own[name].detach() for own in named]).requires_grad_()
            for name in named[0]
        }
        buffers = [dict(network.named_buffers()) for network in networks]
        state = self._parameters | {
            name: torch.stack([own[name] for own in buffers]) for name in buffers[0]
        }
        self._forward = _stacked(networks[0], state)
        rates = torch.tensor(learning_rates, dtype=torch.float64)
        largest = float(rates.max())
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=largest, fused=True)
        self._shares_S = rates / largest if bool((rates < largest).any()) else None

    @property
    def parameters(self) -> Parameters:
        """By name, each (S, …)."""
        return self._parameters

    def __call__(self, x_SB: Tensor) -> Tensor:
        """Every network's output, (S, B, …)."""
        return self._forward(x_SB)

    def step(self) -> None:
        """One step of Adam for all networks.

        Adam's step is proportional to its learning rate, so that all take one with the largest
        and each keeps its share: a parameter group for each rate would cost a call for each.
        """
        weights = list(self._parameters.values())
        before = None if self._shares_S is None else [p.detach().clone() for p in weights]
        self._optimizer.step()
        self._optimizer.zero_grad()
        if before is not None:
            self._keep_shares(before)

    @torch.no_grad()
    def _keep_shares(self, before: Sequence[Tensor]) -> None:
        assert self._shares_S is not None
        for old, new in zip(before, self._parameters.values(), strict=True):
            share = self._shares_S.to(new.dtype).view(-1, *[1] * (new.dim() - 1))
            torch.lerp(old, new, share, out=new)


def _stacked(module: nn.Module, state: Parameters) -> Forward:
    """A module's forward pass for all networks, given its stacked parameters and buffers.

    Linear layers and formulas, which small networks are made of, are written out; `torch.vmap`
    takes whatever else there is, at several times the calls.
    """
    if isinstance(module, nn.Sequential):
        layers = [_stacked(child, _below(name, state)) for name, child in module.named_children()]
        return lambda x: _chain(layers, x)
    if type(module) is nn.Linear:
        return _linear(state["weight"], state.get("bias"))
    if isinstance(module, FormulaModule) and all(p.dim() == 1 for p in state.values()):
        return _formula(module, state)
    return _vmapped(module, state)


def _below(child: str, state: Parameters) -> Parameters:
    prefix = f"{child}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _chain(layers: Sequence[Forward], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _linear(weight_SOI: Tensor, bias_SO: Tensor | None) -> Forward:
    weight_SIO = weight_SOI.mT

    def forward(x: Tensor) -> Tensor:
        x_SBI = x.flatten(1, -2)
        if bias_SO is None:
            y_SBO = torch.bmm(x_SBI, weight_SIO)
        else:
            y_SBO = torch.baddbmm(bias_SO[:, None], x_SBI, weight_SIO)
        return y_SBO.unflatten(1, x.shape[1:-1])

    return forward


def _formula(module: FormulaModule, learned_S: Parameters) -> Forward:
    def forward(x: Tensor) -> Tensor:
        per_network = {k: p.view(-1, *[1] * (x.dim() - 1)) for k, p in learned_S.items()}
        y: Tensor = module.formula(x, **(module.parameter_values(x) | per_network))
        return y

    return forward


def _vmapped(module: nn.Module, state: Parameters) -> Forward:
    shell = copy.deepcopy(module).to("meta")

    def one(state: Parameters, x: Tensor) -> Tensor:
        y: Tensor = functional_call(shell, state, (x,))
        return y

    every = torch.vmap(one, randomness="different")
    return lambda x: every(state, x)
