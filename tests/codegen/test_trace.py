"""Formula -> expressions: derivatives that do not cancel, factors in a safe order."""

import sympy

from zeta import activations, formula
from zeta.codegen.trace import (
    X,
    gradient_program,
    sigmoid_complement,
    tanh_derivative,
    unless_nan,
    value_program,
)
from zeta.math import minimum, sigmoid


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
