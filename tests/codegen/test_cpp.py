"""The printed C++ compiles without the machine's special instructions, and for each dtype."""

import subprocess

import pytest
import torch

from cases import FORMULAS, name
from zeta import activations, formula
from zeta.codegen import cpp
from zeta.codegen.trace import gradient_program, value_program
from zeta.kernels.compiler import find_compiler
from zeta.math import atan, cos, erf, exp, log, log1p, maximum, sqrt

DTYPES = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("f", FORMULAS, ids=name)
def test_source_names_no_unknown_function(f):
    text = cpp.source(gradient_program(f, {}, ("x", *f.scalars)), "float32", False)
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize("flags", [["-DZETA_PORTABLE"], ["-mavx2", "-mfma", "-mf16c"]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiles_for_other_machines(dtype, flags, tmp_path):
    value = value_program(activations.laplace, {})
    slope = gradient_program(activations.laplace, {}, ("x", "mu", "sigma"))
    source = tmp_path / "kernel.cpp"
    softmaxes = [cpp.softmax_source(value, slope, dtype, logs) for logs in (False, True)]
    mixture = cpp.mixture_source(value, slope, dtype)
    for text in (cpp.source(value, dtype, True), *softmaxes, mixture):
        source.write_text(text)
        command = [find_compiler(), "-std=gnu++17", "-fsyntax-only", *flags, str(source)]
        subprocess.run(command, check=True)


def test_every_primitive_prints_and_runs():
    @formula(a=0.5)
    def everything(x, a):
        positive = maximum(x * x, a)
        smooth = log(positive) + log1p(positive) + sqrt(positive) + positive**1.5
        return smooth + erf(x) + atan(x) + cos(x) + exp(-abs(x)) + x**5 / positive**2

    for dtype, tolerance in [(torch.float64, 1e-12), (torch.float32, 3e-6)]:
        x = torch.linspace(-5, 5, 101, dtype=dtype, requires_grad=True)
        a = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        y = everything(x, a)
        assert "Fused" in y.grad_fn.name()
        from zeta._backends.torch_plain import evaluate_plain

        plain = evaluate_plain(everything, x, {"a": a})
        torch.testing.assert_close(y, plain, rtol=tolerance, atol=tolerance)
        for ours, theirs in zip(
            torch.autograd.grad(y.sum(), [x, a]),
            torch.autograd.grad(plain.sum(), [x, a]),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, rtol=20 * tolerance, atol=20 * tolerance)
