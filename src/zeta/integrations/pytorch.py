"""Model surgery on PyTorch modules, in place."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zeta import nn as zeta_nn
from zeta._errors import one_line
from zeta._formula import Formula
from zeta._modules import IsMatched
from zeta.integrations import pytorch_calls
from zeta.integrations.gain import NORMAL_QUANTILES, GainSums, on_normal
from zeta.integrations.names import activation_name, own_name, unmatched
from zeta.integrations.replacement import Maker, check_distinct
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import Selection, undone_out_of_order
from zeta.integrations.transformers import configured_activations, written_into_code
from zeta.nn.module import Module, has_meta_tensors

Matches = Callable[[str, Any], bool]

MAKER = Maker(zeta_nn, zeta_nn.FormulaModule, nn.Module, "a torch.nn.Module")

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")

# Which dimension holds the channels after these.
_CHANNELS_SECOND = nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase | nn.GroupNorm
_CHANNELS_LAST = nn.Linear | nn.LayerNorm | nn.RMSNorm

# A module's hooks. Handles refer to these dictionaries, so they are handed over, not copied.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Matched(Module, IsMatched):
    """An activation matched to the one it replaced, ``gain·f(x) + shift``.

    Args:
        activation: the activation f.
        gain: a scalar.
        shift: a scalar, or one value per channel.
        channel_dim: the dimension of the input that holds the channels.

    Both are buffers, saved with the model and not learned.

    Raises:
        ValueError: from ``reset_parameters``, and from transformers' ``from_pretrained`` where the
            checkpoint lacks them, if gain or shift were given on the meta device, without values.

    Example:
        >>> import torch
        >>> from zeta.integrations.pytorch import Matched
        >>> matched = Matched(torch.nn.ReLU(), torch.tensor(0.5), torch.tensor(1.0))
        >>> matched(torch.tensor([-1.0, 2.0]))
        tensor([1., 2.])
    """

    gain: Tensor
    shift: Tensor

    def __init__(
        self, activation: nn.Module, gain: Tensor, shift: Tensor, channel_dim: int = -1
    ) -> None:
        super().__init__()
        self.activation = activation
        self.channel_dim = channel_dim
        self.register_buffer("gain", gain)
        self.register_buffer("shift", shift)
        given = {"gain": gain, "shift": shift}
        self.starting_values = {
            name: None if value.is_meta else value.detach().cpu().clone()
            for name, value in given.items()
        }
        self._note_start()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set gain and shift to the values that were given."""
        for name, value in self.starting_values.items():
            buffer = getattr(self, name)
            nn.init.constant_(buffer, math.nan)  # which may leave it alone: see `Module`
            missing = buffer.isnan()
            if value is not None:
                buffer.copy_(torch.where(missing, value.to(buffer), buffer))
            elif not buffer.is_meta and missing.any():
                raise ValueError(
                    f"Matched: the {name} was given on the meta device, so that its value is not "
                    "known, and no checkpoint has it; give it with device='cpu'"
                )

    def forward(self, input: Tensor) -> Tensor:
        """The matched activation, in the activation's dtype."""
        y: Tensor = self.activation(input)
        shift = self.shift
        if shift.dim():
            shape = [1] * y.dim()
            shape[self.channel_dim] = -1
            shift = shift.view(shape)
        return y * self.gain.to(y.dtype) + shift.to(y.dtype)


class _Function(nn.Module):
    """Stands for a function that a module keeps as an attribute, while the model is looked at."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return own_name(self.function)


@dataclass(frozen=True)
class Place:
    """Where an activation stands.

    Attributes:
        old: the activation; of a function what stands for it.
        around: the modules that contain it, the nearest first; none around the model itself.
    """

    name: str
    old: nn.Module
    around: tuple[nn.Module, ...]

    @property
    def attribute(self) -> str:
        """Its name in the nearest module around."""
        return self.name.rpartition(".")[2]

    def put(self, module: nn.Module) -> None:
        """Let ``module`` stand here."""
        if not self.around:
            return
        parent = self.around[0]
        setattr(parent, self.attribute, module)
        if isinstance(parent, nn.TransformerDecoderLayer):
            # Copying and loading one takes ReLU if its dictionary has no activation.
            vars(parent)[self.attribute] = module

    def put_back(self) -> None:
        """Let the former activation stand here."""
        if isinstance(self.old, _Function):
            delattr(self.around[0], self.attribute)  # modules give way to modules alone
            setattr(self.around[0], self.attribute, self.old.function)
        else:
            self.put(self.old)

    def holds(self, module: nn.Module) -> bool:
        """Whether ``module`` stands here."""
        return not self.around or getattr(self.around[0], self.attribute, None) is module


def replace(
    model: nn.Module,
    matches: Selection,
    replacement: str | Formula | Callable[[], Any],
    *,
    match_gain: bool,
    example_inputs: Any,
) -> SurgeryReport:
    """:func:`zeta.integrations.replace_activations` on a PyTorch model."""
    check(model)
    places = list(find_places(model, matches))
    shared = {id(place.old): place for place in places}  # one of the places of each old module
    new = _made(shared, MAKER.factory(replacement))
    pairs = {place.old: new[key] for key, place in shared.items()}
    observer = _Observer(pairs, matching=match_gain)
    with _standing_in(places):
        found, not_looked = _look(model, shared, observer, example_inputs)
    if not places:
        functions = (f for module in model.modules() for f in _functions(module).values())
        candidates = (*model.modules(), *functions)
        raise matches.nothing_matched(model, candidates, found, written_into_code(model))
    if match_gain and example_inputs is None:
        observer.observe_normal({place.old: place.name for place in shared.values()})
    matched = {place.old: observer.matched(place.old) for place in shared.values()}
    put = {key: _placed(matched[place.old], new[key], place) for key, place in shared.items()}
    not_kept = [
        f"{p.name or 'the model itself'}: {text}" for p in shared.values() for text in lost(p)
    ]
    undo = put_in(model, places, put)
    unseen = [p.name for p in places if p.old not in observer.called]
    return SurgeryReport(
        model if places[0].around else put[id(model)],
        tuple(
            Replaced(p.name, repr(unmatched(p.old)), repr(new[id(p.old)]), _gain(matched[p.old]))
            for p in places
        ),
        tuple(found),
        not_looked,
        tuple(unseen) if example_inputs is not None else (),
        tuple(p.name for p in places if p.old in observer.sums and matched[p.old] is None),
        tuple(not_kept),
        ", ".join(configured_activations(model)),
        _undo=undo,
    )


def put_in(
    model: nn.Module, places: Sequence[Place], new: Mapping[int, nn.Module]
) -> Callable[[], nn.Module]:
    """Let the new modules stand at the places, and say how to undo that.

    Args:
        model: the model.
        places: of the old activations.
        new: by the ``id`` of each old one.
    """
    shared = {id(place.old): place.old for place in places}
    revert = [_hand_over(old, new[key]) for key, old in shared.items()]
    for place in places:
        revert.append(_leave_fast_path(place))
        place.put(new[id(place.old)])

    def undo() -> nn.Module:
        if not all(place.holds(new[id(place.old)]) for place in places):
            raise undone_out_of_order()
        for place in places:
            place.put_back()
        for step in reversed(revert):
            step()
        return model

    return undo


def check(model: nn.Module) -> None:
    """Raise TypeError unless it is a model that surgery can change."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{where} is scripted or frozen; replace activations before that")
        if type(module).__module__.startswith(_QUANTISED):
            raise TypeError(f"{where} is quantised; replace activations before that")
        if isinstance(module, DistributedDataParallel):
            raise TypeError(f"{where}: replace activations in the module, then wrap it for DDP")


def find_places(model: nn.Module, matches: Matches) -> Iterator[Place]:
    """Every place that matches, a module's further places included; not within a match."""
    if matches("", model):
        yield Place("", model, ())
        return
    yield from _places_within(model, matches, "", (), set())


def _places_within(
    parent: nn.Module,
    matches: Matches,
    prefix: str,
    around: tuple[nn.Module, ...],
    visited: set[nn.Module],
) -> Iterator[Place]:
    if parent in visited:
        return
    visited.add(parent)
    around = (parent, *around)
    # `named_children` leaves out a module's further places.
    for attribute, child in parent._modules.items():
        if child is None:
            continue
        name = f"{prefix}{attribute}"
        if matches(name, child):
            yield Place(name, child, around)
        elif not isinstance(child, IsMatched):  # which is one activation, whatever is in it
            yield from _places_within(child, matches, f"{name}.", around, visited)
    for attribute, function in _functions(parent).items():
        if matches(name := f"{prefix}{attribute}", function):
            yield Place(name, _Function(function).train(parent.training), around)


def _functions(module: nn.Module) -> dict[str, Callable[..., Any]]:
    """The activations that a module keeps as functions, by attribute.

    Not those of a module that is an activation itself; nor where the class has such an attribute
    too, since that would hide a module of the same name.
    """
    if activation_name(module):
        return {}
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and not isinstance(value, nn.Module)
        and activation_name(value)
        and not hasattr(type(module), name)
    }


@contextmanager
def _standing_in(places: list[Place]) -> Iterator[None]:
    """While the model is looked at, functions are modules too."""
    functions = [place for place in places if isinstance(place.old, _Function)]
    for place in functions:
        place.put(place.old)
    try:
        yield
    finally:
        for place in functions:
            place.put_back()


def _made(places: dict[int, Place], make: Callable[[], Any]) -> dict[int, nn.Module]:
    """A new module for every old one, in the device, dtype and mode of its place."""
    made = {key: MAKER.one(make, place.old) for key, place in places.items()}
    check_distinct(made.values(), make, len(made))
    for key, place in places.items():
        settle(made[key], place)
    return made


def settle(module: nn.Module, place: Place) -> None:
    """Give it the device, dtype and mode of the place."""
    _like(module, _reference(place)).train(place.old.training)


def _reference(place: Place) -> Tensor | None:
    """A floating-point tensor of the nearest module around that has one."""
    for module in (place.old, *place.around):
        for tensors in (module.parameters(), module.buffers()):
            found = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
            if found is not None:
                return found
    return None


def _like(module: nn.Module, reference: Tensor | None) -> nn.Module:
    if reference is None:
        return module
    return module.to(device=reference.device, dtype=reference.dtype)


def _placed(matched: Matched | None, new: nn.Module, place: Place) -> nn.Module:
    if matched is None:
        return new
    return _like(matched, _reference(place)).train(new.training)


def _gain(matched: Matched | None) -> float | None:
    value = None if matched is None else matched.starting_values["gain"]
    return None if value is None else value.item()


def _look(
    model: nn.Module, shared: dict[int, Place], observer: _Observer, example_inputs: Any
) -> tuple[Sequence[FunctionCall], str]:
    """The activations called as functions, and why some may be missing."""

    def selected(module: nn.Module) -> bool:
        return id(module) in shared

    if example_inputs is not None:
        with observer.observing(model), pytorch_calls.listening(model, selected) as found:
            pytorch_calls.run(model, example_inputs)
        return found, ""
    if selected(model):
        return (), ""
    try:
        return pytorch_calls.traced_calls(model, selected), ""
    except Exception as error:  # whatever a model's forward raises on symbols
        return (), f"torch.fx cannot trace the model ({one_line(error, 100)}); give example_inputs"


class _Observer:
    """Notes which activations run and, for gain matching, what they answer.

    Attributes:
        called: the old activations that ran.
        sums: what is known of each old activation with its new one.
    """

    def __init__(self, pairs: dict[nn.Module, nn.Module], *, matching: bool) -> None:
        self.pairs = pairs
        self.matching = matching
        self.called: set[nn.Module] = set()
        self.sums: dict[nn.Module, GainSums] = {}
        self._channels = -1, 0
        self._new: list[Tensor] = []
        self._handles: list[Any] = []

    def matched(self, old: nn.Module) -> Matched | None:
        """The new activation matched to the old one; None where nothing tells how."""
        match = self.sums[old].solve() if old in self.sums else None
        if match is None:
            return None
        with torch.device("cpu"):  # also where a model is being built on the meta device
            gain = torch.tensor(match.gain, dtype=torch.float64)
            shift = torch.as_tensor(match.shift)
        dim = -1 if match.channel_dim is None else match.channel_dim
        return Matched(self.pairs[old], gain, shift, dim)

    def observe_normal(self, names: dict[nn.Module, str]) -> None:
        """Take in the outputs on quantiles of the normal distribution."""
        for old, new in self.pairs.items():
            former, latter = _off_meta(old), _off_meta(new)
            # Also where a model is being built on the meta device.
            with torch.no_grad(), torch.device("cpu"):
                x = torch.as_tensor(NORMAL_QUANTILES, dtype=torch.float32)
                parameters = (*latter.parameters(), *former.parameters())
                x = next((x.to(tensor) for tensor in parameters), x)
                # `forward`, past the hooks, which are for the model's own inputs.
                f = on_normal(names[old], former.forward, x.clone())
                self._add(old, f, on_normal(names[old], latter.forward, x))

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """While the model runs on example inputs."""
        with ExitStack() as undo:
            for old in self.pairs:
                undo.callback(old.register_forward_hook(self._after).remove)
            if self.matching:
                # The new one runs first: the old one may overwrite its input.
                for old in self.pairs:
                    before = old.register_forward_pre_hook(self._before, with_kwargs=True)
                    undo.callback(before.remove)
                for module in model.modules():
                    if isinstance(module, _CHANNELS_SECOND | _CHANNELS_LAST):
                        undo.callback(module.register_forward_hook(self._note_channels).remove)
            yield

    def _note_channels(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        dim = 1 if isinstance(module, _CHANNELS_SECOND) else -1
        self._channels = dim, output.shape[dim]

    def _before(self, old: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x, *_ = *args, *kwargs.values()
        self._new.append(self.pairs[old](x.clone()))

    def _after(self, old: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.called.add(old)
        if self.matching:
            self._add(old, output, self._new.pop())

    def _add(self, old: nn.Module, f: Tensor, g: Tensor) -> None:
        if f.is_meta or g.is_meta:
            raise ValueError(
                "the model is on the meta device, where example_inputs have no values to match "
                "by; leave them out, or do the surgery after loading"
            )
        dim, channels = self._channels
        # Attention's scores and what has been transposed have other sizes there.
        has_channels = f.dim() > 1 and f.shape[dim] == channels
        sums = self.sums.setdefault(old, GainSums())
        sums.add(f.cpu().double(), g.cpu().double(), dim if has_channels else None)


def _off_meta(module: nn.Module) -> nn.Module:
    """The module, or in place of one on the meta device a copy with its starting values."""
    if not has_meta_tensors(module):
        return module
    copied = copy.deepcopy(module).to_empty(device="cpu")
    for part, former in zip(copied.modules(), module.modules(), strict=True):
        if has_meta_tensors(former, recurse=False):
            reset = getattr(part, "reset_parameters", None)
            if reset is None:
                raise ValueError(
                    f"{type(part).__name__} on the meta device cannot be matched: it has no "
                    "reset_parameters() that sets its starting values"
                )
            reset()
    return copied


def lost(place: Place) -> Iterator[str]:
    """What the old activation has and no new one will have."""
    names = [name for name, _ in (*place.old.named_parameters(), *place.old.named_buffers())]
    if names:
        yield f"{', '.join(names)} of {type(place.old).__name__}"
    if "forward" in vars(place.old):
        yield "a forward set on the instance"


def _hand_over(old: nn.Module, new: nn.Module) -> Callable[[], None]:
    """Give ``new`` the hooks of ``old``, and say how to take them back."""
    for name in _HOOKS:
        hooks = getattr(old, name)
        hooks.update(getattr(new, name))
        setattr(new, name, hooks)
    new._is_full_backward_hook = old._is_full_backward_hook
    _rebind(new)

    def take_back() -> None:
        old.train(new.training)
        old._is_full_backward_hook = new._is_full_backward_hook
        _rebind(old)

    return take_back


def _rebind(module: nn.Module) -> None:
    """Load hooks refer to the module that they were registered on."""
    hooks: dict[int, Any] = module._load_state_dict_pre_hooks
    for key, wrapped in hooks.items():
        hooks[key] = type(wrapped)(wrapped.hook, module if wrapped.with_module else None)


def _leave_fast_path(place: Place) -> Callable[[], None]:
    """Keep PyTorch's transformers from their fused path, which knows ReLU and GELU alone."""
    layer = place.around[0] if place.around else None
    if not isinstance(layer, nn.TransformerEncoderLayer) or place.attribute != "activation":
        return lambda: None
    # What says so: of the layer, and of an encoder, which would hand it nested tensors.
    flags: list[tuple[nn.Module, str]] = [(layer, "activation_relu_or_gelu")]
    encoders = (m for m in place.around if isinstance(m, nn.TransformerEncoder))
    flags += [(encoder, "use_nested_tensor") for encoder in encoders]
    former = [getattr(module, flag) for module, flag in flags]
    for module, flag in flags:
        setattr(module, flag, False)

    def restore() -> None:
        for (module, flag), value in zip(flags, former, strict=True):
            setattr(module, flag, value)

    return restore
