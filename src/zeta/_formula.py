"""`Formula` and the decorator `formula`: an activation function, written once.

The file is private since a submodule called ``formula`` would overwrite ``zeta.formula``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zeta._backends import backend_for
from zeta._errors import NoResultError

if TYPE_CHECKING:
    import mpmath
    import sympy

    from zeta.nn import FormulaModule

Array = TypeVar("Array")

# The symbol of a single input, the keyword of `Formula.reference`, the first argument of methods.
_TAKEN = ("x", "digits", "self")


class Formula:
    """An elementwise function of one input or several, and of named scalar parameters.

    Made by the decorator :func:`formula`; calling it evaluates the formula on whatever its inputs
    are: PyTorch or TensorFlow tensors, JAX or NumPy arrays, Python numbers, SymPy expressions or
    mpmath numbers.

    Numerics, the same on every framework: the result has the dtype of the inputs; half-precision
    inputs are computed in float32 and rounded once; an input of ±inf gives the limit where there
    is one; NaN gives NaN.

    Attributes:
        name: the function's name.
        function: the plain Python function that was decorated.
        inputs: names of the inputs, in the order of the signature.
        parameters: parameter name -> default value, in the order of the signature.
    """

    # The formula of which this one has other defaults.
    _origin: Formula | None = None

    def __init__(
        self, function: Callable[..., Any], parameters: Mapping[str, float] | None = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = function.__name__
        self.parameters: Mapping[str, float] = _checked_parameters(function, parameters or {})
        arguments = inspect.signature(function).parameters
        self.inputs: tuple[str, ...] = tuple(a for a in arguments if a not in self.parameters)
        self.__signature__ = _with_defaults(inspect.signature(function), self.parameters)

    @overload
    def __call__(self, x: Array, /, *args: Any, **kwargs: Any) -> Array: ...

    @overload
    def __call__(self, **kwargs: Any) -> Any: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate: the inputs, then parameters; by position or name, a number or an array each.

        Raises:
            TypeError: an input is missing, or as :meth:`bind`.
        """
        inputs, values = self.arguments(*args, **kwargs)
        return backend_for(*inputs, *values.values()).evaluate(self, inputs, values)

    def arguments(self, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs of a call, and every parameter's value by name.

        Raises:
            TypeError: as a call.
        """
        count = len(self.inputs)
        if len(args) < count:
            args = self._inputs_by_name(args, kwargs)
        return args[:count], self.bind(*args[count:], **kwargs)

    def _inputs_by_name(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All inputs: those given by position, and those that are taken from ``named``."""
        missing = [name for name in self.inputs[len(given) :] if name not in named]
        if not missing:
            return (*given, *(named.pop(name) for name in self.inputs[len(given) :]))
        came = len(self.inputs) - len(missing)
        hint = ""
        if len(self.inputs) > 1:
            hint = f"; if {missing[-1]!r} is a parameter, write @formula({missing[-1]}=1.0)"
        raise TypeError(
            f"{self!r} takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), got {came}{hint}"
        )

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
    def clamped_sides(self) -> tuple[tuple[bool, bool], ...]:
        """Whether each input must be kept finite, below and above, for limits at -inf and +inf.

        Written with plain products, a gated formula is 0·inf = NaN at one end although it tends
        to a finite limit there: x·sigmoid(x) at -inf, say. On such a side, x is clamped to the
        largest finite number. Decided at the default parameters, any other input being 1.
        """
        import mpmath

        def at(i: int, x: str) -> Any:
            inputs = [mpmath.mpf(x if k == i else 1) for k in range(len(self.inputs))]
            try:
                return self._result(inputs, self.parameters)
            except (ZeroDivisionError, OverflowError):  # what frameworks take for ±inf or NaN
                return mpmath.nan

        def is_clamped(i: int, sign: str) -> bool:
            return bool(mpmath.isnan(at(i, f"{sign}inf")) and mpmath.isfinite(at(i, f"{sign}1e30")))

        try:
            return tuple((is_clamped(i, "-"), is_clamped(i, "+")) for i in range(len(self.inputs)))
        except NoResultError:
            raise
        except Exception as error:
            raise TypeError(
                f"formula {self.name!r} must be written with arithmetic and zeta.math functions, "
                f"which run on every framework; on an mpmath number it raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def symbolic(self) -> sympy.Expr:
        """The formula as a SymPy expression in its inputs' and parameters' names (all real).

        A single input is ``x``, whatever the function calls it.

        Example:
            >>> from zeta.activations import silu
            >>> silu.symbolic()
            x*sigmoid(x)
        """
        import sympy

        symbols = {name: sympy.Symbol(name, real=True) for name in self.parameters}
        inputs = [sympy.Symbol(name, real=True) for name in self._shown_inputs]
        return sympy.sympify(self._result(inputs, symbols))

    @property
    def _shown_inputs(self) -> tuple[str, ...]:
        return self.inputs if len(self.inputs) > 1 else ("x",)

    def _result(self, inputs: Sequence[Any], parameters: Mapping[str, Any]) -> Any:
        """What the function returns, which must be something.

        Raises:
            NoResultError: it returned None.
        """
        result = self.function(*inputs, **parameters)
        if result is None:
            raise NoResultError(self.name)
        return result

    def latex(self, *, derivative: bool | str = False) -> str:
        r"""The formula, or its derivative, in LaTeX, constants to six digits.

        Args:
            derivative: the input or parameter to differentiate by; True for the first input.

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
            by = self._shown_inputs[0] if derivative is True else derivative
            expression = expression.diff(sympy.Symbol(by, real=True))
        expression = expression.expand(func=True, mul=False, multinomial=False)
        constants = expression.atoms(sympy.Float)
        short = {c: sympy.Integer(c) if int(c) == c else sympy.Float(c, 6) for c in constants}
        names = {symbol: _latex_name(symbol.name) for symbol in expression.free_symbols}
        # Words side by side would read as one.
        dot = "dot" if len(self.inputs) > 1 else None
        text: str = sympy.latex(expression.xreplace(short), symbol_names=names, mul_symbol=dot)
        return text

    def reference(self, *inputs: Any, digits: int = 50, **parameters: Any) -> mpmath.mpf:
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
            return self(*map(mpmath.mpf, inputs), **values)

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

    def softmax(self, x: Array, *args: Any, dim: int = -1, **kwargs: Any) -> Array:
        """The softmax of the formula: ``e^f(x) / Σ e^f(x)`` along a dimension of ``x``.

        One kernel each way on PyTorch's CPU tensors, with gradients by ``x`` and by parameters that
        are scalar tensors; plain operations elsewhere.

        Args:
            x: a PyTorch or TensorFlow tensor, or a JAX or NumPy array, floating point.
            args, kwargs: parameters, as in a call.
            dim: the dimension that sums to one.

        Returns:
            Probabilities of x's shape and dtype, computed in float32 for half types.

        Raises:
            TypeError: a formula of several inputs, or an x that is no floating-point array.
            IndexError: x has no such dimension.

        Example:
            >>> import torch
            >>> from zeta.activations import selu
            >>> selu.softmax(torch.tensor([-1.0, 0.0, 1.0]))
            tensor([0.0786, 0.2387, 0.6827])
        """
        return self._normalised(x, args, kwargs, dim, logs=False)

    def log_softmax(self, x: Array, *args: Any, dim: int = -1, **kwargs: Any) -> Array:
        """The logarithm of :meth:`softmax`, in log space: no probability underflows to log 0.

        Example:
            >>> import torch
            >>> from zeta.activations import softcap
            >>> softcap.log_softmax(torch.tensor([1000.0, 0.0]), cap=50.0)
            tensor([  0., -50.])
        """
        return self._normalised(x, args, kwargs, dim, logs=True)

    def _normalised(self, x: Any, args: Any, kwargs: Any, dim: int, logs: bool) -> Any:
        name = "log_softmax" if logs else "softmax"
        if len(self.inputs) != 1:
            raise TypeError(f"{name} needs a formula of one input, and {self!r} takes more")
        values = self.bind(*args, **kwargs)
        backend: Any = backend_for(x, *values.values())
        if not hasattr(backend, "softmax"):
            raise TypeError(f"{self.name}.{name} takes an array or tensor, got {type(x).__name__}")
        return backend.softmax(self, x, values, dim, logs)

    def with_defaults(self, **defaults: float) -> Formula:
        """This formula with other defaults.

        Raises:
            TypeError: a name that is no parameter, or a default that is no number.
            ValueError: a default that is infinite or NaN.

        Example:
            >>> from zeta.activations import softcap
            >>> softcap.with_defaults(cap=50.0)
            softcap(x, cap=50)
        """
        formula = Formula(self.function, self.bind(**defaults))
        formula._origin = self._origin or self
        return formula

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
        return f"{self.name}({', '.join([*self._shown_inputs, *defaults])})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Pickled by name, as functions are.
        if self._origin is None:
            return self.function.__qualname__
        return _with_defaults_of, (self._origin, dict(self.parameters))


@overload
def formula(function: Callable[..., Any], /) -> Formula: ...


@overload
def formula(**parameters: float) -> Callable[[Callable[..., Any]], Formula]: ...


def formula(
    function: Callable[..., Any] | None = None, /, **parameters: float
) -> Formula | Callable[[Callable[..., Any]], Formula]:
    """Turn a function of inputs and scalar parameters into a :class:`Formula`.

    An argument whose default is given to the decorator is a parameter; those before are inputs.
    The function's body uses arithmetic and the functions of :mod:`zeta.math`.

    Raises:
        TypeError: no input, an input after a parameter, or a default without a parameter.
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
        >>> @formula
        ... def swiglu(gate, value):
        ...     return gate * sigmoid(gate) * value
        >>> swiglu(0.0, 3.0)
        0.0
    """
    if function is not None:
        return Formula(function)
    return lambda function: Formula(function, parameters)


def _with_defaults_of(formula: Formula, defaults: Mapping[str, float]) -> Formula:
    return formula.with_defaults(**defaults)


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
    if unknown := [name for name in parameters if name not in arguments]:
        raise TypeError(f"{where}: {unknown[0]!r} has a default but is not an argument")
    inputs = list(itertools.takewhile(lambda name: name not in parameters, arguments))
    names = arguments[len(inputs) :]
    if not inputs:
        raise TypeError(f"{where} must take the input as its first argument")
    for name, argument in signature.items():
        written = argument.default
        if name not in parameters and (name in names or written is not inspect.Parameter.empty):
            value = 1.0 if written is inspect.Parameter.empty else written
            raise TypeError(f"{where}: no default for {name!r}; write @formula({name}={value!r})")
    if taken := [name for name in names if name in _TAKEN]:
        raise TypeError(f"{where}: {taken[0]!r} cannot be a parameter's name; choose another")
    for name, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{where}: the default of {name!r} must be a number, got {value!r}")
        if not math.isfinite(value):
            raise ValueError(f"{where}: the default of {name!r} must be finite, got {value!r}")
    return MappingProxyType({name: float(parameters[name]) for name in names})
