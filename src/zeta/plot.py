"""Plots of formulas: f and its derivative, and what each parameter changes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
# The functions of `zeta.math` that SymPy's own NumPy printer does not know.
_FUNCTIONS = {name: getattr(backend, name) for name in ("sigmoid", "softplus", "clip", "erf")}
_FUNCTIONS |= {"erfc": backend.erfc, "expm1": backend.expm1, "log1p": backend.log1p}


def derivative(formula: Formula) -> Callable[..., Array]:
    """f′ as a function of a NumPy array and the formula's parameters, by name.

    It is SymPy's derivative of :meth:`zeta.Formula.symbolic`, evaluated with NumPy.

    Example:
        >>> import numpy as np
        >>> from zeta.activations import silu
        >>> from zeta.plot import derivative
        >>> float(derivative(silu)(np.array([0.0]))[0])
        0.5
    """
    x = sympy.Symbol("x", real=True)
    names = {name: sympy.Symbol(name, real=True) for name in formula.parameters}
    # Python keywords and such are no trouble: the parameters are passed by position.
    slope = sympy.lambdify(
        [x, *names.values()], sympy.diff(formula.symbolic(), x), modules=[_FUNCTIONS, "numpy"]
    )

    def evaluate(points: Array, **parameters: float) -> Array:
        # Python's own numbers raise where NumPy's overflow.
        values = map(np.float64, formula.bind(**parameters).values())
        with np.errstate(all="ignore"):  # the branch that is not selected may overflow
            return np.broadcast_to(slope(points, *values), points.shape)

    return evaluate


def plot(formulas: Sequence[Formula], path: str | Path) -> None:
    """Draw each formula with its derivative, and one panel per parameter that varies it.

    Args:
        formulas: one or more; each starts a new row.
        path: the picture's file; its suffix decides the format (png, svg, pdf, …).

    Raises:
        UserError: the suffix names no format, or the file cannot be written.
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
    panels = [1 + len(formula.parameters) for formula in formulas]
    columns = min(_COLUMNS, max(panels))
    rows = sum(-(-count // columns) for count in panels)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    row = 0
    for formula, count in zip(formulas, panels, strict=True):
        axes = [
            figure.add_subplot(rows, columns, row * columns + index + 1) for index in range(count)
        ]
        _draw_formula(formula, axes)
        row += -(-count // columns)
    return figure


def panels(formula: Formula) -> list[Figure]:
    """The panels of :func:`draw` as figures of their own, f with f′ first.

    Example:
        >>> from zeta.activations import elu
        >>> from zeta.plot import panels
        >>> len(panels(elu))  # f with f′; alpha varied
        2
    """
    figures = [
        Figure(figsize=(4.2, 3.2), layout="constrained") for _ in range(1 + len(formula.parameters))
    ]
    _draw_formula(formula, [figure.add_subplot() for figure in figures])
    return figures


def _draw_formula(formula: Formula, axes: Sequence[Axes]) -> None:
    slope = derivative(formula)
    _draw_curves(axes[0], formula, slope, [({}, "f", "f′")])
    axes[0].set_title(repr(formula), fontsize="small", wrap=True)
    for axis, (name, default) in zip(axes[1:], formula.parameters.items(), strict=True):
        curves = [
            ({name: value}, f"{name} = {value:.3g}", None) for value in varied_values(default)
        ]
        _draw_curves(axis, formula, slope, curves)
        axis.set_title(f"{formula.name}: {name} varied (f′ dashed)", fontsize="small")


def _draw_curves(
    axis: Axes,
    formula: Formula,
    slope: Callable[..., Array],
    curves: Sequence[tuple[Mapping[str, float], str, str | None]],
) -> None:
    """Each set of parameter values as one colour: f as a line, f′ dashed."""
    x = np.linspace(*_RANGE, 401)
    for parameters, label, slope_label in curves:
        (line,) = axis.plot(x, formula(x, **parameters), label=label)
        axis.plot(x, slope(x, **parameters), "--", color=line.get_color(), lw=1, label=slope_label)
    axis.axhline(0, color="0.7", lw=0.6, zorder=0)
    axis.axvline(0, color="0.7", lw=0.6, zorder=0)
    axis.set_xlabel("x")
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
