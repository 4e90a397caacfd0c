"""Networks that train together: alike but for their weights and learning rates.

A small network's step costs more in calls than in arithmetic; S of them stacked into one cost
about as many calls as one. Shape suffixes: S networks, B rows of a batch, I inputs, O outputs.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from zeta.nn import FormulaModule, LaplaceActivation

Parameters = dict[str, Tensor]
Forward = Callable[[Tensor], Tensor]
Kind = TypeVar("Kind", bound=nn.Module)


class Networks(Protocol):
    """S networks: their weights, their outputs, and their optimiser."""

    @property
    def parameters(self) -> Parameters:
        """Those that are trained, by name as in one network, each (S, …)."""

    def __call__(self, x_SB: Tensor) -> Tensor:
        """Every network's output (S, B, …) for a batch of its own, (S, B, …)."""

    def step(self) -> None:
        """Update the weights by the gradients that a backward pass has left, and drop these."""

    def train(self, mode: bool) -> None:
        """Whether dropout, batch normalisation and their like are to train or to predict."""


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
        return {name: p.detach()[None] for name, p in _trained(self._network).items()}

    def __call__(self, x_SB: Tensor) -> Tensor:
        """The network's output, (1, B, …)."""
        output: Tensor = self._network(x_SB[0])
        return output[None]

    def step(self) -> None:
        """One step of Adam."""
        self._optimizer.step()
        self._optimizer.zero_grad()

    def train(self, mode: bool) -> None:
        """As of every module."""
        self._network.train(mode)


class Stack:
    """Networks as one: each layer computes for all of them at once."""

    def __init__(self, networks: Sequence[nn.Module], learning_rates: Sequence[float]) -> None:
        state = {
            **_stacked_tensors([_all_parameters(n) for n in networks]),
            **_stacked_tensors([_all_buffers(n) for n in networks]),
        }
        self._parameters = {name: state[name] for name in _trained(networks[0])}
        self._buffers = {name: state[name] for name in _all_buffers(networks[0])}
        # Without weights of its own, so that what is not in the state cannot be taken for it.
        self._shell = copy.deepcopy(networks[0]).to("meta")
        self._forward = _stacked(self._shell, state)
        rates = torch.tensor(learning_rates, dtype=torch.float64)
        largest = float(rates.max())
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=largest, fused=True)
        self._shares_S = rates / largest if bool((rates < largest).any()) else None

    @property
    def parameters(self) -> Parameters:
        """By name, each (S, …)."""
        return self._parameters

    @property
    def buffers(self) -> Parameters:
        """By name, each (S, …)."""
        return self._buffers

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

    def train(self, mode: bool) -> None:
        """As of every module."""
        self._shell.train(mode)

    @torch.no_grad()
    def _keep_shares(self, before: Sequence[Tensor]) -> None:
        assert self._shares_S is not None
        for old, new in zip(before, self._parameters.values(), strict=True):
            share = self._shares_S.to(new.dtype).view(-1, *[1] * (new.dim() - 1))
            torch.lerp(old, new, share, out=new)


def _trained(network: nn.Module) -> Parameters:
    """The parameters that are not frozen, each under its first name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def _all_parameters(network: nn.Module) -> Parameters:
    """Under all of their names, where a network holds one twice."""
    return dict(network.named_parameters(remove_duplicate=False))


def _all_buffers(network: nn.Module) -> Parameters:
    return dict(network.named_buffers(remove_duplicate=False))


def _stacked_tensors(named: Sequence[Mapping[str, Tensor]]) -> Parameters:
    """Tensors of equal names as one; what networks hold under several names stays the same one."""
    stacked = {
        tensor: torch.stack([own[name].detach() for own in named])
        for name, tensor in named[0].items()
    }
    return {
        name: stacked[tensor].requires_grad_(tensor.requires_grad)
        for name, tensor in named[0].items()
    }


def _stacked(module: nn.Module, state: Parameters) -> Forward:
    """A module's forward pass for all networks, given its stacked parameters and buffers.

    Linear layers and formulas, which small networks are made of, are written out; `torch.vmap`
    takes whatever else there is, at several times the calls.
    """
    if _runs(module, nn.Sequential):
        # Not `named_children`, which leaves out a layer's second occurrence.
        layers = [_stacked(child, _below(name, state)) for name, child in module._modules.items()]
        return lambda x: _chain(layers, x)
    if _runs(module, nn.Linear):
        return _linear(state["weight"], state.get("bias"))
    one_number_each = all(p.dim() == 1 for p in state.values())
    if (_runs(module, FormulaModule) or _runs(module, LaplaceActivation)) and one_number_each:
        return _formula(module, state)
    return _vmapped(module, state)


def _runs(module: nn.Module, kind: type[Kind]) -> TypeGuard[Kind]:
    """Whether calling the module does what this class does, with weights of its own."""
    changed = module._forward_hooks or module._forward_pre_hooks or is_parametrized(module)
    return isinstance(module, kind) and type(module).forward is kind.forward and not changed


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
    def one(state: Parameters, x: Tensor) -> Tensor:
        y: Tensor = functional_call(module, state, (x,))
        return y

    every = torch.vmap(one, randomness="different")
    return lambda x: every(state, x)
