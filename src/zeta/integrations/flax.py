"""Model surgery on Flax NNX modules, in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from zeta import flax as zeta_flax
from zeta._formula import Formula
from zeta.integrations import flax_calls
from zeta.integrations.gain import GainSums, normal_quantiles
from zeta.integrations.names import activation_name
from zeta.integrations.replacement import Maker, check_distinct
from zeta.integrations.report import FunctionCall, Replaced, SurgeryReport
from zeta.integrations.surgery import call_arguments, nothing_matched

Matches = Callable[[str, Any], bool]

MAKER = Maker(zeta_flax, zeta_flax.FormulaModule, nnx.Module, "an nnx.Module")

NOT_LOOKED = "Flax models are looked through by running them; give example_inputs"


class Matched(nnx.Module):
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
    """Where an activation stands: in an attribute of a module, in a list, or in a dictionary.

    Attributes:
        parent: what holds it; None for the model itself.
        around: the modules that contain it, the nearest first.
    """

    name: str
    old: Any
    parent: Any
    key: str | int
    around: tuple[nnx.Module, ...]

    def put(self, value: Any) -> None:
        """Let ``value`` stand here."""
        if isinstance(self.parent, nnx.Module):
            # NNX keeps apart what holds parameters and what does not, and takes no change unasked.
            kind = nnx.data if isinstance(value, nnx.Module) else nnx.static
            setattr(self.parent, str(self.key), kind(value))
        elif self.parent is not None:
            self.parent[self.key] = value

    def holds(self, value: Any) -> bool:
        """Whether ``value`` stands here."""
        return self.parent is None or dict(_members(self.parent)).get(self.key) is value


def replace(
    model: nnx.Module,
    matches: Matches,
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
    found, not_looked = _look(model, example_inputs)
    if not places:
        raise nothing_matched(model, visited, found)
    if match_gain:
        sums = _observed(model, places, new, example_inputs)
    else:
        sums = [GainSums() for _ in places]
    put = _matched(new, sums)
    for place, module in zip(places, put, strict=True):
        place.put(module)

    def undo() -> nnx.Module:
        if not all(place.holds(module) for place, module in zip(places, put, strict=True)):
            raise RuntimeError(
                "the model no longer holds what this surgery put there; undo later ones first"
            )
        for place in places:
            place.put(place.old)
        return model

    return SurgeryReport(
        put[0] if places[0].parent is None else model,
        tuple(
            Replaced(place.name, _shown(place.old), _shown(module), _gain(module))
            for place, module in zip(places, put, strict=True)
        ),
        tuple(found),
        not_looked,
        tuple(
            place.name
            for place, each in zip(places, sums, strict=True)
            if match_gain and not each.count
        ),
        _undo=undo,
    )


def _places(model: nnx.Module, matches: Matches, visited: list[Any]) -> Iterator[_Place]:
    """Every place that matches; ``visited`` collects all that could have."""
    visited.append(model)
    if matches("", model):
        yield _Place("", model, None, "", ())
        return
    yield from _places_within(model, matches, "", (model,), visited, {id(model)})


def _places_within(
    parent: Any,
    matches: Matches,
    prefix: str,
    around: tuple[nnx.Module, ...],
    visited: list[Any],
    entered: set[int],
) -> Iterator[_Place]:
    for key, value in _members(parent):
        name = f"{prefix}{key}"
        is_module = isinstance(value, nnx.Module)
        if is_module or activation_name(value):
            visited.append(value)
            if matches(name, value):
                yield _Place(name, value, parent, key, around)
                continue
        if (is_module or isinstance(value, list | dict)) and id(value) not in entered:
            entered.add(id(value))
            inner = (value, *around) if is_module else around
            yield from _places_within(value, matches, f"{name}.", inner, visited, entered)


def _members(parent: Any) -> list[tuple[Any, Any]]:
    if isinstance(parent, list):
        return list(enumerate(parent))
    members = parent if isinstance(parent, dict) else vars(parent)
    return list(members.items())


def _made(places: list[_Place], make: Callable[[], Any]) -> list[Any]:
    """A new module for every place; one for all places that share a module.

    A function in several places is not shared: it has no parameters to have in common.
    """
    made: dict[int, Any] = {}
    result = []
    for i, place in enumerate(places):
        key = id(place.old) if isinstance(place.old, nnx.Module) else -1 - i
        if key not in made:
            made[key] = _like(MAKER.one(make), place.around)
        result.append(made[key])
    check_distinct(list(made.values()), make)
    return result


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


def _look(model: nnx.Module, example_inputs: Any) -> tuple[list[FunctionCall], str]:
    """The activations called as functions, and why some may be missing."""
    if example_inputs is None:
        return [], NOT_LOOKED
    twin = _evaluating(model)
    for place in _places(twin, lambda _, value: activation_name(value) is not None, []):
        place.put(_identity)
    return flax_calls.traced_calls(twin, example_inputs), ""


def _identity(x: jax.Array) -> jax.Array:
    return x


def _evaluating(model: nnx.Module) -> Any:
    """A twin in evaluation mode, so that running it leaves no trace in the model."""
    twin = nnx.clone(model)
    twin.eval()
    return twin


def _observed(
    model: nnx.Module, places: list[_Place], new: list[Any], example_inputs: Any
) -> list[GainSums]:
    """What the old and the new activation of each place answer; shared ones share their sums."""
    shared = {id(module): GainSums() for module in new}
    sums = [shared[id(module)] for module in new]
    if example_inputs is None:
        x = jnp.asarray(normal_quantiles(), jnp.float32)
        for place, module, each in zip(places, new, sums, strict=True):
            each.add(place.old(x), module(x))
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


def _recorder(old: Any, new: Any, sums: GainSums) -> Callable[[jax.Array], jax.Array]:
    def record(x: jax.Array) -> jax.Array:
        f = old(x)
        # A callback, since the place may be inside `nnx.jit`, `nnx.scan` or `nnx.remat`.
        jax.debug.callback(sums.add, f, new(x))
        return f

    return record


def _matched(new: list[Any], sums: list[GainSums]) -> list[Any]:
    """The new modules matched to the old ones; shared ones stay shared."""
    made: dict[int, Any] = {}
    for module, each in zip(new, sums, strict=True):
        if id(module) not in made:
            solved = each.solve()
            made[id(module)] = Matched(module, *map(jnp.asarray, solved)) if solved else module
    return [made[id(module)] for module in new]


def _gain(module: Any) -> float | None:
    return module.gain.get_value().item() if isinstance(module, Matched) else None


def _shown(value: Any) -> str:
    if isinstance(value, Matched):
        value = value.activation
    formula = getattr(value, "formula", None)
    if isinstance(formula, Formula):
        parameters = ", ".join(formula.parameters)
        return f"{type(value).__name__}({parameters})"
    return getattr(value, "__name__", type(value).__name__)
