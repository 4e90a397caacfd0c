"""A formula on arrays: the checks, the dtype that it is computed in, and the rounding, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from zeta._backends import constant_while_compiling
from zeta._formula import Formula

Inputs = Sequence[Any]
Parameters = Mapping[str, Any]
# Keeps an input finite below and above.
Finite = Callable[[Any, bool, bool], Any]
# None for a size that a graph does not know yet, and for all where it knows not even the rank.
Shape = Sequence[int | None] | None

# How frameworks refuse to say whether an array is true, as `if x > 0` and `max(x, 0)` ask.
_ASKED_OF_ALL = (
    "Boolean value of Tensor",
    "truth value of an array",
    "boolean conversion of traced array",
    "as a Python `bool`",
)


@dataclass(frozen=True)
class Arrays:
    """What is particular to a framework's arrays.

    Attributes:
        kind: what messages call one, "a torch.Tensor".
        noun: the same in general, "tensor" or "array".
        types: what is one.
        dtypes: those that are taken, each with the one that arithmetic runs in.
        cast: an array in another dtype.
        at_least: an array, or the number where that is more; NaN stays NaN.
        at_most: an array, or the number where that is less; likewise.
        largest: the largest finite number of a dtype.
        shape: an array's sizes.
        unstack: an array's parts along its first dimension.
        numbers: what is a single number.
    """

    kind: str
    noun: str
    types: tuple[Any, ...]
    dtypes: Mapping[Any, Any]
    cast: Callable[[Any, Any], Any]
    at_least: Callable[[Any, Any], Any]
    at_most: Callable[[Any, Any], Any]
    largest: Callable[[Any], Any]
    shape: Callable[[Any], Shape]
    unstack: Callable[[Any], Sequence[Any]]
    numbers: tuple[type, ...] = (int, float)

    def evaluate(self, formula: Formula, inputs: Inputs, parameters: Parameters) -> Any:
        """The formula, checked, computed in float32 for half types, and rounded once."""
        self.check(formula, inputs, parameters)
        return self.compute(formula, inputs, parameters)

    def check(self, formula: Formula, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> None:
        """Raise an error that says so where the formula is given what it cannot take."""
        names = formula.inputs if len(inputs) > 1 else ("input",)
        for name, x in zip(names, inputs, strict=True):
            self.check_input(x, formula.name, name)
        for name, value in parameters.items():
            if isinstance(value, self.numbers):
                continue
            whole = self._whole(formula, inputs)
            if isinstance(value, tuple):
                for i, number in enumerate(value):
                    if not isinstance(number, self.numbers):
                        self._check_parameter(number, formula, f"{name}[{i}]", whole)
            else:
                self._check_parameter(value, formula, name, whole)

    def _check_parameter(self, value: Any, formula: Formula, name: str, whole: Shape) -> None:
        """Raise an error that says so unless an array fits the inputs, as a parameter."""
        if not isinstance(value, self.types):
            raise TypeError(
                f"{formula.name}: {name} must be a number or {self.kind}, "
                f"got {type(value).__name__}"
            )
        self.check_input(value, formula.name, name)
        shape, length = self.shape(value), formula.vectors.get(name)
        if length is not None and shape is not None:
            if not shape or shape[0] not in (length, None):
                raise ValueError(
                    f"{formula.name}: {name} must have length {length} in its first dimension, "
                    f"got shape {_shown(shape)}"
                )
            shape = shape[1:]
        if not _broadcasts(shape, whole):
            each = "" if length is None else "each number of "
            raise ValueError(
                f"{formula.name}: {each}{name} of shape {_shown(shape)} does not "
                f"broadcast to the input's shape {_shown(whole)}; accepted: a number, a scalar "
                f"{self.noun}, or one value per channel with size 1 in every other dimension"
            )

    def check_input(self, x: Any, function: str, argument: str = "input") -> None:
        """Raise TypeError unless ``x`` is an array of a dtype that is taken."""
        if not isinstance(x, self.types):
            raise TypeError(f"{function}: {argument} must be {self.kind}, got {type(x).__name__}")
        if x.dtype not in self.dtypes:
            accepted = ", ".join(map(_name, self.dtypes))
            raise TypeError(
                f"{function}: {argument} must be a floating-point {self.noun} ({accepted}), "
                f"got {dtype_name(x)}"
            )

    def compute_dtype(self, dtype: Any) -> Any:
        """The dtype that arithmetic runs in: float32 for the half types, else the dtype itself."""
        return self.dtypes.get(dtype, dtype)

    def compute(self, formula: Formula, inputs: Inputs, parameters: Parameters) -> Any:
        """The formula of what has been checked; ``parameters`` are numbers or arrays."""
        dtype, whole = inputs[0].dtype, self._whole(formula, inputs)
        arithmetic = self.dtypes[dtype]
        values = {
            name: self._cast_all(value, arithmetic, name in formula.vectors)
            for name, value in parameters.items()
        }
        try:
            y = applied(self.finite, formula, [self.cast(x, arithmetic) for x in inputs], values)
        except Exception as error:
            if not any(words in str(error) for words in _ASKED_OF_ALL):
                raise
            raise TypeError(
                f"formula {formula.name!r} asks of all of x at once what differs from element to "
                "element: write zeta.math.maximum(x, 0) for max(x, 0), minimum for min, and "
                "zeta.math.piecewise(x, positive=…, otherwise=…) for an if"
            ) from error
        is_array = isinstance(y, self.types)
        if not is_array or not _is(self.shape(y), whole):
            came = f"shape {_shown(self.shape(y))}" if is_array else type(y).__name__
            raise ValueError(
                f"formula {formula.name!r} must return one value per element of x, "
                f"shape {_shown(whole)}; it returned {came}"
            )
        return self.cast(y, dtype)

    def _cast_all(self, value: Any, dtype: Any, is_vector: bool) -> Any:
        """A parameter as the formula's function takes it: a scalar, or a tuple of a vector's."""
        if isinstance(value, self.numbers):
            return value
        if isinstance(value, tuple):
            return tuple([self._cast_all(number, dtype, False) for number in value])
        cast = self.cast(value, dtype)
        return tuple(self.unstack(cast)) if is_vector else cast

    def _whole(self, formula: Formula, inputs: Inputs) -> Shape:
        """The shape that all inputs, which must have one dtype, broadcast to."""
        if len(inputs) == 1:
            return self.shape(inputs[0])
        dtypes = sorted({dtype_name(x) for x in inputs})
        if len(dtypes) > 1:
            raise TypeError(f"{formula.name}: the inputs must have one dtype, got {dtypes}")
        shapes = [self.shape(x) for x in inputs]
        known = [shape for shape in shapes if shape is not None]
        columns = zip_longest(*map(reversed, known), fillvalue=1)
        whole = [next((size for size in column if size != 1), 1) for column in columns][::-1]
        if not all(_broadcasts(shape, whole) for shape in known):
            shown = " and ".join(map(_shown, known))
            raise ValueError(f"{formula.name}: inputs of shapes {shown} do not broadcast")
        return whole if len(known) == len(shapes) else None

    def finite(self, x: Any, below: bool, above: bool) -> Any:
        """``x``, kept finite on these sides."""
        largest = self.largest(x.dtype)
        x = self.at_least(x, -largest) if below else x
        return self.at_most(x, largest) if above else x


def applied(finite: Finite, formula: Formula, inputs: Inputs, parameters: Parameters) -> Any:
    """What the formula's function returns, its inputs finite where else it has no limit."""
    sides = _clamped_sides(formula)
    at = [finite(x, *kept) if any(kept) else x for x, kept in zip(inputs, sides, strict=True)]
    return formula.function(*at, **parameters)


# Decided by mpmath at first use, which torch.compile and torch.export need not trace.
@constant_while_compiling
def _clamped_sides(formula: Formula) -> tuple[tuple[bool, bool], ...]:
    return formula.clamped_sides


def _broadcasts(shape: Shape, whole: Shape) -> bool:
    """Whether every size is 1 or the whole's; what is not known yet is taken on trust."""
    if shape is None or whole is None:
        return True
    return len(shape) <= len(whole) and all(
        size in (wanted, 1) or size is None or wanted is None
        for size, wanted in zip(reversed(shape), reversed(whole), strict=False)
    )


def _is(shape: Shape, whole: Shape) -> bool:
    return shape == whole or (_broadcasts(shape, whole) and _broadcasts(whole, shape))


def _shown(shape: Shape) -> str:
    return "of unknown rank" if shape is None else str(tuple(shape))


def dtype_name(x: Any) -> str:
    """The name of an array's dtype, the same in every framework."""
    return _name(x.dtype)


def _name(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype)).removeprefix("torch.")
