"""Formulas by name and by family, those of the catalogue and those that users register."""

import functools
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from types import ModuleType

from zeta._errors import UnknownNameError, one_line
from zeta._formula import Formula
from zeta.activations import elementwise, gated, learnable, logits

#: The group of entry points by which an installed package brings its formulas.
GROUP = "zeta.formulas"


def _written_in(module: ModuleType) -> dict[str, Formula]:
    found = {name: value for name, value in vars(module).items() if isinstance(value, Formula)}
    return {name: f for name, f in found.items() if f.function.__module__ == module.__name__}


#: Every formula by family and name: elementwise, learnable, gated and logits.
FAMILIES: dict[str, dict[str, Formula]] = {
    "elementwise": _written_in(elementwise),
    "learnable": _written_in(learnable),
    "gated": _written_in(gated),
    "logits": _written_in(logits),
}
#: Every activation, a formula of one input, by name: elementwise and learnable ones.
CATALOGUE: dict[str, Formula] = FAMILIES["elementwise"] | FAMILIES["learnable"]
#: Every gate, a formula of the inputs ``gate`` and ``value``, by name.
GATES: dict[str, Formula] = FAMILIES["gated"]
#: Every formula made for logits, which has one input, by name.
LOGITS: dict[str, Formula] = FAMILIES["logits"]

_OWN = {name for members in FAMILIES.values() for name in members}
_followers: list[Callable[[Formula], None]] = []


def get(name: str) -> Formula:
    """The formula of that name: an activation, a gate, one for logits, or a registered one.

    Raises:
        UnknownNameError: there is none; the message suggests the nearest.

    Example:
        >>> from zeta import activations
        >>> activations.get("exo")
        exo(x, alpha=1)
    """
    found = find(name)
    if found is None:
        raise UnknownNameError("activation", name, (n for m in FAMILIES.values() for n in m))
    return found


def find(name: str) -> Formula | None:
    """As :func:`get`, and None where there is none."""
    found = _known(name)
    if found is None:
        load_entry_points()
        found = _known(name)
    return found


def _known(name: str) -> Formula | None:
    return next((members[name] for members in FAMILIES.values() if name in members), None)


def family(formula: Formula) -> str:
    """The family that a formula is in, or of an unregistered one the family that it would be in.

    Example:
        >>> from zeta import activations
        >>> activations.family(activations.swiglu)
        'gated'
    """
    for name, members in FAMILIES.items():
        if members.get(formula.name) is formula:
            return name
    if len(formula.inputs) == 2:
        return "gated"
    return "learnable" if formula.learnable else "elementwise"


def register(formula: Formula, *, family: str | None = None) -> Formula:
    """Give a formula of your own what the catalogue's have, under its name.

    From then on its name stands wherever a name of the catalogue does: in :func:`get`,
    ``zeta.activations.NAME``, ``hidden_act=`` of transformers after
    :func:`zeta.integrations.register_transformers`, ``replace_activations``, ``act_layer``,
    ``zeta.jax`` and ``zeta.keras`` with saving and loading, plots and evaluations. Also a
    decorator, above ``@formula``. Another process knows the name once it has imported the module
    that registers it; an installed package is found by itself if it names its formulas as entry
    points:

    .. code-block:: toml

        [project.entry-points."zeta.formulas"]
        swoosh = "my_package.activations:swoosh"

    Args:
        formula: of one input, or of two, a gate and a value.
        family: "elementwise", "learnable", "gated" or "logits"; left out, a formula of two inputs
            is gated, and one of one input learnable if it has :attr:`zeta.Formula.learnable`.

    Returns:
        The formula.

    Raises:
        TypeError: no formula, one of more than two inputs, or one that its family excludes.
        ValueError: an unknown family, or a name that another formula has. What a module registered
            it may register anew, as a notebook's cell does that is run again.

    Example:
        >>> from zeta import activations, formula
        >>> from zeta.math import atan
        >>> @activations.register
        ... @formula
        ... def arctangent(x):
        ...     return atan(x)
        >>> activations.get("arctangent")
        arctangent(x)
    """
    family = _checked_family(formula, family)
    known = _known(formula.name)
    if known is formula:
        return formula
    if formula.name in _OWN or (known is not None and _module(known) != _module(formula)):
        raise ValueError(
            f"cannot register {formula!r}: the name {formula.name!r} is taken by {known!r} of "
            f"{_module(known) if known else ''}; give your function another name"
        )
    _forget(formula.name)
    FAMILIES[family][formula.name] = formula
    if family in ("elementwise", "learnable"):
        CATALOGUE[formula.name] = formula
    for follower in _followers:
        follower(formula)
    return formula


def _checked_family(formula: Formula, name: str | None) -> str:
    if not isinstance(formula, Formula):
        raise TypeError(f"register takes a formula, as @formula makes; got {formula!r}")
    if len(formula.inputs) > 2:
        raise TypeError(f"the catalogue has formulas of one input or two, not {formula!r}")
    name = name or family(formula)
    if name not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {name!r}")
    if (name == "gated") != (len(formula.inputs) == 2):
        raise TypeError(f"{formula!r} takes {len(formula.inputs)} inputs, and cannot be {name}")
    return name


def _module(formula: Formula) -> str:
    return formula.function.__module__


def _forget(name: str) -> None:
    for members in (*FAMILIES.values(), CATALOGUE):
        members.pop(name, None)


def follow(follower: Callable[[Formula], None]) -> None:
    """Call a function with every activation and gate, and with each that is registered later.

    By this a framework's own registry keeps up with the catalogue.
    """
    if follower not in _followers:
        _followers.append(follower)
    for formula in (*CATALOGUE.values(), *GATES.values()):
        follower(formula)


@functools.cache
def load_entry_points() -> None:
    """Register what installed packages bring as entry points of the group "zeta.formulas", once.

    One that cannot be loaded is left out with a warning.
    """
    for entry in entry_points(group=GROUP):
        try:
            register(entry.load())
        except Exception as error:
            where = f"{entry.value!r} of {entry.dist.name if entry.dist else 'a package'}"
            warnings.warn(f"{GROUP}: {where} is left out: {one_line(error)}", stacklevel=2)
