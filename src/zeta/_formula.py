"""`Formula` and the decorator `formula`: an activation function, written once.

The file is private since a submodule called ``formula`` would overwrite ``zeta.formula``.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zeta._backends import backend_for
from zeta._errors import NoResultError

if TYPE_CHECKING:
    import mpmath
    import sympy

    from zeta._facts import Facts
    from zeta.nn import FormulaModule

Array = TypeVar("Array")
T = TypeVar("T")
# A scalar parameter's default, or a vector's.
Default = float | tuple[float, ...]

# The symbol of a single input, the keyword of `Formula.reference`, the first argument of methods.
_TAKEN = ("x", "digits", "self")
_VECTOR = "a tuple of {} numbers or tensors, or one array whose first dimension is {}"


class Formula:
    """An elementwise function of one input or several, and of named parameters.

    A parameter is a scalar, or a vector: then the function is given a tuple of scalars, and a call
    takes a tuple, or one array with the vector's length as its first dimension. A scalar of a call
    is a number, or an array that broadcasts to the inputs.

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
        parameters: parameter name -> default value, in the order of the signature: a number, or of
            a vector a tuple of numbers.
        learnable: names of the parameters that modules train unless told otherwise.
        vectors: names of the vectors -> their length.
        scalars: names of all scalars, each vector's one by one: ``coefficients_0`` and so on.
    """

    # The formula of which this one has other defaults.
    _origin: Formula | None = None

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Mapping[str, float | Sequence[float]] | None = None,
        learnable: bool | Iterable[str] = False,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = function.__name__
        self.parameters: Mapping[str, Any] = _checked_parameters(function, parameters or {})
        self.vectors: Mapping[str, int] = MappingProxyType(
            {name: len(value) for name, value in self.parameters.items() if type(value) is tuple}
        )
        self.scalars: tuple[str, ...] = tuple(_scalars(self.parameters))
        _check_scalars(self)
        self.learnable: tuple[str, ...] = self.learned(learnable)
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
        return self._backend(inputs, values).evaluate(self, inputs, values)

    def _backend(self, inputs: tuple[Any, ...], values: Mapping[str, Any]) -> Any:
        parameters: Iterable[Any] = values.values()
        return backend_for(*inputs, *(_members(parameters) if self.vectors else parameters))

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
        """The value of every parameter: what was given, else its default; a list as a tuple.

        Raises:
            TypeError: too many values, a name that is not a parameter, or one number for a vector.
            ValueError: a vector of another length.
        """
        values = self._named(args, kwargs)
        if self.vectors and (args or kwargs):
            values |= {name: self._vector(name, values[name]) for name in self.vectors}
        return values

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
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

    def _vector(self, name: str, value: Any) -> Any:
        """A vector's value; of an array, the framework knows the length."""
        length = self.vectors[name]
        if isinstance(value, list | tuple):
            if len(value) != length:
                raise ValueError(f"{self.name}: {name} must have length {length}, got {len(value)}")
            return tuple(value)
        if not hasattr(value, "shape"):
            accepted = _VECTOR.format(length, length)
            raise TypeError(f"{self.name}: {name} must be {accepted}; got {value!r}")
        return value

    def grouped(self, scalars: Mapping[str, T]) -> dict[str, T | tuple[T, ...]]:
        """Values by the names of :attr:`scalars` as the function takes them, vectors as tuples."""
        return {
            name: tuple(scalars[s] for s in self.scalars_of(name))
            if name in self.vectors
            else scalars[name]
            for name in self.parameters
        }

    def flat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same the other way, from values by the names of :attr:`parameters`."""
        return dict(zip(self.scalars, _members(values[n] for n in self.parameters), strict=True))

    def members(self, values: Mapping[str, Any]) -> Iterator[Any]:
        """The values of a call, those of a tuple one by one."""
        return _members(values.values())

    def scalars_of(self, name: str) -> tuple[str, ...]:
        """The names in :attr:`scalars` of one parameter."""
        return tuple(_scalars({name: self.parameters[name]}))

    def learned(self, learnable: bool | Iterable[str] | None) -> tuple[str, ...]:
        """The names of the parameters to train: all, none, these, or for None the formula's own.

        Raises:
            TypeError: a name that is not a parameter.
        """
        if learnable is None:
            return self.learnable
        if isinstance(learnable, bool):
            return tuple(self.parameters) if learnable else ()
        names = (learnable,) if isinstance(learnable, str) else tuple(learnable)
        if unknown := [name for name in names if name not in self.parameters]:
            raise TypeError(
                f"{self.name}: learnable={unknown[0]!r} is not a parameter; "
                f"it has {', '.join(self.parameters) or 'none'}"
            )
        return tuple(name for name in self.parameters if name in names)

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
        """The formula as a SymPy expression in its inputs' and scalars' names (all real).

        A single input is ``x``, whatever the function calls it.

        Example:
            >>> from zeta.activations import silu
            >>> silu.symbolic()
            x*sigmoid(x)
        """
        import sympy

        symbols = {name: sympy.Symbol(name, real=True) for name in self.scalars}
        inputs = [sympy.Symbol(name, real=True) for name in self._shown_inputs]
        return sympy.sympify(self._result(inputs, self.grouped(symbols)))

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
            derivative: the input or scalar to differentiate by; True for the first input.

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
            values = {
                name: tuple(map(mpmath.mpf, value)) if name in self.vectors else mpmath.mpf(value)
                for name, value in self.bind(**parameters).items()
            }
            return self(*map(mpmath.mpf, inputs), **values)

    def module(
        self,
        learnable: bool | Iterable[str] | None = None,
        num_parameters: int | Mapping[str, int] = 1,
        channel_dim: int = 1,
    ) -> FormulaModule:
        """This formula as a :class:`torch.nn.Module`.

        Args:
            learnable: make every parameter an ``nn.Parameter``, or those that are named, starting
                at their defaults; None for the formula's :attr:`learnable`.
            num_parameters: 1, the number of channels for one value per channel, or a divisor of it
                for one per group of neighbouring channels; by name where parameters differ.
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

        One kernel each way on PyTorch's tensors, with gradients by ``x`` and by parameters that are
        single values: C++ on the CPU, Triton on CUDA, there not for float64 (tested in Triton's
        interpreter, not measured on a device). Plain operations elsewhere.

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
        backend = self._backend((x,), values)
        if not hasattr(backend, "softmax"):
            raise TypeError(f"{self.name}.{name} takes an array or tensor, got {type(x).__name__}")
        return backend.softmax(self, x, values, dim, logs)

    def with_defaults(self, **defaults: float | Sequence[float]) -> Formula:
        """This formula with other defaults; those of a vector may have another length.

        Raises:
            TypeError: a name that is no parameter, or a default that is no number.
            ValueError: a default that is infinite or NaN.

        Example:
            >>> from zeta.activations import softcap
            >>> softcap.with_defaults(cap=50.0)
            softcap(x, cap=50)
        """
        formula = Formula(self.function, self._named((), defaults), self.learnable)
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

    def facts(self) -> Facts:
        """Limits, bounds, shape, moments over N(0, 1) and cost, from the formula; year and use.

        All but the last two is computed in float64 on points that reach to ±1e6, a two-thousandth
        apart within ±12: what happens between two of them is not seen.

        Raises:
            TypeError: a formula of several inputs.

        Example:
            >>> from zeta.activations import elu
            >>> found = elu.facts()
            >>> found.below, found.monotone, found.smoothness, found.bounded
            (-1.0, 'rising', 'smooth', False)
            >>> round(found.gain, 4), found.year
            (1.2452, 2016)
        """
        from zeta._facts import facts

        return facts(self)

    def __repr__(self) -> str:
        defaults = (f"{name}={shown(value)}" for name, value in self.parameters.items())
        return f"{self.name}({', '.join([*self._shown_inputs, *defaults])})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Pickled by name, as functions are.
        if self._origin is None:
            return self._name_to_import()
        return _with_defaults_of, (self._origin, dict(self.parameters))

    def _name_to_import(self) -> str:
        """The name under which its module has it; of one made within a function, any such name."""
        name = self.function.__qualname__
        if "<locals>" not in name:
            return name
        from pickle import PicklingError

        module = self.function.__module__
        for key, value in vars(sys.modules[module]).items():
            if value is self:
                return key
        raise PicklingError(
            f"formula {self.name!r} was made within a function, and pickles go by names: "
            f"keep it under one in {module}, as in `mine = {name.partition('.')[0]}(...)`"
        )


@overload
def formula(function: Callable[..., Any], /) -> Formula: ...


@overload
def formula(
    *, learnable: bool | Iterable[str] = False, **parameters: float | Sequence[float]
) -> Callable[[Callable[..., Any]], Formula]: ...


def formula(
    function: Callable[..., Any] | None = None,
    /,
    *,
    learnable: bool | Iterable[str] = False,
    **parameters: float | Sequence[float],
) -> Formula | Callable[[Callable[..., Any]], Formula]:
    """Turn a function of inputs and parameters into a :class:`Formula`.

    An argument whose default is given to the decorator is a parameter, those before are inputs. A
    tuple of numbers is the default of a vector, which the function is given as a tuple of scalars.
    The function's body uses arithmetic and the functions of :mod:`zeta.math`.

    Args:
        function: the function, where no parameter has to be named.
        learnable: whether modules train the parameters unless told otherwise, or which of them.
        parameters: their defaults.

    Raises:
        TypeError: no input, an input after a parameter, a default without a parameter, or a name
            in ``learnable`` that is none.
        ValueError: a default that is infinite or NaN, or a vector of no numbers.

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
        >>> @formula(coefficients=(0.0, 1.0, 0.5), learnable=True)
        ... def polynomial(x, coefficients):
        ...     return sum(c * x**i for i, c in enumerate(coefficients))
        >>> polynomial(2.0)
        4.0
    """
    if function is not None:
        return Formula(function, learnable=learnable)
    return lambda function: Formula(function, parameters, learnable)


def shown(value: Default) -> str:
    """A default as text, of few digits.

    Example:
        >>> from zeta._formula import shown
        >>> shown(0.5), shown((1.0, 0.25))
        ('0.5', '(1, 0.25)')
    """
    if not isinstance(value, tuple):
        return f"{value:g}"
    return f"({', '.join(f'{number:g}' for number in value)}{',' * (len(value) == 1)})"


def _members(values: Iterable[Any]) -> Iterator[Any]:
    """Each value, and a tuple's one by one."""
    for value in values:
        if isinstance(value, tuple):
            yield from value
        else:
            yield value


def _scalars(parameters: Mapping[str, Default]) -> Iterator[str]:
    for name, default in parameters.items():
        if isinstance(default, tuple):
            yield from (f"{name}_{i}" for i in range(len(default)))
        else:
            yield name


def _check_scalars(formula: Formula) -> None:
    """Raise TypeError if a vector's number is called like another argument."""
    names = [*formula.scalars, *inspect.signature(formula.function).parameters]
    for vector in formula.vectors:
        if taken := [name for name in formula.scalars_of(vector) if names.count(name) > 1]:
            raise TypeError(
                f"formula {formula.name!r}: {taken[0]!r} is the name of a number of {vector!r}; "
                "name the other argument otherwise"
            )


def _with_defaults_of(formula: Formula, defaults: Mapping[str, Default]) -> Formula:
    return formula.with_defaults(**defaults)


def _latex_name(name: str) -> str:
    """A single letter or a Greek letter as itself, anything else as upright text; and its index."""
    import sympy

    if found := re.fullmatch(r"(.*[^_\d])_(\d+)", name):
        return f"{_latex_name(found[1])}_{{{found[2]}}}"
    latex: str = sympy.latex(sympy.Symbol(name.rstrip("_")))
    is_letter = len(latex) == 1 or latex.startswith("\\")
    return latex if is_letter else r"\mathrm{{{}}}".format(name.replace("_", r"\_"))


def _with_defaults(
    signature: inspect.Signature, parameters: Mapping[str, Default]
) -> inspect.Signature:
    """The function's signature as callers see it: defaults are given to the decorator."""
    arguments = signature.parameters.values()
    return signature.replace(
        parameters=[a.replace(default=parameters.get(a.name, a.empty)) for a in arguments]
    )


def _checked_parameters(
    function: Callable[..., Any], parameters: Mapping[str, float | Sequence[float]]
) -> Mapping[str, Default]:
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
    if "learnable" in arguments:
        raise TypeError(
            f"{where}: 'learnable' says which parameters are trained, @formula(..., "
            "learnable=True), and cannot be an argument's name; choose another"
        )
    if taken := [name for name in names if name in _TAKEN]:
        raise TypeError(f"{where}: {taken[0]!r} cannot be a parameter's name; choose another")
    return MappingProxyType({n: _checked_default(where, n, parameters[n]) for n in names})


def _checked_default(where: str, name: str, value: Any) -> Default:
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"{where}: the default of {name!r} must have at least one number")
        return tuple(
            _checked_number(f"{where}: the default of '{name}[{i}]'", number)
            for i, number in enumerate(value)
        )
    return _checked_number(f"{where}: the default of {name!r}", value)


def _checked_number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what} must be finite, got {value!r}")
    return float(value)
