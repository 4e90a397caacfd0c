"""Formula -> program: derivatives that do not cancel, what is free of x out of the sums."""

import pytest
import torch

from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta.codegen.graph import ordered
from zeta.codegen.trace import gradient_program, value_program
from zeta.math import minimum, sigmoid, softplus, tanh


def operations(*nodes):
    return [node.op for node in ordered(nodes)]


def test_one_minus_a_gate_does_not_cancel():
    assert "sigmoid_complement" in operations(value_program(activations.exo, {}).stores[0])


def test_tanh_is_differentiated_without_a_difference():
    assert gradient_program(activations.tanh, {}, ("x",)).stores[0].op == "tanh_derivative"


def test_tanh_of_softplus_is_one_function():
    value = value_program(formula(lambda x: tanh(softplus(x))), {}).stores[0]
    assert value.op == "tanh_softplus"


def test_a_constant_parameter_is_gone():
    program = value_program(activations.exo, {"alpha": 1.0})
    assert program.parameters == ()
    assert program.stores[0].operands == {"x"}


def test_only_what_is_wanted_is_computed():
    program = gradient_program(activations.laplace, {}, ("sigma",))
    assert program.stores == ()
    assert [s.parameter for s in program.sums] == ["sigma"]


def test_a_factor_without_x_is_taken_out_of_the_sum_where_nothing_overflows_without_it():
    (gradient,) = gradient_program(activations.laplace, {}, ("sigma",)).sums
    assert gradient.factor.operands == {"sigma"}
    assert operations(gradient.term).count("divide") == 1  # in z
    cube = formula(a=1.0)(lambda x, a: a * x * x * x)
    assert gradient_program(cube, {}, ("x",)).stores[0].operands == {"x", "a"}
    (gradient,) = gradient_program(activations.learnable_selu_variation, {}, ("gamma",)).sums
    assert gradient.factor.is_number  # of a branch: without it there is 0 of it


def test_equal_parts_are_computed_once():
    program = gradient_program(activations.exo, {}, ("x", "alpha"))
    terms = (*program.stores, *(s.term for s in program.sums))
    assert operations(*terms).count("sigmoid_derivative") == 1


def test_a_constant_branch_keeps_nan():
    assert "unless_nan" in operations(value_program(activations.relu, {}).stores[0])


def test_minimum_is_recognised():
    assert value_program(formula(lambda x: minimum(x, sigmoid(x))), {}).stores[0].op == "minimum"


def test_nothing_is_distributed_over_sums():
    # (x + 3)/6 is exactly 0 at -3; x/6 + 1/2 is not, and a huge factor would show it.
    gate = value_program(activations.hardswish, {}).stores[0].args[1]
    assert gate.op == "divide"
    assert gate.args[0].op == "add"


@formula(k=3.0)
def gated_power(x, k):
    return sigmoid(x) * abs(x) ** k


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_power_has_finite_slopes_at_zero(dtype):
    """k·x^k/x is 0/0 there, and x^k·log(x) is 0·inf."""
    gradient_program(gated_power, {}, ("x", "k"))  # else the plain formula would run below
    x = torch.tensor([-1.0, 0.0, 2.5], dtype=dtype, requires_grad=True)
    k = torch.tensor(3.0, dtype=dtype, requires_grad=True)
    fused = torch.autograd.grad(gated_power(x, k).sum(), (x, k))
    plain = torch.autograd.grad(evaluate_plain(gated_power, x, {"k": k}).sum(), (x, k))
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_formula_that_grows_without_end_has_no_kernel():
    @formula
    def long(x):
        for _ in range(700):
            x = tanh(x) + x * x
        return x

    with pytest.warns(RuntimeWarning, match=r"long runs as plain operations: it has more than 2,0"):
        long(torch.ones(3))


def test_a_function_that_kernels_do_not_know_has_no_kernel():
    @formula
    def sawtooth(x):
        return x % 2 + x

    with pytest.warns(RuntimeWarning, match="sawtooth runs as plain operations: .* operand .*%"):
        y = sawtooth(torch.tensor([2.5]))
    assert y.item() == 3.0
