"""Model surgery on Flax NNX modules, in place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx

from zeta import activations
from zeta import flax as zeta_flax
from zeta._formula import Formula
from zeta.integrations.names import activation_name, zeta_class
from zeta.integrations.report import Replaced, SurgeryReport
from zeta.integrations.surgery import nothing_matched

Matches = Callable[[str, Any], bool]

NOT_LOOKED = "only PyTorch models are looked through"


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
    model: nnx.Module, matches: Matches, replacement: str | Formula | Callable[[], Any]
) -> SurgeryReport:
    """:func:`zeta.integrations.replace_activations` on an NNX model."""
    if not isinstance(model, nnx.Module):
        raise TypeError(f"the model must be an nnx.Module, got {type(model).__name__}")
    make = _factory(replacement)
    visited: list[Any] = []
    places = list(_places(model, matches, visited))
    if not places:
        raise nothing_matched(model, visited)
    put = _made(places, make)
    for place, new in zip(places, put, strict=True):
        place.put(new)

    def undo() -> nnx.Module:
        if not all(place.holds(new) for place, new in zip(places, put, strict=True)):
            raise RuntimeError(
                "the model no longer holds what this surgery put there; undo later ones first"
            )
        for place in places:
            place.put(place.old)
        return model

    return SurgeryReport(
        put[0] if places[0].parent is None else model,
        tuple(
            Replaced(place.name, _shown(place.old), _shown(new))
            for place, new in zip(places, put, strict=True)
        ),
        not_looked=NOT_LOOKED,
        _undo=undo,
    )


def _factory(replacement: str | Formula | Callable[[], Any]) -> Callable[[], Any]:
    if isinstance(replacement, str):
        replacement = activations.get(replacement)
    if isinstance(replacement, Formula):
        build, arguments = zeta_class(replacement, zeta_flax, zeta_flax.FormulaModule)
        return functools.partial(build, **arguments)
    if isinstance(replacement, nnx.Module) or not callable(replacement):
        raise TypeError(
            "the replacement must be a name of the catalogue, a formula, or a class or function "
            f"that makes a module for every place; got {replacement!r}"
        )
    return replacement


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
            made[key] = _like(_one(make), place.around)
        result.append(made[key])
    if len(set(map(id, made.values()))) < len(made):
        raise TypeError(f"the replacement {make!r} makes the same module again and again")
    return result


def _one(make: Callable[[], Any]) -> Any:
    module = make()
    if not isinstance(module, nnx.Module):
        raise TypeError(
            f"the replacement {make!r} must make an nnx.Module, not {type(module).__name__}"
        )
    return module


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


def _shown(value: Any) -> str:
    formula = getattr(value, "formula", None)
    if isinstance(formula, Formula):
        parameters = ", ".join(formula.parameters)
        return f"{type(value).__name__}({parameters})"
    return getattr(value, "__name__", type(value).__name__)
