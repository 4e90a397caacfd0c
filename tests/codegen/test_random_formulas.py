"""Random formulas have kernels, as right as plain operations, and finite where these are.

What a number may be off by is measured, by what rounding does to plain operations of its dtype.
They are run several times, each rounding one way or the other: results move by up to a unit in the
last place, and so does what an operation passes back to each of its operands, by itself, since a
kernel adds it up in another order. How far these runs are from the truth is what the formula makes
of errors at that point: where terms cancel, everything. A kernel may be off by `FACTOR` times that
and four units of the result, at every point. Where all the runs are finite, so is the kernel,
unless the truth is beyond the dtype; where none is, the kernel is not finite either, or right.

The truth is that of plain operations in float64, but for three derivatives that cancel there as
well: autograd's 1 - tanh² is 0 where tanh is 1.
"""

import ctypes
import math
import os
import platform
import resource
import subprocess
import time
from contextlib import nullcontext

import pytest
import torch
from torch.overrides import TorchFunctionMode

from codegen.random_formulas import PARAMETERS, random_formula, written
from zeta._backends import tracer
from zeta._backends.torch_plain import evaluate_plain
from zeta.codegen import cpp, trace, triton
from zeta.codegen.graph import Graph, gradients, without_surrogates
from zeta.kernels import compiler

NAMES = ("x", *PARAMETERS)
KINDS = ("value", *NAMES)
FACTOR = 4
RUNS, MORE_RUNS = 6, 60
TYPES = {torch.float32: ("Float", "float"), torch.float64: ("Double", "double")}


def points():
    """Numbers of every size, exact in float32; kinks and ties; what is no number."""
    draw = torch.Generator().manual_seed(0)
    moderate = 3 * torch.randn(61, generator=draw)
    far = torch.logspace(-10, 30, 30)
    single = torch.finfo(torch.float32)
    edges = [0, 1e-45, single.tiny, 0.3, 0.5, 0.75, 1, 1.25, 1.7, 2, 3, 6, 1.5e19, 1e38, single.max]
    edges = torch.tensor([*edges, math.inf])
    return torch.cat([moderate, far, -far, edges, -edges, torch.tensor([math.nan])]).double()


# ---- Plain operations --------------------------------------------------------------------------

# Whose results are not rounded; whose results do not underflow.
_EXACT = {"where", "to", "neg", "__neg__", "abs", "__abs__", "minimum", "maximum", "detach"}
_EXACT |= {"round", "floor", "sign", "remainder"}
_SUMS = {"add", "__add__", "__radd__", "sub", "__sub__", "__rsub__"}


class _Rounding(TorchFunctionMode):
    """Operations that round one way or the other, as those of a dtype do."""

    def __init__(self, seed, dtype):
        super().__init__()
        self.draw = torch.Generator().manual_seed(seed)
        self.limits = torch.finfo(dtype)

    def moved(self, x, underflow=False):
        """By a unit, which is the smallest number below the normal ones; 0 only as an underflow."""
        step = 2 * torch.rand(x.shape, generator=self.draw, dtype=x.dtype) - 1
        least = self.limits.smallest_normal * self.limits.eps * step
        is_least = (x.abs() < self.limits.tiny) & ((x != 0) | underflow)
        return torch.where(is_least, x + least, x * (1 + self.limits.eps * step))

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ == "__get__" or not any(map(_is_float, args)):
            return func(*args, **(kwargs or {}))
        args = [_Passed.apply(a, self) if _is_float(a) else a for a in args]
        y = func(*args, **(kwargs or {}))
        if func.__name__ in _EXACT or not _is_float(y):
            return y
        underflow = func.__name__ not in _SUMS
        for a in args:
            underflow = underflow & (torch.as_tensor(a) != 0)
        return y + (self.moved(y.detach(), underflow) - y.detach()).nan_to_num(0, 0, 0)


class _Exactly(TorchFunctionMode):
    """Operations whose derivatives do not cancel."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _DERIVATIVES[func](*args) if func in _DERIVATIVES else func(*args, **(kwargs or {}))


def _with_derivative(function, derivative):
    class Exact(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx, upstream):
            return upstream * derivative(*ctx.saved_tensors)

    return Exact.apply


_DERIVATIVES = {
    torch.tanh: _with_derivative(torch.tanh, lambda x: torch.cosh(x) ** -2),
    torch.expm1: _with_derivative(torch.expm1, torch.exp),
    torch.sigmoid: _with_derivative(torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
}


class _Passed(torch.autograd.Function):
    """The operand itself; its gradient is rounded."""

    @staticmethod
    def forward(ctx, x, rounding):
        ctx.rounding = rounding
        return x.view_as(x)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.rounding.moved(upstream), None


def _is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def plain(formula, x, dtype, mode):
    """The value and the derivatives by x and each parameter, point by point: (4, points)."""
    # Parameters of their own shape: what has x's is taken for what varies with x.
    x = x.to(dtype)[None].requires_grad_()
    leaves = [torch.full(x.shape[1:], v, dtype=dtype) for v in PARAMETERS.values()]
    leaves = [x, *(leaf.requires_grad_() for leaf in leaves)]
    values = dict(zip(PARAMETERS, leaves[1:], strict=True))
    with mode:
        y = evaluate_plain(formula, x, values)
    slopes = [None] * 3
    if y.requires_grad:
        slopes = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
    slopes = [torch.zeros_like(x) if s is None else s.reshape(x.shape) for s in slopes]
    return torch.cat([y, *slopes]).detach().double()


# ---- Kernels -----------------------------------------------------------------------------------


def kernels(formulas, dtype):
    """What kernels compute of each formula, as :func:`plain`; compiled at once."""
    vector, number = TYPES[dtype]
    names = ", ".join(f"f{k}::run" for k in range(len(formulas)))
    text = "\n".join(
        [
            cpp.header("primitives.h"),
            f"using V = {vector};\nusing Number = {number};",
            *(f"namespace f{k} {{\n{_function(f)}}}" for k, f in enumerate(formulas)),
            "using Function = void (*)(V, V, V, V*);",
            f"const Function functions[] = {{{names}}};",
            _LOOP,
        ]
    )
    run = compiler.load(None, lambda: text).run
    run.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_int64]

    def kernel(k, x):
        x = x.to(dtype)
        parameters = torch.tensor([*PARAMETERS.values()], dtype=dtype)
        out = torch.empty(len(KINDS), len(x), dtype=dtype)
        run(k, x.data_ptr(), parameters.data_ptr(), out.data_ptr(), len(x))
        return out.double()

    return kernel


_LOOP = """
extern "C" void run(int k, const Number* x, const Number* p, Number* y, int64_t count) {
    for (int64_t i = 0; i < count; i += lanes<V>) {
        V at{}, out[4];
        for (int64_t j = i; j < count && j < i + lanes<V>; j++) at[j - i] = x[j];
        functions[k](at, splat<V>(p[0]), splat<V>(p[1]), out);
        for (int64_t j = i; j < count && j < i + lanes<V>; j++)
            for (int kind = 0; kind < 4; kind++) y[kind * count + j] = out[kind][j - i];
    }
}
"""


def _function(formula):
    graph = Graph()
    x = graph.element("x")
    values = {name: graph.parameter(name) for name in PARAMETERS}
    value = graph.node("add", tracer.evaluate(formula, (x,), values), 0)
    results = [value, *(found.product() for found in gradients(value, [x, *values.values()]))]
    results = without_surrogates(results)
    lines = cpp.CPP.statements({f"out[{k}]": result for k, result in enumerate(results)})
    body = "\n".join(f"    {line}" for line in lines)
    return f"static void run(V element_x, V parameter_a, V parameter_b, V* out) {{\n{body}\n}}\n"


# ---- The judgement -----------------------------------------------------------------------------


def wrong_points(formula, got, dtype, count=RUNS):
    """Where a kernel's numbers are wrong, as text, and how many of them were judged."""
    x = points()
    # Infinity is the largest number, a constant, where a formula's limit asks for that.
    limits = torch.finfo(dtype)
    (sides,) = formula.clamped_sides
    ends = zip((-limits.max, limits.max), (-math.inf, math.inf), sides, strict=True)
    seen = x.clamp(*(largest if is_clamped else end for largest, end, is_clamped in ends))
    truth = plain(formula, seen, torch.float64, _Exactly())
    truth[1].masked_fill_(x.isinf() & (seen != x), 0)
    runs = [plain(formula, x, dtype, nullcontext())]
    for seed in range(count):
        with _Exactly() if seed % 2 else nullcontext():
            runs.append(plain(formula, x, dtype, _Rounding(seed, dtype)))
    runs = torch.stack(runs)
    close = 4 * limits.eps * truth.abs() + limits.tiny
    off = (runs - truth).abs().amax(0)
    judged = runs.isfinite().all(0) & (truth.abs() <= limits.max)
    wrong = judged & ~((got - truth).abs() <= FACTOR * off + close)
    overflowed = runs.isinf().all(0) & ~truth.isnan()
    wrong |= overflowed & got.isfinite()
    if wrong.any():  # what rounding does where plain operations have lost all by over- or underflow
        wide = [plain(formula, seen, torch.float64, _Rounding(k, dtype)) for k in range(count)]
        off = torch.maximum(off.nan_to_num(0, 0, 0), (torch.stack(wide) - truth).abs().amax(0))
        wrong &= ~((got - truth).abs() <= FACTOR * off + close)
    nan = x.isnan() & (got.isnan() != runs[0].isnan())
    nan[2:] &= got[2:].isnan()  # a branch that is not taken is no part of a parameter's
    if "with_gradient" in formula.name:
        # Plain operations take a surrogate that is infinite or NaN for a constant.
        nan[1:] = False
        wrong[1:] &= ~got[1:].isnan() & (runs[0, 1:] != 0)
    found = [
        f"{KINDS[kind]} at {x[i]:g}: {[float(v[kind, i]) for v in (got, runs[0], truth)]}"
        for kind, i in (wrong | nan).nonzero().tolist()
    ]
    if found and count == RUNS:  # by chance?
        return wrong_points(formula, got, dtype, MORE_RUNS)
    return found, int((judged | overflowed).sum())


def check(seeds, dtype):
    """Formulas of these seeds that are wrong, and how many numbers were judged."""
    formulas = [random_formula(seed) for seed in seeds]
    kernel = kernels(formulas, dtype)
    problems, total = [], 0
    for k, (seed, formula) in enumerate(zip(seeds, formulas, strict=True)):
        found, judged = wrong_points(formula, kernel(k, points()), dtype)
        total += judged
        if found:
            problems.append(f"{seed}, {dtype}: {formula.name}: {len(found)}: {found[:3]}")
    return problems, total


def sources(formula):
    """The kernels of the value and of all derivatives, as C++."""
    programs = trace.value_program(formula, {}), trace.gradient_program(formula, {}, NAMES)
    for program in programs:
        compile(triton.source(program), formula.name, "exec")
    return [cpp.source(program, "float32", False) for program in programs]


def test_random_formulas_have_programs():
    without = []
    for seed in range(200):
        formula = random_formula(seed)
        start = time.process_time()
        try:
            sources(formula)
        except ValueError as error:
            without.append(f"{seed} {formula.name}: {error}")
        assert time.process_time() - start < 1, formula.name  # measured: 4 ms, 35 at most
    assert len(without) <= 2, without


def test_random_formulas():
    problems, judged = check(range(0, 800, 20), torch.float32)
    assert not problems
    assert judged > 0.75 * 40 * 4 * len(points())


def test_random_formulas_in_float64():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of a mask times a number
    try:
        problems, judged = check(range(0, 800, 80), torch.float64)
    finally:
        torch.set_default_dtype(default)
    assert not problems
    assert judged > 0.75 * 10 * 4 * len(points())


def test_a_wrong_derivative_is_found():
    formula = written("erf((x + ((x + 1) ** 4)))")
    right = kernels([formula], torch.float32)(0, points())
    assert wrong_points(formula, right, torch.float32)[0] == []
    wrong = right * torch.tensor([1.0, 1 + 1e-4, 1.0, 1.0])[:, None]
    assert wrong_points(formula, wrong, torch.float32)[0]
    lost = torch.where(points() == 0, math.inf, right)
    assert len(wrong_points(formula, lost, torch.float32)[0]) == 8  # at 0 and at -0


@pytest.mark.slow
def test_many_random_formulas():
    """A minute or two."""
    problems = []
    for first in range(0, 809, 20):
        problems += check(range(first, min(first + 20, 809)), torch.float32)[0]
    assert not problems


@pytest.mark.slow
def test_kernels_are_made_in_seconds():
    """Of a processor's time, for each of a formula's two kernels."""
    flags = compiler.accepted(compiler.find_compiler(), compiler.flags(platform.machine()))
    for seed in range(0, 809, 20):
        for text in sources(random_formula(seed)):
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [compiler.find_compiler(), *flags, "-x", "c++", "-", "-o", os.devnull]
            subprocess.run(command, input=text, text=True, check=True)
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert now.ru_utime - used.ru_utime < 3, seed  # measured: 0.3 to 0.5, 2.1 at most
