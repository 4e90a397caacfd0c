"""What there is to know of a formula before one tries it, computed from the formula."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zeta._errors import NoKernelError
from zeta._formula import Formula

Array = npt.NDArray[np.float64]

# Far out, and no multiples of each other: an oscillation shows.
_FAR: Array = np.geomspace(1e6, 1e9, 14)
# Off the round numbers that knots stand at, and dense where formulas bend.
_REACH = 12.0
_POINTS: Array = np.linspace(-_REACH, _REACH, 48_002)
_WIDE: Array = np.sort(
    np.concatenate([_POINTS, [0.0], *(s * np.geomspace(_REACH, 1e6, 400) for s in (-1, 1))])
)
_ULPS = 64 * np.finfo(np.float64).eps
# What an operation costs in a vectorised kernel, in additions; any other function of one or two
# numbers is a polynomial of a dozen terms.
_COSTS = dict.fromkeys(("number", "element", "parameter"), 0) | dict.fromkeys(
    (
        *("add", "subtract", "multiply", "negate", "abs", "minimum", "maximum", "where", "sign"),
        *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"),
        *("clip", "and", "or", "not", "indicator", "round", "floor", "surrogate"),
    ),
    1,
)
_COSTS |= dict.fromkeys(("divide", "sqrt", "rsqrt"), 4)
_COST_OF_FUNCTION = 15


@dataclass(frozen=True)
class Facts:
    """What :meth:`zeta.Formula.facts` finds of a formula, its parameters at their defaults.

    Attributes:
        below, above: f(-∞) and f(+∞); None where there is no limit.
        least, largest: the bounds of f, ±inf where there is none.
        monotone: "rising", "falling" or "": nowhere the other way.
        smoothness: "jumps", "kinks" or "smooth": whether f is continuous, and then whether f′ is.
        mean: E[f(z)] of z ~ N(0, 1); 0 of what is zero-centred.
        gain: 1 / √E[f(z)²], see :func:`zeta.nn.init.calculate_gain`.
        cost: operations of value and derivative over GELU's, a function counted as fifteen
            additions; ``zeta bench`` measures.
        learnable: names of the parameters that modules train by default.
        year: when it was published, after its docstring; None where that does not say.
        used_by: models and libraries that use it, after its docstring.
    """

    below: float | None
    above: float | None
    least: float
    largest: float
    monotone: str
    smoothness: str
    mean: float
    gain: float
    cost: float
    learnable: tuple[str, ...]
    year: int | None
    used_by: str

    @property
    def bounded(self) -> bool:
        """Whether f is bounded on both sides."""
        return math.isfinite(self.least) and math.isfinite(self.largest)


def facts(formula: Formula) -> Facts:
    """See :meth:`zeta.Formula.facts`."""
    if len(formula.inputs) != 1:
        raise TypeError(f"facts are found of formulas of one input, not of {formula!r}")
    with np.errstate(all="ignore"):
        y = formula(_WIDE)
        limits = _limit(formula, -1), _limit(formula, 1)
        mean, square = _normal_mean(formula, 1), _normal_mean(formula, 2)
        ends = [limit for limit in limits if limit is not None]
        return Facts(
            *limits,
            least=_bound(min([y.min(), *ends])),
            largest=_bound(max([y.max(), *ends])),
            monotone=_monotone(y),
            smoothness=_smoothness(formula),
            mean=0.0 if abs(mean) < 1e-6 else mean,  # the grid's error at a kink
            gain=1 / math.sqrt(square),
            cost=relative_cost(formula),
            learnable=formula.learnable,
            year=year(formula),
            used_by=used_by(formula),
        )


def year(formula: Formula) -> int | None:
    """The year in the docstring's last sentence, its source."""
    found = re.findall(r"\b(?:19|20)\d\d\b", published(formula))
    return int(found[0]) if found else None


def published(formula: Formula) -> str:
    """What the docstring says after "Source:"."""
    return _after("Source:", formula).removesuffix(".")


def used_by(formula: Formula) -> str:
    """What the docstring says after "Used by:"."""
    return _after("Used by:", formula).partition("Source:")[0].strip().removesuffix(".")


def summary(formula: Formula) -> str:
    """The docstring without its source and who uses it, on one line."""
    text = inspect.getdoc(formula) or ""
    first = re.split(r"\n\n|Used by:|Source:", text)[0]
    return " ".join(first.split())


def _after(label: str, formula: Formula) -> str:
    return " ".join((inspect.getdoc(formula) or "").partition(label)[2].split())


def _limit(formula: Formula, sign: int) -> float | None:
    end = float(formula(sign * math.inf)) + 0.0
    y = formula(sign * _FAR)
    if math.isinf(end):
        return end if (y == end).all() or _monotone(np.abs(y)) == "rising" else None
    return end if np.ptp(y) < 1e-5 else None


def _bound(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) > 1e3 else float(value)


def _monotone(y: Array) -> str:
    steps = np.diff(y)
    noise = _ULPS * np.maximum(np.abs(y[1:]), np.abs(y[:-1]))
    falls, rises = (steps < -noise).any(), (steps > noise).any()
    if falls == rises:
        return ""
    return "rising" if rises else "falling"


def _smoothness(formula: Formula) -> str:
    """How jumps of f and of its slope between neighbours shrink where the grid is made finer.

    A jump stays, a continuous function's difference shrinks in proportion.
    """
    coarse, fine = (_roughness(formula(np.linspace(-_REACH, _REACH, n))) for n in (12_002, 96_002))
    for kind, before, after in zip(("jumps", "kinks"), coarse, fine, strict=True):
        if after > 0.3 * before:
            return kind
    return "smooth"


def _roughness(y: Array) -> tuple[float, float]:
    """The largest step between neighbours, and the largest change of slope; 0 for rounding."""
    steps = np.diff(y)
    noise = _ULPS * np.abs(y).max()
    step, bend = np.abs(steps).max(), np.abs(np.diff(steps)).max()
    return (step, bend * len(y)) if bend > noise else (step, 0.0)


def _normal_mean(formula: Formula, power: int) -> float:
    density = np.exp(-0.5 * _POINTS**2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(formula(_POINTS) ** power * density, _POINTS))


def cost(formula: Formula) -> float:
    """Additions that value and derivative by the inputs take; NaN where there is no kernel."""
    from zeta.codegen.trace import gradient_program, value_program

    constants = formula.flat(formula.parameters)
    try:
        programs = (
            value_program(formula, constants),
            gradient_program(formula, constants, formula.inputs),
        )
    except NoKernelError:
        return math.nan
    return sum(_operations(program.stores) for program in programs)


def relative_cost(formula: Formula) -> float:
    """The same over GELU's."""
    return cost(formula) / _gelus_cost()


@cache
def _gelus_cost() -> float:
    from zeta.activations.elementwise import gelu

    return cost(gelu)


def _operations(stores: Any) -> int:
    seen, waiting = set(), list(stores)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += node.args
    return sum(_COSTS.get(node.op, _COST_OF_FUNCTION) for node in seen)
