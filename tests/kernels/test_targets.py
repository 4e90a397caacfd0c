"""Kernels for processors and by compilers that need not be this machine's, against the same truths.

A kernel and a `main` around it make one program without PyTorch, which reads its arguments from
standard input and writes its results to standard output; an emulator may run it. The environment
variable ZETA_TARGETS names the targets, which then take the whole catalogue.
"""

import math
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import zeta.math as zm
from cases import DTYPES, FORMULAS, HALF_DTYPES, fraction, grid, name, truths
from test_activations import full_precision_bound, half_precision_bound, value_errors
from test_gates import GATES, points, wrong_slopes, wrong_values
from zeta import activations, formula
from zeta.codegen import cpp, trace
from zeta.kernels import compiler
from zeta.kernels.build import DTYPES as NAMES_OF


@dataclass(frozen=True)
class Target:
    """A processor, a compiler for it (None: this machine's), and what runs its programs."""

    name: str
    machine: str
    compiler: str | None
    options: Sequence[str] = ()
    emulator: Sequence[str] = ()

    def missing(self) -> str:
        """What this machine lacks."""
        commands = [*filter(None, [self.compiler]), *self.emulator[:1]]
        lacking = [command for command in commands if not shutil.which(command)]
        if not self.emulator and self.machine != platform.machine():
            lacking.append(f"a processor of the kind {self.machine}")
        return ", ".join(lacking)

    def program(self, source: str, folder: Path):
        """The source compiled, as a function of what it reads, which gives what it writes."""
        path = (self.compiler and shutil.which(self.compiler)) or compiler.find_compiler()
        flags = [f for f in compiler.accepted(path, compiler.flags(self.machine)) if f != "-shared"]
        (folder / "kernel.cpp").write_text(source)
        command = [path, *flags, *self.options, "kernel.cpp", "-o", "kernel"]
        subprocess.run(command, cwd=folder, check=True)
        command = [*self.emulator, str(folder / "kernel")]
        return lambda read: subprocess.run(command, input=read, stdout=-1, check=True).stdout


LSELU = activations.learnable_selu_variation
AVX2, SSE2 = ["-march=haswell"], ["-march=x86-64", "-mtune=generic"]
ALL = [
    Target("avx2", "x86_64", None, AVX2),
    Target("sse2", "x86_64", None, SSE2),
    Target("portable", platform.machine(), None, ["-DZETA_PORTABLE"]),
    Target("clang", platform.machine(), "clang++"),
    Target("clang-avx2", "x86_64", "clang++", AVX2),
    Target("clang-sse2", "x86_64", "clang++", SSE2),
    Target(
        "aarch64",
        "aarch64",
        "aarch64-linux-gnu-g++",
        emulator=("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
]
USUAL = "avx2 sse2" if platform.machine() == "x86_64" else "portable"
NAMES = os.environ.get("ZETA_TARGETS", USUAL).split()
TARGETS = [target for target in ALL if target.name in NAMES]


@formula(p=1.3)
def smooth(x, p):
    """What the catalogue leaves out: powers, logarithms, roots."""
    a = abs(x)
    return zm.log1p(a) * (1 + a) ** -p + zm.erf(a) + zm.log(2 + a) / (2 + a) ** 1.5


EVERYTHING = "ZETA_TARGETS" in os.environ
SHARE = [smooth, *(FORMULAS if EVERYTHING else [LSELU])]
GATE_SHARE = GATES if EVERYTHING else [activations.swiglu_oai]
# Numbers as they are and stored in half; conversions of both half types are tested for themselves.
TYPES = DTYPES if EVERYTHING else [torch.float32, torch.float64, torch.bfloat16]
# Of the combinations of both targets with formulas and types, half.
ONE_IN = 2 if not EVERYTHING and len(TARGETS) == 2 else 1

LACKING = [f"{target.name} needs {m}" for target in TARGETS if (m := target.missing())]
pytestmark = pytest.mark.skipif(bool(LACKING), reason="; ".join(LACKING))

_READ = """
#include <cstdio>
#include <vector>
template <class T> static std::vector<T> read(int64_t n) {
    std::vector<T> v(n + 1);
    if (std::fread(v.data(), sizeof(T), n, stdin) != (size_t)n) std::exit(2);
    return v;
}
template <class T> static void write(const std::vector<T>& v, int64_t n) {
    std::fwrite(v.data(), sizeof(T), n, stdout);
}
"""
# Inputs side by side in each row, and their gradients too, or in turn. With columns every element
# of the one row has parameters of its own, and sums.
_KERNEL = """
int main() {
    const int64_t rows = read<int64_t>(1)[0], size = read<int64_t>(1)[0], n = rows * size;
    const int64_t own = formula::columns ? n : 1;
    const auto x = read<Storage>(elements * n), upstream = read<Storage>(n);
    const auto parameters = read<Number>(formula::parameters * own);
    std::vector<Storage> y(stores * n);
    std::vector<Number> gradients(sums * own + 1);
    Arguments a{upstream.data(), gradients.data()};
    a.outer = formula::columns ? n : rows, a.channels = own, a.inner = formula::columns ? 1 : size;
    for (int k = 0; k < elements + stores; k++) {
        const int count = k < elements ? elements : stores, part = k < elements ? k : k - elements;
        Storage* start = k < elements ? (Storage*)x.data() : y.data();
        a.operands[k] = start + part * (formula::pairs ? 1 : size), a.steps[k] = count * size;
    }
    for (int k = 0; k < formula::parameters; k++) a.parameters[k] = &parameters[k * own];
    if (zeta_kernel(&a)) return 1;
    write(y, stores * n), write(gradients, sums * own);
}
"""
_CONVERSIONS = """
int main() {
    const int64_t n = read<int64_t>(1)[0];
    const auto x = read<Storage>(n);
    std::vector<float> floats(n);
    for (int64_t i = 0; i < n; i += width) store(&floats[i], load(&x[i]));
    write(floats, n);
    const int64_t m = read<int64_t>(1)[0];
    const auto y = read<float>(m);
    std::vector<Storage> rounded(m);
    for (int64_t i = 0; i < m; i += width) store(&rounded[i], load(&y[i]));
    write(rounded, m);
}
"""


def content(*tensors):
    return b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors)


def tensors(written, dtype, *counts):
    return torch.frombuffer(bytearray(written), dtype=dtype).split(counts)


@pytest.mark.parametrize(
    ("target", "f", "dtype"), fraction(ONE_IN, TARGETS, SHARE, TYPES), ids=name
)
def test_values_and_gradients(target, f, dtype, tmp_path):
    code, number = NAMES_OF[dtype]
    x = grid(dtype)
    n = torch.tensor([x.numel()])
    shape = torch.tensor([1, x.numel()])
    values = torch.tensor(list(f.parameters.values()), dtype=number)

    source = cpp.source(trace.value_program(f, {}), code, False)
    run = target.program(source + _READ + _KERNEL, tmp_path)
    (y,) = tensors(run(content(shape, x, x, values)), dtype, n)
    bound = full_precision_bound if dtype == number else half_precision_bound(dtype)
    assert not value_errors(f, y, dtype, bound)

    source = cpp.source(trace.gradient_program(f, {}, ("x", *f.parameters)), code, True)
    run = target.program(source + _READ + _KERNEL, tmp_path)
    written = run(content(shape, x, torch.ones_like(x), values.repeat_interleave(n)))
    size = len(written) - len(values) * n.item() * number.itemsize
    (dx,) = tensors(written[:size], dtype, n)
    slopes = [dx, *(tensors(written[size:], number, *[n] * len(values)) if len(values) else ())]
    for key, slope in zip(["x", *f.parameters], slopes, strict=True):
        assert not slope.isnan().any(), key
        # As in tests/test_activations.py; a half type's dx is rounded once more.
        rounding = torch.finfo(dtype).eps / 2 if key == "x" and dtype != number else 0
        tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        for got, truth in zip(slope.tolist(), truths(f, dtype), strict=True):
            expected = float(truth.slopes[key])
            if truth.kinks[key] or abs(expected) > torch.finfo(dtype).max or abs(truth.x) > 1e6:
                continue
            scale = max(1.0, abs(expected), abs(truth.x))
            error = abs(got - expected) - rounding * abs(expected) - tiny
            error /= torch.finfo(number).eps
            assert error <= 16 * scale or error <= 16 * truth.slope_drift(key), (key, truth.x)


@pytest.mark.parametrize("f", GATE_SHARE, ids=name)
@pytest.mark.parametrize(
    ("target", "layout", "dtype"),
    fraction(ONE_IN, TARGETS, ["halves", "interleaved"], TYPES),
    ids=name,
)
def test_gates(target, f, layout, dtype, tmp_path):
    """In rows of a size that no vector divides."""
    code, number = NAMES_OF[dtype]
    inputs = torch.stack(points(dtype))
    side = math.isqrt(inputs.shape[1])
    rows = inputs.view(2, side, side).movedim(0, 1)
    pairs = layout == "interleaved"
    packed = rows.mT if pairs else rows
    shape = torch.tensor([side, side])
    values = torch.tensor(list(f.parameters.values()), dtype=number)
    read = content(shape, packed, torch.ones_like(inputs[0]), values)

    source = cpp.source(trace.value_program(f, {}), code, False, pairs)
    written = target.program(source + _READ + _KERNEL, tmp_path)(read)
    (y,) = tensors(written, dtype, inputs.shape[1])
    assert not wrong_values(f, y, dtype)

    source = cpp.source(trace.gradient_program(f, {}, f.inputs), code, False, pairs)
    written = target.program(source + _READ + _KERNEL, tmp_path)(read)
    (slopes,) = tensors(written, dtype, inputs.numel())
    slopes = slopes.view(packed.shape)
    by_input = (slopes.mT if pairs else slopes).movedim(1, 0).flatten(1)
    assert not wrong_slopes(f, by_input, dtype)


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=name)
@pytest.mark.parametrize("target", TARGETS, ids=name)
def test_every_half_and_every_rounding_boundary(target, dtype, tmp_path):
    """All 65,536 bit patterns; floats half-way between two neighbours, and those next to them."""
    source = cpp.source(trace.value_program(activations.relu, {}), NAMES_OF[dtype][0], False)
    run = target.program(source + _READ + _CONVERSIONS, tmp_path)
    halves = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    known = halves[halves.isfinite()].double().unique()
    step = known[-1] - known[-2]
    known = torch.cat([-known[-1:] - step, known, known[-1:] + step])
    middle = ((known[1:] + known[:-1]) / 2).float()
    floats = torch.cat(
        [
            known.float(),
            middle,
            *(torch.nextafter(middle, torch.full_like(middle, s)) for s in (-torch.inf, torch.inf)),
            torch.tensor([torch.inf, -torch.inf, torch.nan, 1e-45, -1e-45, 1e-38, 7e4, 3.4e38]),
        ]
    )
    floats = floats[: len(floats) // 16 * 16]
    sizes = [torch.tensor([len(t)]) for t in (halves, floats)]
    written = run(content(sizes[0], halves, sizes[1], floats))
    loaded, rounded = written[: 4 * len(halves)], written[4 * len(halves) :]
    (loaded,) = tensors(loaded, torch.float32, len(halves))
    (rounded,) = tensors(rounded, dtype, len(floats))
    for got, expected in ((loaded, halves.float()), (rounded, floats.to(dtype))):
        assert torch.equal(got.isnan(), expected.isnan())
        ours, theirs = (t[~expected.isnan()] for t in (got, expected))
        np.testing.assert_array_equal(content(ours), content(theirs))


@pytest.mark.parametrize("dtype", TYPES, ids=name)
@pytest.mark.parametrize("target", TARGETS, ids=name)
def test_softmax_and_mixture_compile(target, dtype, tmp_path):
    code, _ = NAMES_OF[dtype]
    value = trace.value_program(activations.selu, {})
    slope = trace.gradient_program(activations.selu, {}, ("x", "alpha", "scale"))
    main = "\nint main() { return zeta_kernel == nullptr; }\n"
    softmaxes = [cpp.softmax_source(value, slope, code, logs) for logs in (False, True)]
    for source in (*softmaxes, cpp.mixture_source(value, slope, code)):
        target.program(source + main, tmp_path)
