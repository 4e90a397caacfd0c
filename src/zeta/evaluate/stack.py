"""Networks that train together: alike but for their weights and learning rates.

A small network's step costs more in calls than in arithmetic; S of them stacked into one cost
about as many calls as one. Shape suffixes: S networks, B rows of a batch, I inputs, O outputs.
"""

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import is_parametrized

from zeta.evaluate.blocks import Block, Places
from zeta.nn import FormulaModule, GatedUnit, LaplaceActivation
from zeta.ops import gated

Parameters = dict[str, Tensor]
Forward = Callable[..., Tensor]
Kind = TypeVar("Kind", bound=nn.Module)


class Networks(Protocol):
    """S networks: their weights, their outputs, and their optimiser."""

    @property
    def parameters(self) -> Parameters:
        """Those that are trained, by name as in one network, each (S, …)."""

    @property
    def buffers(self) -> Parameters:
        """By name as in one network, each (S, …)."""

    def __call__(self, x_SB: Tensor) -> Tensor:
        """Every network's output (S, B, …) for a batch of its own, (S, B, …)."""

    def step(self, share: float = 1.0) -> None:
        """Update the weights by the gradients that a backward pass has left, and drop these.

        Args:
            share: of their learning rates.
        """

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
        self._network, self._rate = network, learning_rate
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    @property
    def parameters(self) -> Parameters:
        """By name, each (1, …)."""
        return {name: p.detach()[None] for name, p in _trained(self._network).items()}

    @property
    def buffers(self) -> Parameters:
        """By name, each (1, …)."""
        return {name: buffer[None] for name, buffer in _all_buffers(self._network).items()}

    def __call__(self, x_SB: Tensor) -> Tensor:
        """The network's output, (1, B, …)."""
        output: Tensor = self._network(x_SB[0])
        return output[None]

    def step(self, share: float = 1.0) -> None:
        """One step of Adam."""
        self._optimizer.param_groups[0]["lr"] = share * self._rate
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
        device = next(iter(self._parameters.values())).device
        rates, largest = torch.tensor(learning_rates, dtype=torch.float64), max(learning_rates)
        self._largest = largest
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=largest, fused=True)
        shares_S = (rates / largest).to(device)
        self._shares_S = shares_S if min(learning_rates) < largest else None

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

    def step(self, share: float = 1.0) -> None:
        """One step of Adam for all networks.

        Adam's step is proportional to its learning rate, so that all take one with the largest
        and each keeps its share: a parameter group for each rate would cost a call for each.
        """
        weights = list(self._parameters.values())
        before = None if self._shares_S is None else [p.detach().clone() for p in weights]
        self._optimizer.param_groups[0]["lr"] = share * self._largest
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

    The layers that small networks are made of are written out; `torch.vmap` takes whatever else
    there is, at several times the calls.
    """
    return _written_out(module, state) or _vmapped(module, state)


def _written_out(module: nn.Module, state: Parameters) -> Forward | None:
    """As :func:`_stacked`, if the module is one of those layers."""
    if _runs(module, nn.Sequential):
        # Not `named_children`, which leaves out a layer's second occurrence.
        layers = [_stacked(child, _below(name, state)) for name, child in module._modules.items()]
        return lambda x: _chain(layers, x)
    if isinstance(module, Block) and _runs(module, type(module)):
        return _block(module, state)
    if type(module) in _EACH_NUMBER and _runs(module, type(module)):
        return _own_forward(module)
    if type(module) in _EACH_ROW and _runs(module, type(module)):
        return _each_row(module)
    for kind, layer in _LAYERS.items():
        if _runs(module, kind):
            return layer(module, state)
    return None


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


def _block(module: Block, state: Parameters) -> Forward:
    """Its own forward pass, calling layers that compute for all networks."""
    shell = copy.copy(module)
    shell._modules = {
        name: _Layer(_stacked(child, _below(name, state)))
        for name, child in module._modules.items()
        if child is not None
    }

    def forward(x: Tensor) -> Tensor:
        shell.training = module.training
        y: Tensor = shell.forward(x)
        return y

    return forward


class _Layer(nn.Module):
    """A stacked layer where a module is called."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.forward = forward


def _own_forward(module: nn.Module) -> Forward:
    """As its class has it, whatever the instance was given in its place."""
    return partial(type(module).forward, module)


def _each_row(module: nn.Module) -> Forward | None:
    """A layer without weights to which all networks' rows are rows of one batch."""
    if any(getattr(module, name, -1) in (0, None) for name in ("dim", "start_dim")):
        return None  # it looks across the rows
    own = _own_forward(module)
    return lambda x: own(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _linear(module: nn.Linear, state: Parameters) -> Forward:
    weight_SIO, bias_SO = state["weight"].mT, state.get("bias")

    def forward(x: Tensor) -> Tensor:
        x_SBI = x.flatten(1, -2)
        if bias_SO is None:
            y_SBO = torch.bmm(x_SBI, weight_SIO)
        else:
            y_SBO = torch.baddbmm(bias_SO[:, None], x_SBI, weight_SIO)
        return y_SBO.unflatten(1, x.shape[1:-1])

    return forward


def _convolution(module: nn.Conv1d | nn.Conv2d, state: Parameters) -> Forward | None:
    """One convolution, in which each network is a group of channels.

    One over time is one over images of height 1, whose channels can lie side by side too: it takes
    three fifths of the time.
    """
    if module.padding_mode != "zeros":
        return None
    weight_S, bias_SO = state["weight"], state.get("bias")
    if flat := isinstance(module, nn.Conv1d):
        weight_S = weight_S.unsqueeze(-2)
    stride, dilation = ((1,) * flat + of for of in (module.stride, module.dilation))
    padding = module.padding if isinstance(module.padding, str) else (0,) * flat + module.padding

    def forward(x: Tensor) -> Tensor:
        y = F.conv2d(
            _side_by_side(x.unsqueeze(-2) if flat else x),
            weight_S.flatten(0, 1),
            None if bias_SO is None else bias_SO.flatten(),
            stride,
            padding,
            dilation,
            len(weight_S) * module.groups,
        )
        return _one_by_one(y.squeeze(-2) if flat else y, len(weight_S))

    return forward


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, state: Parameters) -> Forward | None:
    """One normalisation of all networks' channels; running statistics change in place."""
    momentum = module.momentum
    if momentum is None or not module.track_running_stats:
        return None
    flat = {name: t.view(-1) for name, t in state.items()}

    def forward(x: Tensor) -> Tensor:
        if module.training:
            state["num_batches_tracked"].add_(1)
        y = F.batch_norm(
            _side_by_side(x),
            flat["running_mean"],
            flat["running_var"],
            flat.get("weight"),
            flat.get("bias"),
            module.training,
            momentum,
            module.eps,
        )
        return _one_by_one(y, len(x))

    return forward


def _side_by_side(x_SBC: Tensor) -> Tensor:
    """(B, S·C, …): all networks' channels as one's, those of a pixel side by side."""
    x = x_SBC.transpose(0, 1).flatten(1, 2)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _one_by_one(y_B: Tensor, networks: int) -> Tensor:
    """(S, B, C, …) of (B, S·C, …)."""
    return y_B.unflatten(1, (networks, -1)).transpose(0, 1)


def _layer_norm(module: nn.LayerNorm, state: Parameters) -> Forward:
    weight_S, bias_S, dims = state.get("weight"), state.get("bias"), len(module.normalized_shape)

    def forward(x: Tensor) -> Tensor:
        y = F.layer_norm(x, module.normalized_shape, eps=module.eps)
        every_row = [1] * (x.dim() - 1 - dims)
        if weight_S is not None:
            y = y * weight_S.unflatten(0, (-1, *every_row))
        return y if bias_S is None else y + bias_S.unflatten(0, (-1, *every_row))

    return forward


def _embedding(module: nn.Embedding, state: Parameters) -> Forward | None:
    """One table of all networks' entries, in which each has its place."""
    if module.padding_idx is not None or module.max_norm is not None or module.scale_grad_by_freq:
        return None
    weight_S = state["weight"]
    first_S = torch.arange(len(weight_S), device=weight_S.device) * module.num_embeddings

    def forward(x: Tensor) -> Tensor:
        places = x + first_S.view(-1, *[1] * (x.dim() - 1))
        return F.embedding(places, weight_S.flatten(0, 1))

    return forward


def _places(module: Places, state: Parameters) -> Forward:
    weight_STD = state["weight"]
    return lambda x: x + weight_STD.view(len(x), *[1] * (x.dim() - 3), *weight_STD.shape[1:])


def _formula(module: FormulaModule, learned_S: Parameters) -> Forward | None:
    if not _one_number_each(learned_S):
        return None

    def forward(*inputs: Tensor) -> Tensor:
        values = module.parameter_values(inputs[0]) | _per_network(learned_S, inputs[0])
        y: Tensor = module.formula(*inputs, **values)
        return y

    return forward


def _gated_unit(module: GatedUnit, learned_S: Parameters) -> Forward | None:
    if not _one_number_each(learned_S):
        return None
    of_one = partial(
        gated,
        module.formula,
        dim=module.dim if module.dim < 0 else module.dim + 1,
        layout=module.layout,
        gate_first=module.gate_first,
        reuse=module.reuse,
    )

    def forward(*inputs: Tensor) -> Tensor:
        values = module.parameter_values(inputs[0]) | _per_network(learned_S, inputs[0])
        return of_one(*inputs, **values) if len(inputs) == 1 else module.formula(*inputs, **values)

    return forward


def _one_number_each(learned_S: Parameters) -> bool:
    return all(p.dim() == 1 for p in learned_S.values())


def _per_network(learned_S: Parameters, x: Tensor) -> Parameters:
    return {name: p.view(-1, *[1] * (x.dim() - 1)) for name, p in learned_S.items()}


# Those that take a number at a time, and those that take a row at a time.
_EACH_NUMBER = {
    nn.Dropout, nn.ELU, nn.GELU, nn.Identity, nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Tanh,
}  # fmt: skip
_EACH_ROW = {
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.Flatten,
    nn.LogSoftmax, nn.MaxPool1d, nn.MaxPool2d, nn.Unflatten,
}  # fmt: skip
# Those with weights of their own, or a formula's numbers.
_LAYERS: dict[type[nn.Module], Callable[[Any, Parameters], Forward | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    Places: _places,
    FormulaModule: _formula,
    LaplaceActivation: _formula,
    GatedUnit: _gated_unit,
}


def _vmapped(module: nn.Module, state: Parameters) -> Forward:
    """A forward pass that is not known: `torch.vmap` runs it, and known layers leave that again."""
    _leave_vmap(module, state)
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    own = {name: state[name] for name, _ in named}  # of several names of one, the first

    def one(state: Parameters, x: Tensor) -> Tensor:
        y: Tensor = functional_call(module, state, (x,))
        return y

    every = torch.vmap(one, randomness="different")

    def forward(x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # for the others `vmap` has no rule
            y: Tensor = every(own, x)
        return y

    return forward


def _leave_vmap(module: nn.Module, state: Parameters) -> None:
    """Give the layers inside a module that are written out that forward pass."""
    for name, child in module.named_children():
        layer = _written_out(child, _below(name, state))
        if layer is None:
            _leave_vmap(child, _below(name, state))
        else:
            child.forward = _leaving(child, layer)


def _leaving(child: nn.Module, layer: Forward) -> Forward:
    own = _own_forward(child)

    def forward(*inputs: Any, **options: Any) -> Tensor:
        if options or not all(isinstance(x, Tensor) for x in inputs):
            return own(*inputs, **options)
        weight = next(itertools.chain(child.parameters(), child.buffers()), None)
        y: Tensor = _OutsideVmap.apply(layer, own, weight, *inputs)
        return y

    return forward


class _OutsideVmap(torch.autograd.Function):
    """A layer as one network calls it under `torch.vmap`, computed for all networks outside.

    The weight only tells `vmap` that the layer is not the same for all networks. Autograd follows
    what is computed outside, so that there is no backward pass to write.
    """

    @staticmethod
    def forward(layer: Forward, own: Forward, weight: Tensor | None, *inputs: Tensor) -> Tensor:
        """Neither the layer nor its inputs differ by network."""
        return own(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept, as nothing has a gradient."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Sequence[int | None],
        layer: Forward,
        own: Forward,
        weight: Tensor | None,
        *inputs: Tensor,
    ) -> tuple[Tensor, int]:
        """The layer of all networks' inputs, networks first."""
        each = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(inputs, in_dims[3:], strict=True)
        ]
        return layer(*each), 0
