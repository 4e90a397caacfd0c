"""Model surgery on Flax NNX modules, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zeta import flax as zeta_flax
from zeta._errors import one_line
from zeta._formula import Formula
from zeta._modules import IsMatched
from zeta.integrations import flax_calls
from zeta.integrations.gain import NORMAL_QUANTILES, GainSums, on_normal
from zeta.integrations.names import activation_name, own_name, unmatched
from zeta.integrations.replacement import Maker, check_distinct
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import Selection, call_arguments, undone_out_of_order

Matches = Callable[[str, Any], bool]

MAKER = Maker(zeta_flax, zeta_flax.FormulaModule, nnx.Module, "an nnx.Module")

NOT_LOOKED = "Flax models are looked through by running them; give example_inputs"


class Matched(nnx.Module, IsMatched):
    """An activation matched to the one it replaced, ``gain·f(x) + shift``.

    Args:
        activation: the activation f.
        gain: a scalar.
        shift: a scalar, or one value per channel, the last dimension.

    Both are plain variables, saved with the model and not learned.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from zeta.integrations.flax import Matched
        >>> Matched(nnx.relu, jnp.array(0.5), jnp.array(1.0))(jnp.array([-1.0, 2.0]))
        Array([1., 2.], dtype=float32)
    """

    def __init__(self, activation: Any, gain: jax.Array, shift: jax.Array) -> None:
        self.activation = activation
        self.gain = nnx.Variable(gain)
        self.shift = nnx.Variable(shift)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The matched activation, in the activation's dtype."""
        y = self.activation(x)
        return y * self.gain.astype(y.dtype) + self.shift.astype(y.dtype)


@dataclass(frozen=True)
class _Place:
    """Where an activation stands.

    Attributes:
        around: the modules that contain it, the nearest first; none around the model itself.
            Lists and dictionaries of NNX are modules too.
    """

    name: str
    old: Any
    around: tuple[nnx.Module, ...]

    @property
    def attribute(self) -> str:
        return self.name.rpartition(".")[2]

    def put(self, value: Any) -> None:
        """Let ``value`` stand here."""
        if self.around:
            # NNX keeps apart what holds parameters and what does not, and takes no change unasked.
            kind = nnx.data if isinstance(value, nnx.Module) else nnx.static
            setattr(self.around[0], self.attribute, kind(value))

    def holds(self, value: Any) -> bool:
        """Whether ``value`` stands here."""
        return not self.around or vars(self.around[0]).get(self.attribute) is value


def replace(
    model: nnx.Module,
    matches: Selection,
    replacement: str | Formula | Callable[[], Any],
    *,
    match_gain: bool,
    example_inputs: Any,
) -> SurgeryReport:
    """:func:`zeta.integrations.replace_activations` on an NNX model."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"the model must be an nnx.Module, got {type(model).__name__}")
    make = MAKER.factory(replacement)
    visited: list[Any] = []
    places = list(_places(model, matches, visited))
    new = _made(places, make)
    found, not_looked = _look(model, places, example_inputs)
    if not places:
        raise matches.nothing_matched(model, visited, found)
    sums = [GainSums() for _ in places]
    if match_gain:
        sums = _observed(model, places, new, example_inputs)
    put = _matched(new, sums)
    for place, module in zip(places, put, strict=True):
        place.put(module)

    def undo() -> nnx.Module:
        if not all(place.holds(module) for place, module in zip(places, put, strict=True)):
            raise undone_out_of_order()
        for place in places:
            place.put(place.old)
        return model

    result = model if places[0].around else put[0]
    if example_inputs is not None and not not_looked:
        _check_runs(result, example_inputs, undo)
    seen = list(zip(places, put, sums, strict=True)) if match_gain else []
    return SurgeryReport(
        result,
        tuple(
            Replaced(place.name, _shown(place.old), _shown(module), _gain(module))
            for place, module in zip(places, put, strict=True)
        ),
        tuple(found),
        not_looked,
        tuple(place.name for place, _, each in seen if not each.count),
        tuple(p.name for p, module, s in seen if s.count and _gain(module) is None),
        tuple(text for place in places for text in _lost(place)),
        _undo=undo,
    )


def _places(model: nnx.Module, matches: Matches, visited: list[Any]) -> Iterator[_Place]:
    """Every place that matches; ``visited`` collects all that could have."""
    visited.append(model)
    if matches("", model):
        yield _Place("", model, ())
        return
    yield from _places_within(model, matches, "", (), visited, {id(model)})


def _places_within(
    parent: nnx.Module,
    matches: Matches,
    prefix: str,
    around: tuple[nnx.Module, ...],
    visited: list[Any],
    entered: set[int],
) -> Iterator[_Place]:
    around = (parent, *around)
    for attribute, child in list(vars(parent).items()):
        name = f"{prefix}{attribute}"
        is_module = isinstance(child, nnx.Module)
        if not is_module and not activation_name(child):
            continue
        visited.append(child)
        if matches(name, child):
            yield _Place(name, child, around)
        elif is_module and not isinstance(child, IsMatched) and id(child) not in entered:
            entered.add(id(child))
            yield from _places_within(child, matches, f"{name}.", around, visited, entered)


def _made(places: list[_Place], make: Callable[[], Any]) -> list[Any]:
    """A new module for every place; one for all places that share a module.

    A function in several places is not shared: it has no parameters to have in common.
    """
    shared: dict[int, Any] = {}
    made = []
    for place in places:
        key = id(place.old) if isinstance(place.old, nnx.Module) else id(place)
        if key not in shared:
            shared[key] = _like(MAKER.one(make, place.old), place.around)
        made.append(shared[key])
    check_distinct(shared.values(), make, len(shared))
    return made


def _like(module: Any, around: tuple[nnx.Module, ...]) -> Any:
    """In the dtype of the nearest module around that has a floating-point parameter."""
    dtypes = (v.dtype for m in around for _, v in _variables(m))
    dtype = next((dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)), None)
    if dtype is not None:
        for _, variable in _variables(module):
            variable.set_value(variable.get_value().astype(dtype))
    return module


def _variables(module: nnx.Module) -> Iterator[tuple[Any, Any]]:
    graph = nnx.iter_graph(module)
    return ((path, v) for path, v in graph if isinstance(v, nnx.Param))


def _look(
    model: nnx.Module, places: list[_Place], example_inputs: Any
) -> tuple[list[FunctionCall], str]:
    """The activations called as functions, and why some may be missing."""
    if example_inputs is None:
        return [], NOT_LOOKED
    if places and not places[0].around:
        return [], ""  # the model is an activation
    twin = _evaluating(model)
    for place in list(_places(twin, lambda _, value: activation_name(value) is not None, [])):
        place.put(_identity)
    try:
        return flax_calls.traced_calls(twin, example_inputs), ""
    except Exception as error:  # whatever a model raises on tracers
        return [], f"JAX cannot trace the model ({one_line(error, 100)})"


def _identity(x: jax.Array, *_: Any, **__: Any) -> jax.Array:
    return x


def _evaluating(model: nnx.Module) -> Any:
    """A twin in evaluation mode, so that running it leaves no trace in the model."""
    twin = nnx.clone(model)
    twin.eval()
    return twin


def _check_runs(model: nnx.Module, example_inputs: Any, undo: Callable[[], Any]) -> None:
    """Undo the surgery and raise TypeError unless the model can be traced as it could before."""
    try:
        flax_calls.traced_calls(_evaluating(model), example_inputs)
    except Exception as error:  # of whatever type a transformation raises
        undo()
        raise TypeError(
            "the model does not run with the new activations, so nothing was changed "
            f"({one_line(error, 100)}); layers that nnx.vmap has stacked, for nnx.scan say, take "
            "parameters only where they are built"
        ) from error


def _observed(
    model: nnx.Module, places: list[_Place], new: list[Any], example_inputs: Any
) -> list[GainSums]:
    """What the old and the new activation of each place answer; shared ones share their sums."""
    shared = {id(module): GainSums() for module in new}
    sums = [shared[id(module)] for module in new]
    if example_inputs is None:
        x = jnp.asarray(NORMAL_QUANTILES, jnp.float32)
        for place, module, each in zip(places, new, sums, strict=True):
            each.add(on_normal(place.name, place.old, x), on_normal(place.name, module, x))
        return sums
    run = _evaluating(model)
    at = {place.name: pair for place, *pair in zip(places, new, sums, strict=True)}
    for place in list(_places(run, lambda name, _: name in at, [])):
        recorder = _recorder(place.old, *at[place.name])
        place.put(recorder)
        run = run if place.around else recorder
    args, kwargs = call_arguments(example_inputs)
    run(*args, **kwargs)
    jax.effects_barrier()
    return sums


def _recorder(old: Any, new: Any, sums: GainSums) -> Callable[..., jax.Array]:
    def add(f: Any, g: Any) -> None:
        sums.add(f, g, channel_dim=-1)

    def record(x: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
        f: jax.Array = old(x, *args, **kwargs)
        # A callback, since the place may be inside `nnx.jit`, `nnx.scan` or `nnx.remat`.
        jax.debug.callback(add, f, new(x))
        return f

    return record


def _matched(new: list[Any], sums: list[GainSums]) -> list[Any]:
    """The new modules matched to the old ones; shared ones stay shared."""
    made: dict[int, Any] = {}
    for module, each in zip(new, sums, strict=True):
        match = each.solve()
        if match is None:
            made.setdefault(id(module), module)
        else:
            gain, shift = (jnp.asarray(v, jnp.float32) for v in (match.gain, match.shift))
            made.setdefault(id(module), Matched(module, gain, shift))
    return [made[id(module)] for module in new]


def _gain(module: Any) -> float | None:
    return module.gain.get_value().item() if isinstance(module, Matched) else None


def _lost(place: _Place) -> Iterator[str]:
    if isinstance(place.old, nnx.Module):
        names = [".".join(map(str, path)) for path, _ in _variables(place.old)]
        if names:
            yield f"{place.name or 'the model itself'}: {', '.join(names)} of {_shown(place.old)}"


def _shown(value: Any) -> str:
    value = unmatched(value)
    formula = getattr(value, "formula", None)
    if isinstance(formula, Formula):
        about = (formula.name,) if type(value) is zeta_flax.FormulaModule else formula.parameters
        return f"{type(value).__name__}({', '.join(about)})"
    return own_name(value)
