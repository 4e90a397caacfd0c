"""The decorator, what a formula refuses, and what follows from it."""

import copy
import math
import pickle

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy
import torch

import zeta.math as zm
from cases import SHARE_OR_ALL, name, rational
from zeta import Formula, activations, formula
from zeta._backends import jax, numpy, torch_plain
from zeta._errors import NoResultError


@formula(beta=1.0)
def swish(x, beta):
    """A user's formula."""
    return x * zm.sigmoid(beta * x)


@formula(scale=1.0)
def swiglu(gate, value, scale):
    return scale * (gate * zm.sigmoid(gate) * value)


def test_the_decorator_keeps_the_functions_identity():
    assert isinstance(swish, Formula)
    assert swish.name == "swish"
    assert swish.__doc__ == "A user's formula."
    assert repr(swish) == "swish(x, beta=1)"
    assert dict(swish.parameters) == {"beta": 1.0}


def test_it_pickles_and_copies_by_name():
    assert pickle.loads(pickle.dumps(activations.exo)) is activations.exo
    assert copy.deepcopy(activations.exo) is activations.exo


def power(k):
    return formula(scale=1.0)(lambda x, scale: scale * x**k)


cube = power(3)


def test_formulas_of_one_function_are_told_apart_and_pickle_by_their_names():
    square = power(2)
    x = torch.tensor([2.0])
    assert (square(x), cube(x)) == (4, 8)
    assert pickle.loads(pickle.dumps(cube)) is cube
    assert pickle.loads(pickle.dumps(cube.module(learnable=True)))(x) == 8
    with pytest.raises(pickle.PicklingError, match=r"keep it under one in .*, as in `mine = power"):
        pickle.dumps(square)


def test_one_call_for_every_framework():
    x = torch.tensor([-1.5, 2.0], dtype=torch.float64)
    expected = x * torch.sigmoid(2 * x)
    torch.testing.assert_close(swish(x, 2.0), expected)
    torch.testing.assert_close(swish(x, beta=torch.tensor(2.0)), expected)
    np.testing.assert_allclose(swish(x.numpy(), 2.0), expected.numpy())
    assert swish(2.0, 2.0) == pytest.approx(expected[1].item())
    assert float(swish(mpmath.mpf(2), 2)) == pytest.approx(expected[1].item())
    assert swish.symbolic().free_symbols == {sympy.Symbol(s, real=True) for s in ("x", "beta")}


def test_a_tensor_parameter_decides_the_framework():
    assert isinstance(swish.function(2.0, torch.tensor(1.0)), torch.Tensor)
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, got float"):
        swish(2.0, torch.tensor(1.0))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1.0, 2.0), {}, "takes 1 parameters, got 2"),
        ((), {"gamma": 1.0}, "'gamma' is not a parameter"),
        ((1.0,), {"beta": 1.0}, "'beta' is given twice"),
    ],
)
def test_wrong_parameters_are_named(args, kwargs, message):
    with pytest.raises(TypeError, match=message):
        swish(1.0, *args, **kwargs)


def test_definitions_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match=r"no default for 'value'; write @formula\(value=1\.0\)"):
        formula(beta=1.0)(lambda x, beta, value: x)
    with pytest.raises(TypeError, match="'gamma' has a default but is not an argument"):
        formula(gamma=1.0)(lambda x: x)
    with pytest.raises(TypeError, match="the default of 'beta' must be a number"):
        formula(beta="1")(lambda x, beta: x)
    with pytest.raises(TypeError, match=r"no default for 'a'; write @formula\(a=2\.0\)"):
        formula(lambda x, a=2.0: x)
    with pytest.raises(ValueError, match="the default of 'beta' must be finite, got inf"):
        formula(beta=float("inf"))(lambda x, beta: x)
    for taken in ("x", "digits", "self"):
        with pytest.raises(TypeError, match=f"{taken!r} cannot be a parameter's name"):
            formula(**{taken: 1.0})(eval(f"lambda t, {taken}: t"))
    with pytest.raises(TypeError, match="must take the input"):
        formula(lambda: 0.0)


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
def test_tensors_that_are_not_floating_point_are_refused(dtype):
    with pytest.raises(TypeError, match=rf"exo: input must be a floating-point tensor .* {dtype}"):
        activations.exo(torch.ones(3).to(getattr(torch, dtype)))


def test_arrays_that_are_not_floating_point_are_refused():
    with pytest.raises(TypeError, match=r"exo: input must be a floating-point array .* got int64"):
        activations.exo(np.arange(3))
    with pytest.raises(TypeError, match=r"expected a number or an array of .* got builtins\.str"):
        activations.exo("x")


def test_numpy_parameters_are_checked():
    x = np.ones(3)
    with pytest.raises(TypeError, match="exo: alpha must be a number or an array, got NoneType"):
        activations.exo(x, None)
    with pytest.raises(ValueError, match=r"alpha of shape \(2, 3\) does not broadcast"):
        activations.exo(x, np.ones((2, 3)))
    with pytest.raises(TypeError, match=r"got (longdouble|float128)"):
        activations.exo(x.astype(np.longdouble))
    with pytest.raises(ValueError, match=r"one value per element of x, shape \(3,\)"):
        formula(lambda x: 1.0)(x)


def test_parameters_that_do_not_broadcast_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"alpha of shape \(2,\) does not broadcast .* \(2, 3\)"):
        activations.exo(x, torch.ones(2))
    with pytest.raises(ValueError, match=r"alpha of shape \(4, 2, 3\) does not broadcast"):
        activations.exo(x, torch.ones(4, 2, 3))
    with pytest.raises(TypeError, match=r"exo: alpha must be a number or a torch\.Tensor, got str"):
        activations.exo(x, "1.0")
    with pytest.raises(TypeError, match="exo: alpha must be a floating-point tensor"):
        activations.exo(x, torch.ones(3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arrays", "ones"),
    [(numpy.ARRAYS, np.ones), (torch_plain.ARRAYS, torch.ones), (jax.ARRAYS, jnp.ones)],
)
def test_several_inputs_broadcast_and_have_one_dtype(arrays, ones):
    column, row = ones((2, 1)), ones((3,))
    assert swiglu(column, row).shape == (2, 3)
    with pytest.raises(ValueError, match=r"shapes \(2, 1\) and \(3, 2\) do not broadcast"):
        swiglu(column, ones((3, 2)))
    half = arrays.cast(row, next(iter(arrays.dtypes)))
    with pytest.raises(TypeError, match=r"inputs must have one dtype, got .*float16.*float"):
        swiglu(column, half)
    with pytest.raises(TypeError, match="swiglu: value must be"):
        swiglu(column, None)


def test_inputs_by_position_and_name():
    assert swiglu.inputs == ("gate", "value")
    assert repr(swiglu) == "swiglu(gate, value, scale=1)"
    expected = swiglu(1.0, 2.0, 3.0)
    assert swiglu(1.0, value=2.0, scale=3.0) == expected
    assert swiglu(value=2.0, gate=1.0, scale=3.0) == expected
    with pytest.raises(TypeError, match=r"2 inputs \(gate, value\), got 1; if .value. is"):
        swiglu(1.0)
    with pytest.raises(TypeError, match=r"swish\(x, beta=1\) takes 1 inputs \(x\), got 0"):
        swish(beta=1.0)


def test_what_follows_from_a_formula_of_two_inputs():
    symbols = {sympy.Symbol(name, real=True) for name in ("gate", "value", "scale")}
    assert swiglu.symbolic().free_symbols == symbols
    assert r"\mathrm{gate}" in swiglu.latex(derivative="value")
    assert r"\mathrm{value}" not in swiglu.latex(derivative="value")
    assert swiglu.clamped_sides == ((True, False), (False, False))
    assert swiglu.reference("-inf", 2) == 0
    for value in (torch.tensor(2.0), np.float32(2), jnp.float32(2)):
        assert swiglu(value * -np.inf, value) == 0


@pytest.mark.parametrize("ones", [np.ones, torch.ones, jnp.ones])
def test_a_formula_that_asks_of_all_elements_is_told_what_to_write(ones):
    positive = formula(lambda x: x if isinstance(x, mpmath.mpf) or x > 0 else 0 * x)
    with pytest.raises(TypeError, match=r"asks of all of x .* write zeta\.math\.maximum"):
        positive(ones(3))


def test_a_formula_must_return_one_value_per_element():
    constant = formula(lambda x: 1.0)
    with pytest.raises(ValueError, match=r"one value per element of x, shape \(3,\); .* float"):
        constant(torch.ones(3))
    wider = formula(lambda x: x * torch.ones(2, 1) if isinstance(x, torch.Tensor) else x)
    with pytest.raises(ValueError, match=r"it returned shape \(2, 3\)"):
        wider(torch.ones(3))


@pytest.mark.parametrize(
    "use",
    [
        lambda f: f(1.0),
        lambda f: f(np.ones(3)),
        lambda f: f(torch.ones(3)),
        lambda f: f.reference(1),
        lambda f: f.latex(),
    ],
)
def test_a_forgotten_return_is_named(use):
    def no_return(x):
        x * 2

    with pytest.raises(
        NoResultError, match=r"'no_return' returned None: end .* `return`"
    ) as caught:
        use(formula(no_return))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_body_tied_to_one_framework_is_refused():
    total = formula(lambda x: x.relu())
    with pytest.raises(TypeError, match=r"written with arithmetic and zeta\.math .*'relu'"):
        total(torch.ones(3))


def test_the_result_has_the_inputs_dtype():
    x = torch.ones(3, 2)
    parameter = torch.ones(2, dtype=torch.float64, requires_grad=True)
    y = swish(x, parameter)
    assert y.dtype == torch.float32
    y.sum().backward()
    assert parameter.grad.dtype == torch.float64


@pytest.mark.parametrize("f", SHARE_OR_ALL, ids=name)
def test_latex_is_short_and_complete(f):
    text = f.latex()
    assert "x" in text
    for parameter in f.parameters:
        # Perhaps only a surrogate has it.
        latex = sympy.latex(sympy.Symbol(parameter.rstrip("_"))).split("_")[0]
        assert latex in text or latex in f.latex(derivative=True)
    assert "0.7071067" not in text


@pytest.mark.parametrize("f", SHARE_OR_ALL, ids=name)
def test_torch_compile_export_and_functorch_take_the_formula(f):
    x = torch.randn(4, 3)
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: f(x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), f(x))
    exported = torch.export.export(f.module(), (x,)).module()
    torch.testing.assert_close(exported(x), f(x))
    slope = torch.func.vmap(torch.func.vmap(torch.func.grad(lambda x: f(x))))(x)
    _, tangent = torch.func.jvp(f, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, tangent)


def test_other_defaults():
    softer = activations.softcap.with_defaults(cap=50.0)
    assert repr(softer) == "softcap(x, cap=50)"
    assert softer(20.0) == activations.softcap(20.0, cap=50.0) != activations.softcap(20.0)
    assert dict(activations.softcap.parameters) == {"cap": 30.0}
    again = pickle.loads(pickle.dumps(softer.with_defaults(cap=60.0)))
    assert dict(again.parameters) == {"cap": 60.0}
    assert copy.deepcopy(softer).parameters == softer.parameters
    with pytest.raises(TypeError, match="'top' is not a parameter"):
        activations.softcap.with_defaults(top=1.0)
    with pytest.raises(ValueError, match="the default of 'cap' must be finite"):
        activations.softcap.with_defaults(cap=math.inf)


ONES, TWOS = (1.0,) * 6, (2.0,) * 4


def test_a_vector_is_a_tuple_in_the_body_and_follows_everywhere():
    assert repr(rational).endswith("denominator=(0.1, 0.2, -0.05, 0.02))")
    assert rational.scalars[5:7] == ("numerator_5", "denominator_0")
    assert rational.learnable == tuple(rational.parameters) == ("numerator", "denominator")
    assert rational.latex(derivative="numerator_1").startswith(r"\frac{x}{")
    assert rational.latex(derivative="numerator_1").count(r"\mathrm{denominator}_{3}") == 1
    expected = 6 / (1 + 8)
    assert rational(1.0, ONES, [*TWOS]) == pytest.approx(expected)
    assert rational.reference(1, numerator=ONES, denominator=TWOS) == pytest.approx(expected)
    for make in (np.array, torch.tensor, jnp.array):
        x, ones = make([1.0, 0.0]), make(ONES)
        per_channel = ones[:, None] * make([1.0, 3.0])
        mixed = (*ONES[:5], make([1.0, 1.0]))
        for numerator, last in ((ones, 1), (per_channel, 3), (mixed, 1)):
            y = np.asarray(rational(x, numerator, TWOS))
            np.testing.assert_allclose(y, [expected, last], rtol=1e-6)
    y = rational.softmax(torch.tensor([1.0, 0.0]), torch.tensor(ONES), TWOS)
    assert y[0].item() == pytest.approx(1 / (1 + math.exp(1 - expected)))


def test_other_defaults_may_have_another_length():
    smaller = rational.with_defaults(numerator=(0.0, 1.0), denominator=(1.0,))
    assert smaller.scalars == ("numerator_0", "numerator_1", "denominator_0")
    again = pickle.loads(pickle.dumps(smaller))
    x = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(again(x), x / (1 + x.abs()))
    assert again.learnable == rational.learnable


def test_wrong_vectors_are_named():
    x = torch.randn(4, 3)
    for value, error, message in (
        (1.0, TypeError, "numerator must be a tuple of 6 numbers or tensors, or one array .* 1.0"),
        (ONES[1:], ValueError, "numerator must have length 6, got 5"),
        (torch.ones(5), ValueError, r"must have length 6 in its first dimension, .* \(5,\)"),
        (torch.ones(()), ValueError, r"must have length 6 in its first dimension, got shape \(\)"),
        (torch.ones(6, 4), ValueError, r"each number of numerator of shape \(4,\) does not broad"),
        ((*ONES[1:], torch.ones(4)), ValueError, r"each number of numerator of shape \(4,\) does"),
        ((*ONES[2:], torch.ones(3), torch.ones(4, 1, 2)), ValueError, r"numerator\[5\] of shape"),
        ((*ONES[1:], "1"), TypeError, r"numerator\[5\] must be a number or .*, got str"),
    ):
        with pytest.raises(error, match=message):
            rational(x, value)
    for defaults, error, message in (
        ({"c": ()}, ValueError, "the default of 'c' must have at least one number"),
        ({"c": (1.0, "2")}, TypeError, r"the default of 'c\[1\]' must be a number, got '2'"),
        ({"c": (math.inf,)}, ValueError, r"the default of 'c\[0\]' must be finite"),
    ):
        with pytest.raises(error, match=message):
            formula(**defaults)(lambda x, c: x)
    with pytest.raises(TypeError, match="'c_0' is the name of a number of 'c'"):
        formula(c=(1.0,), c_0=2.0)(lambda x, c, c_0: x)


def test_which_parameters_are_learned():
    assert formula(a=1.0, b=2.0, learnable=["b"])(lambda x, a, b: x).learnable == ("b",)
    assert swish.learnable == ()
    with pytest.raises(TypeError, match="learnable='b' is not a parameter; it has a"):
        formula(a=1.0, learnable="b")(lambda x, a: x)
    with pytest.raises(TypeError, match="'learnable' says which parameters are trained"):
        formula(learnable=1.0)(lambda x, learnable: x)


@pytest.mark.parametrize("logs", [False, True])
@pytest.mark.parametrize("make", [torch.tensor, np.array, jnp.array], ids=["torch", "numpy", "jax"])
@pytest.mark.parametrize("f", activations.LOGITS.values(), ids=lambda f: f.name)
def test_softmax_on_every_framework(f, make, logs):
    rows = [[0.5, -3.0, 2.0], [4.0, 4.0, -1.0]]
    for dim in (0, -1):
        value = f.function(torch.tensor(rows, dtype=torch.float64), **f.parameters)
        expected = (torch.log_softmax if logs else torch.softmax)(value, dim)
        y = (f.log_softmax if logs else f.softmax)(make(rows), dim=dim)
        assert type(y) is type(make(rows))
        np.testing.assert_allclose(np.asarray(y), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_softmax_of_what_has_none():
    with pytest.raises(TypeError, match="softmax needs a formula of one input, and swiglu"):
        activations.swiglu.softmax(torch.ones(3))
    with pytest.raises(
        TypeError, match=r"softcap\.log_softmax takes an array or tensor, got float"
    ):
        activations.softcap.log_softmax(1.0)
    with pytest.raises(TypeError, match="input must be a floating-point tensor"):
        activations.softcap.softmax(torch.arange(3))
    with pytest.raises(IndexError, match="Dimension out of range"):
        activations.softcap.softmax(torch.ones(3), dim=1)
