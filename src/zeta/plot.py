"""Plots of formulas: f and its derivatives, and what each parameter changes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sympy

from zeta._backends import numpy as backend
from zeta._errors import UserError, missing_extra
from zeta._formula import Formula

try:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing_extra("zeta.plot", "Matplotlib", extra="plot") from error

__all__ = ["derivative", "draw", "panels", "plot", "varied_values"]

Array = npt.NDArray[np.floating[Any]]

_COLUMNS = 3
_RANGE = (-5.0, 5.0)
# A gate's second input, whose curves are over the first.
_VALUES = (-1.0, 0.5, 2.0)
# The functions of `zeta.math` that SymPy's own NumPy printer does not know.
_FUNCTIONS = {name: getattr(backend, name) for name in ("sigmoid", "softplus", "clip", "erf")}
_FUNCTIONS |= {"erfc": backend.erfc, "expm1": backend.expm1, "log1p": backend.log1p}


def derivative(formula: Formula, by: str | None = None) -> Callable[..., Array]:
    """f′ as a function of NumPy arrays, one per input, and the formula's parameters, by name.

    It is SymPy's derivative of :meth:`zeta.Formula.symbolic`, evaluated with NumPy.

    Args:
        formula: of any number of inputs.
        by: the input to differentiate by; the first if left out.

    Raises:
        UserError: the formula has no such input.

    Example:
        >>> import numpy as np
        >>> from zeta.activations import silu, swiglu
        >>> from zeta.plot import derivative
        >>> float(derivative(silu)(np.array([0.0]))[0])
        0.5
        >>> gate, value = np.array([0.0]), np.array([3.0])
        >>> float(derivative(swiglu, "gate")(gate, value)[0])
        1.5
    """
    by = by or formula.inputs[0]
    if by not in formula.inputs:
        raise UserError(f"{formula!r} has no input {by!r}; it has {', '.join(formula.inputs)}")
    # As `Formula.symbolic` calls them.
    shown = formula.inputs if len(formula.inputs) > 1 else ("x",)
    names = [sympy.Symbol(name, real=True) for name in (*shown, *formula.scalars)]
    # Python keywords and such are no trouble: the parameters are passed by position.
    expression = sympy.diff(formula.symbolic(), names[formula.inputs.index(by)])
    slope = sympy.lambdify(names, expression, modules=[_FUNCTIONS, "numpy"])

    def evaluate(*points: Array, **parameters: float) -> Array:
        # Python's own numbers raise where NumPy's overflow.
        values = map(np.float64, formula.flat(formula.bind(**parameters)).values())
        with np.errstate(all="ignore"):  # the branch that is not selected may overflow
            return np.broadcast_to(slope(*points, *values), points[0].shape)

    return evaluate


def plot(formulas: Sequence[Formula], path: str | Path) -> None:
    """Draw each formula with its derivative, and one panel per scalar parameter that varies it.

    A gate is drawn over its first input, for a few values of the second: f, then the derivative
    by either.

    Args:
        formulas: one or more, each of one input or two; each starts a new row.
        path: the picture's file; its suffix decides the format (png, svg, pdf, …).

    Raises:
        UserError: the suffix names no format, the file cannot be written, or a formula takes more
            than two inputs.
        ImportError: Matplotlib is missing; the message names the extra.
    """
    path = Path(path)
    check_format(path)
    figure = draw(formulas)
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from error


def check_format(path: Path) -> None:
    """Raise unless the file's suffix names a format that can be drawn.

    Raises:
        UserError: it names none.
    """
    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats:
        raise UserError(f"cannot plot to {str(path)!r}: the suffix must be one of {_list(formats)}")


def draw(formulas: Sequence[Formula]) -> Figure:
    """The figure that :func:`plot` saves."""
    found = [_panels(formula) for formula in formulas]
    columns = min(_COLUMNS, max(map(len, found)))
    rows = sum(-(-len(panels) // columns) for panels in found)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    row = 0
    for panels in found:
        for index, panel in enumerate(panels):
            _draw_panel(figure.add_subplot(rows, columns, row * columns + index + 1), panel)
        row += -(-len(panels) // columns)
    return figure


def panels(formula: Formula) -> list[Figure]:
    """The panels of :func:`draw` as figures of their own, f first, the parameters last.

    Raises:
        UserError: the formula takes more than two inputs.

    Example:
        >>> from zeta.activations import elu, swiglu
        >>> from zeta.plot import panels
        >>> len(panels(elu))  # f with f′; alpha varied
        2
        >>> len(panels(swiglu))  # f, ∂f/∂gate, ∂f/∂value
        3
    """
    figures = []
    for panel in _panels(formula):
        figures.append(Figure(figsize=(4.2, 3.2), layout="constrained"))
        _draw_panel(figures[-1].add_subplot(), panel)
    return figures


class _Curve(NamedTuple):
    """A function of one array, and perhaps its derivative, dashed in the same colour."""

    function: Callable[[Array], Array]
    label: str
    slope: Callable[[Array], Array] | None = None
    slope_label: str | None = None


class _Panel(NamedTuple):
    title: str
    variable: str
    curves: Sequence[_Curve]


def _panels(formula: Formula) -> list[_Panel]:
    if len(formula.inputs) > 2:
        raise UserError(
            f"{formula!r} takes {len(formula.inputs)} inputs, and a plot shows one or two"
        )
    return _of_an_activation(formula) if len(formula.inputs) == 1 else _of_a_gate(formula)


def _of_an_activation(formula: Formula) -> list[_Panel]:
    slope = derivative(formula)
    found = [_Panel(repr(formula), "x", [_Curve(formula, "f", slope, "f′")])]
    for name in formula.scalars:
        title = f"{formula.name}: {name} varied (f′ dashed)"
        found.append(_Panel(title, "x", _varied(formula, slope, name, lambda function: function)))
    return found


def _of_a_gate(formula: Formula) -> list[_Panel]:
    gate, value = formula.inputs
    by_gate, by_value = (derivative(formula, by) for by in formula.inputs)

    def at(number: float, function: Callable[..., Array]) -> Callable[..., Array]:
        return lambda x, **parameters: function(x, np.full_like(x, number), **parameters)

    functions: dict[str, Callable[..., Array]] = {
        repr(formula): formula,
        f"{formula.name}: ∂f/∂{gate}": by_gate,
        f"{formula.name}: ∂f/∂{value}": by_value,
    }
    found = [
        _Panel(title, gate, [_Curve(at(n, function), f"{value} = {n:g}") for n in _VALUES])
        for title, function in functions.items()
    ]
    fixed = _VALUES[-1]
    for name in formula.scalars:
        title = f"{formula.name}: {name} varied, {value} = {fixed:g} (∂f/∂{gate} dashed)"
        curves = _varied(formula, by_gate, name, lambda function: at(fixed, function))
        found.append(_Panel(title, gate, curves))
    return found


def _varied(
    formula: Formula,
    slope: Callable[..., Array],
    name: str,
    of_one: Callable[[Callable[..., Array]], Callable[..., Array]],
) -> list[_Curve]:
    """The formula and its slope for some values of a scalar, each made a function of one."""
    defaults = formula.flat(formula.parameters)
    curves = []
    for number in varied_values(defaults[name]):
        at: dict[str, Any] = formula.grouped(defaults | {name: number})
        function, derived = partial(of_one(formula), **at), partial(of_one(slope), **at)
        curves.append(_Curve(function, f"{name} = {number:.3g}", derived))
    return curves


def _draw_panel(axis: Axes, panel: _Panel) -> None:
    x = np.linspace(*_RANGE, 401)
    for curve in panel.curves:
        (line,) = axis.plot(x, curve.function(x), label=curve.label)
        if curve.slope:
            y, colour = curve.slope(x), line.get_color()
            axis.plot(x, y, "--", color=colour, lw=1, label=curve.slope_label)
    axis.axhline(0, color="0.7", lw=0.6, zorder=0)
    axis.axvline(0, color="0.7", lw=0.6, zorder=0)
    axis.set_xlabel(panel.variable)
    axis.set_title(panel.title, fontsize="small", wrap=True)
    axis.legend(fontsize="x-small")


def varied_values(default: float) -> list[float]:
    """The values a parameter is drawn with: half, once and twice its default; -1, 0, 1 for 0.

    Example:
        >>> from zeta.plot import varied_values
        >>> varied_values(2.0)
        [1.0, 2.0, 4.0]
    """
    return [default / 2, default, 2 * default] if default else [-1.0, 0.0, 1.0]


def _list(names: Mapping[str, str]) -> str:
    return ", ".join(sorted(names))
