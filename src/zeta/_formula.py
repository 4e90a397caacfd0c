"""`Formula` and the decorator `formula`: an activation function, written once.

The file is private since a submodule called ``formula`` would overwrite ``zeta.formula``.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zeta._errors import NoResultError

if TYPE_CHECKING:
    import mpmath
    import sympy

    from zeta.nn import FormulaModule

Array = TypeVar("Array")

# The input's symbol, the keyword of `Formula.reference`, and the first argument of its methods.
_TAKEN = ("x", "digits", "self")


class Formula:
    """An elementwise function of ``x`` and named scalar parameters.

    Made by the decorator :func:`formula`; calling it evaluates the formula on whatever ``x`` is:
    a PyTorch or TensorFlow tensor, a JAX or NumPy array, a Python number, a SymPy expression or an
    mpmath number.

    Numerics, the same on every framework: the result has the dtype of ``x``; half-precision
    inputs are computed in float32 and rounded once; ``x = ±inf`` gives the limit where there is
    one; NaN gives NaN.

    Attributes:
        name: the function's name.
        function: the plain Python function that was decorated.
        inputs: the name of the input, in a tuple.
        parameters: parameter name -> default value, in the order of the signature.
    """

    def __init__(
        self, function: Callable[..., Any], parameters: Mapping[str, float] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = function.__name__
        self.inputs: tuple[str, ...] = tuple(inspect.signature(function).parameters)[:1]
        self.parameters: Mapping[str, float] = _checked_parameters(function, parameters or {})
        self.__signature__ = _with_defaults(inspect.signature(function), self.parameters)

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Array:
        """Evaluate at ``x``; parameters by position or name, a number or an array each."""
        from zeta._backends import backend_for

        values = self.bind(*args, **kwargs)
        result: Array = backend_for(x, *values.values()).evaluate(self, (x,), values)
        return result

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The value of every parameter: what was given, else its default.

        Raises:
            TypeError: too many values, or a name that is not a parameter.
        """
        if not args and not kwargs:
            return dict(self.parameters)
        names = tuple(self.parameters)
        if len(args) == len(names) and not kwargs:
            return dict(zip(names, args, strict=True))
        if len(args) > len(names):
            raise TypeError(f"{self!r} takes {len(names)} parameters, got {len(args)}")
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters or name in values:
                problem = "given twice" if name in values else "not a parameter"
                raise TypeError(f"{self!r}: {name!r} is {problem}")
            values[name] = value
        return {name: values.get(name, default) for name, default in self.parameters.items()}

    @functools.cached_property
    def clamped_sides(self) -> tuple[bool, bool]:
        """Whether ``x`` must be kept finite below and above for f(-inf) and f(+inf) to be limits.

        Written with plain products, a gated formula is 0·inf = NaN at one end although it tends
        to a finite limit there: x·sigmoid(x) at -inf, say. On such a side, x is clamped to the
        largest finite number. Decided at the default parameters.
        """
        import mpmath

        def at(x: Any) -> Any:
            try:
                return self._result(mpmath.mpf(x), self.parameters)
            except (ZeroDivisionError, OverflowError):  # what frameworks take for ±inf or NaN
                return mpmath.nan

        try:
            below, above = (
                bool(mpmath.isnan(at(f"{sign}inf")) and mpmath.isfinite(at(f"{sign}1e30")))
                for sign in "-+"
            )
        except NoResultError:
            raise
        except Exception as error:
            raise TypeError(
                f"formula {self.name!r} must be written with arithmetic and zeta.math functions, "
                f"which run on every framework; on an mpmath number it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        return below, above

    def symbolic(self) -> sympy.Expr:
        """The formula as a SymPy expression in ``x`` and its parameters' names (all real).

        Example:
            >>> from zeta.activations import silu
            >>> silu.symbolic()
            x*sigmoid(x)
        """
        import sympy

        symbols = {name: sympy.Symbol(name, real=True) for name in self.parameters}
        return sympy.sympify(self._result(sympy.Symbol("x", real=True), symbols))

    def _result(self, x: Any, parameters: Mapping[str, Any]) -> Any:
        """What the function returns, which must be something.

        Raises:
            NoResultError: it returned None.
        """
        result = self.function(x, **parameters)
        if result is None:
            raise NoResultError(self.name)
        return result

    def latex(self, *, derivative: bool = False) -> str:
        r"""The formula, or its derivative by ``x``, in LaTeX, constants to six digits.

        Example:
            >>> from zeta.activations import silu
            >>> print(silu.latex())
            x \sigma\left(x\right)
            >>> print(silu.latex(derivative=True))
            x \sigma\left(- x\right) \sigma\left(x\right) + \sigma\left(x\right)
        """
        import sympy

        expression = self.symbolic()
        if derivative:
            expression = expression.diff(sympy.Symbol("x", real=True))
        expression = expression.expand(func=True, mul=False, multinomial=False)
        constants = expression.atoms(sympy.Float)
        short = {c: sympy.Integer(c) if int(c) == c else sympy.Float(c, 6) for c in constants}
        names = {symbol: _latex_name(symbol.name) for symbol in expression.free_symbols}
        text: str = sympy.latex(expression.xreplace(short), symbol_names=names)
        return text

    def reference(self, x: Any, *, digits: int = 50, **parameters: Any) -> mpmath.mpf:
        """The value at one point, computed by mpmath with ``digits`` decimal digits.

        What the tests compare every kernel and framework with.

        Example:
            >>> from zeta.activations import tanh
            >>> float(tanh.reference(1))
            0.7615941559557649
        """
        import mpmath

        with mpmath.workdps(digits):
            values = {k: mpmath.mpf(v) for k, v in self.bind(**parameters).items()}
            return self(mpmath.mpf(x), **values)

    def module(
        self, learnable: bool = False, num_parameters: int = 1, channel_dim: int = 1
    ) -> FormulaModule:
        """This formula as a :class:`torch.nn.Module`.

        Args:
            learnable: make every parameter an ``nn.Parameter``, starting at its default.
            num_parameters: 1, or the number of channels for one set of values per channel.
            channel_dim: the dimension of the input that holds the channels.

        Example:
            >>> import torch
            >>> from zeta.activations import elu
            >>> elu.module(learnable=True)(torch.tensor([-1.0, 2.0])).detach()
            tensor([-0.6321,  2.0000])
        """
        from zeta.nn import FormulaModule

        return FormulaModule(
            self, learnable=learnable, num_parameters=num_parameters, channel_dim=channel_dim
        )

    def explain(self) -> None:
        """Print what runs where, and where it is no kernel, why; what is saved; the limits.

        Example:
            >>> from zeta import formula
            >>> @formula
            ... def decided(x):
            ...     return x if x > 0 else 0.1 * x
            >>> decided.explain()  # doctest: +ELLIPSIS
            formula             decided(x)
            ...
            CPU                 plain operations: a kernel decides nothing for all elements at ...
        """
        from zeta._explain import explain

        for label, finding in explain(self).items():
            print(f"{label:<18}  {finding}")

    def __repr__(self) -> str:
        defaults = (f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.name}({', '.join(['x', *defaults])})"

    def __reduce__(self) -> str:
        # Pickled by name, as functions are.
        return self.function.__qualname__


@overload
def formula(function: Callable[..., Any], /) -> Formula: ...


@overload
def formula(**parameters: float) -> Callable[[Callable[..., Any]], Formula]: ...


def formula(
    function: Callable[..., Any] | None = None, /, **parameters: float
) -> Formula | Callable[[Callable[..., Any]], Formula]:
    """Turn a function of ``x`` and scalar parameters into a :class:`Formula`.

    The function's first argument is the input; each further one is a parameter, whose default is
    given to the decorator. Its body uses arithmetic and the functions of :mod:`zeta.math`.

    Raises:
        TypeError: a parameter without a default, or a default without a parameter.
        ValueError: a default that is infinite or NaN.

    Example:
        >>> from zeta import formula
        >>> from zeta.math import sigmoid
        >>> @formula(beta=1.0)
        ... def swish(x, beta):
        ...     return x * sigmoid(beta * x)
        >>> swish
        swish(x, beta=1)
        >>> swish(2.0, beta=0.0)
        1.0
    """
    if function is not None:
        return Formula(function)
    return lambda function: Formula(function, parameters)


def _latex_name(name: str) -> str:
    """A single letter or a Greek letter as itself, anything else as upright text."""
    import sympy

    latex: str = sympy.latex(sympy.Symbol(name.rstrip("_")))
    is_letter = len(latex) == 1 or latex.startswith("\\")
    return latex if is_letter else r"\mathrm{{{}}}".format(name.replace("_", r"\_"))


def _with_defaults(
    signature: inspect.Signature, parameters: Mapping[str, float]
) -> inspect.Signature:
    """The function's signature as callers see it: defaults are given to the decorator."""
    arguments = signature.parameters.values()
    return signature.replace(
        parameters=[a.replace(default=parameters.get(a.name, a.empty)) for a in arguments]
    )


def _checked_parameters(
    function: Callable[..., Any], parameters: Mapping[str, float]
) -> Mapping[str, float]:
    """Defaults in the order of the signature, which must name exactly these parameters."""
    where = f"formula {function.__name__!r}"
    signature = inspect.signature(function).parameters
    arguments = list(signature)
    if not arguments:
        raise TypeError(f"{where} must take the input as its first argument")
    names = arguments[1:]
    if missing := [name for name in names if name not in parameters]:
        written = signature[missing[0]].default
        value = 1.0 if written is inspect.Parameter.empty else written
        raise TypeError(
            f"{where}: no default for {missing[0]!r}; write @formula({missing[0]}={value!r})"
        )
    if unknown := [name for name in parameters if name not in names]:
        raise TypeError(f"{where}: {unknown[0]!r} has a default but is not an argument")
    if taken := [name for name in names if name in _TAKEN]:
        raise TypeError(f"{where}: {taken[0]!r} cannot be a parameter's name; choose another")
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{where}: the default of {name!r} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{where}: the default of {name!r} must be finite, got {value!r}")
    return MappingProxyType({name: float(parameters[name]) for name in names})
