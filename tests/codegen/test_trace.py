"""Formula -> expressions: derivatives that do not cancel, factors in a safe order."""

import math

import pytest
import sympy
import torch

from zeta import activations, formula
from zeta._backends.torch import evaluate_plain
from zeta.codegen.trace import (
    X,
    gradient_program,
    sigmoid_complement,
    tanh_derivative,
    unless_nan,
    value_program,
)
from zeta.math import maximum, minimum, sigmoid, tanh


def whole(program, expression):
    """The expression with every shared symbol put back."""
    for symbol, meaning in reversed(program.statements):
        expression = expression.subs(symbol, meaning)
    return expression


def test_one_minus_a_gate_does_not_cancel():
    program = value_program(activations.exo, {})
    assert whole(program, program.value).has(sigmoid_complement)


def test_tanh_is_differentiated_without_a_difference():
    program = gradient_program(activations.tanh, {}, ("x",))
    assert program.slope == tanh_derivative(X)


def test_a_constant_parameter_is_gone():
    program = value_program(activations.exo, {"alpha": 1.0})
    assert program.parameters == ()
    assert whole(program, program.value).free_symbols == {X}


def test_only_what_is_wanted_is_computed():
    program = gradient_program(activations.laplace, {}, ("sigma",))
    assert program.slope is None
    assert [gradient.parameter for gradient in program.gradients] == ["sigma"]


def test_factors_without_x_are_taken_out_of_the_sum():
    program = gradient_program(activations.learnable_selu_variation, {}, ("gamma",))
    (gradient,) = program.gradients
    assert gradient.factor == sympy.Symbol("lambda_", real=True)
    assert gradient.term.free_symbols.isdisjoint(gradient.factor.free_symbols)


def test_bounded_factors_come_first():
    alpha = sympy.Symbol("alpha", real=True)
    program = value_program(activations.exo, {})
    product = X * alpha * sympy.tanh(X) * (X + 1)
    bounded, invariant, other = program.ordered_factors(product)
    assert bounded == [sympy.tanh(X)]
    assert invariant == [alpha]
    assert set(other) == {X, X + 1}


def test_a_constant_branch_keeps_nan():
    program = value_program(activations.relu, {})
    assert whole(program, program.value).has(unless_nan)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extrema_within_extrema_keep_nan_and_have_slopes(dtype):
    @formula(low=-0.5)
    def bounded(x, low):
        return minimum(maximum(x, low), 1.5) * maximum(low, 0.25 + x)

    gradient_program(bounded, {}, ("x", "low"))  # else the plain formula would run below
    x = torch.tensor([-2.0, 0.3, 1.2, 7.0], dtype=dtype, requires_grad=True)
    low = torch.tensor(-0.5, dtype=dtype, requires_grad=True)
    y, plain = bounded(x, low), evaluate_plain(bounded, x, {"low": low})
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close(
        torch.autograd.grad(y.sum(), (x, low)), torch.autograd.grad(plain.sum(), (x, low))
    )
    assert bounded(torch.tensor([math.nan], dtype=dtype)).isnan()


def test_minimum_is_recognised():
    @formula
    def capped(x):
        return minimum(x, sigmoid(x))

    program = value_program(capped, {})
    assert type(whole(program, program.value)).__name__ == "minimum"


def test_numbers_are_not_distributed_over_sums():
    # (x + 3)/6 is exactly 0 at -3; x/6 + 1/2 is not, and a huge factor would show it.
    program = value_program(activations.hardswish, {})
    assert sympy.Rational(1, 6) in whole(program, program.value).args


@formula(k=3.0)
def gated_power(x, k):
    return sigmoid(x) * abs(x) ** k


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_power_has_finite_slopes_at_zero(dtype):
    """SymPy's k·x^k/x is 0/0 there, and x^k·log(x) is 0·inf."""
    gradient_program(gated_power, {}, ("x", "k"))  # else the plain formula would run below
    x = torch.tensor([-1.0, 0.0, 2.5], dtype=dtype, requires_grad=True)
    k = torch.tensor(3.0, dtype=dtype, requires_grad=True)
    fused = torch.autograd.grad(gated_power(x, k).sum(), (x, k))
    plain = torch.autograd.grad(evaluate_plain(gated_power, x, {"k": k}).sum(), (x, k))
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_formula_that_grows_without_end_has_no_kernel():
    @formula
    def nested(x):
        for _ in range(20):
            x = tanh(x) + x * x
        return x

    with pytest.warns(
        RuntimeWarning, match=r"nested runs as plain operations: written out, .* 10,000"
    ):
        nested(torch.ones(3))


def test_a_function_that_kernels_do_not_know_has_no_kernel():
    @formula
    def sawtooth(x):
        return x % 2 + x

    with pytest.warns(RuntimeWarning, match="sawtooth runs as plain operations: .* Mod"):
        y = sawtooth(torch.tensor([2.5]))
    assert y.item() == 3.0
