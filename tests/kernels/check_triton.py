"""Compiles the Triton kernels for a GPU that need not be here; run by test_gpu.py.

A process of its own: where there is no GPU the tests' runs Triton's interpreter, which takes
whatever Python does. With the argument `everything` of more formulas. Prints a line per kernel:
its name, a colon, and what the compiler has against it.
"""

import inspect
import itertools
import math
import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import zeta.math as zm
from cases import GATE_SHARE, SHARE
from codegen.random_formulas import random_formula
from zeta import activations, formula
from zeta.kernels import gpu
from zeta.kernels.build import functions_triton
from zeta.runtime.triton import mixture as mixture_triton, softmax as softmax_triton

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
TENSORS = ("element_", "upstream_", "out0_", "out1_", "logits_", "x_", "y_", "dx_")

# The softmax along the last dimension, along another, and of one number: what 1 is, Triton knows.
SOFTMAXES = [
    (activations.selu, torch.float32, ("stride",)),
    (activations.softcap, torch.bfloat16, ("row_stride",)),
    (activations.softcap, torch.float16, ("classes", "rows", "row_blocks", "row_stride", "stride")),
]


EVERYTHING = "everything" in sys.argv
# What is in the catalogue's formulas is in the primitives too; of these one has parameters.
SOME = [activations.laplace, activations.relu]


def formulas():
    """Of the catalogue, each primitive, what the generator recognises in a formula, random ones."""
    yield from SHARE if EVERYTHING else SOME
    for primitive in (*(getattr(zm, name) for name in zm.__all__), abs):
        if len(inspect.signature(primitive).parameters) == 1:
            yield named(formula(applied(primitive)), primitive.__name__)
    for name, function in {
        "clip": lambda x, k: k * zm.clip(x, -1.0, 1.0),
        "maximum": lambda x, k: zm.maximum(x, k),
        "minimum": lambda x, k: zm.minimum(x, k),
        "piecewise": lambda x, k: zm.piecewise(
            x, positive=lambda z: k * z, otherwise=lambda z: z - k
        ),
        "power": lambda x, k: x**k + x**2.5 + x**-3 + x**7,
        "base": lambda x, k: k**x,
        "sigmoid_complement": lambda x, k: k * zm.sigmoid(-x),
        "tanh_softplus": lambda x, k: zm.tanh(zm.softplus(k * x)),
        "gauss": lambda x, k: zm.exp(-k * x * x) + zm.exp(-(x**2)),
        "nested": lambda x, k: zm.piecewise(
            abs(x) - k, positive=lambda z: z, otherwise=lambda z: math.pi * z
        ),
    }.items():
        yield named(formula(k=0.5)(function), name)
    yield from map(random_formula, range(0, 800, 100 if EVERYTHING else 400))


def applied(primitive):
    return lambda x: primitive(x)


def named(f, name):
    f.name = name
    return f


def compiled(kernel, dtype, constants):
    """What Triton's compiler says of the kernel, "" if it makes a program."""
    types = {
        name: "constexpr"
        if name in constants
        else TYPES[dtype]
        if name.startswith(TENSORS) and name.endswith("_ptr")
        else "*i64"
        if name in ("target_ptr", "prediction_ptr")
        else "*fp32"
        if name.endswith("_ptr")
        else "i32"
        for name in kernel.arg_names
    }
    try:
        made = triton.compile(ASTSource(kernel, types, constants), target=TARGET)
    except Exception as error:
        return " ".join(map(str.strip, str(error).splitlines()[-3:])) or repr(error)
    return "" if ".entry" in made.asm["ptx"] else "no PTX"


def functions(f):
    """What is generated of a formula, as constants of the kernels around it."""
    return {name.upper(): functions_triton(f)[name] for name in ("value", "slope", "term")}


def say(name, dtype, error):
    print(f"{name} {dtype}: {error}")


if __name__ == "__main__":
    for f in formulas():
        numbers = [0.5] * len(f.parameters)
        for wanted in ((), ("x", *f.parameters)):
            kernel = gpu.kernel(f, torch.float32, numbers, None, wanted)
            for dtype in TYPES if f is activations.laplace else [torch.float32]:
                for columns in (True, False) if f is activations.laplace else (bool(wanted),):
                    tile = {"COLUMNS": columns, "ROWS": 2, "WIDTH": 64}
                    say(f"{f.name} {wanted}", dtype, compiled(kernel, dtype, tile))
    for f in GATE_SHARE if EVERYTHING else [activations.swiglu, activations.swiglu_oai]:
        numbers, every = [0.5] * len(f.parameters), (*f.inputs, *f.parameters)
        for wanted, pairs in itertools.product([(), every], [False, True]):
            kernel = gpu.kernel(f, torch.float32, numbers, None, wanted, pairs)
            for dtype in TYPES if f is activations.swiglu else [torch.float32]:
                tile = {"COLUMNS": bool(wanted), "ROWS": 2, "WIDTH": 64}
                say(f"{f.name} {wanted} {pairs}", dtype, compiled(kernel, dtype, tile))
    heads = [
        (f, dtype, ks)
        for f in (activations.identity, activations.softcap, activations.selu)
        for dtype in (TYPES if f is activations.softcap else [torch.float32])
        for ks in (1, 4)
    ]
    for f, dtype, ks in heads:
        constants = functions(f) | {"HAS_BIAS": True, "HAS_MASS": True, "HAS_ENTROPY": ks == 1}
        constants |= {"BLOCK": 128, "ONE": ks == 1, "KS": ks, "PARAMETERS": len(f.parameters)}
        for kernel in (
            mixture_triton._statistics,
            mixture_triton._distribution,
            mixture_triton._write_gradient,
        ):
            own = {name: constants[name] for name in kernel.arg_names if name in constants}
            say(f"{kernel.__name__} {f.name} {ks}", dtype, compiled(kernel, dtype, own))
    for (f, dtype, ones), logs in zip(SOFTMAXES, [False, True, False], strict=True):
        constants = functions(f) | {"LOGS": logs, "PARAMETERS": len(f.parameters)}
        constants |= {"ROWS": 4, "BLOCK": 64} | dict.fromkeys(ones, 1)
        for kernel in (softmax_triton._forward, softmax_triton._backward):
            own = {name: constants[name] for name in kernel.arg_names if name in constants}
            say(f"{kernel.__name__} {f.name} {ones}", dtype, compiled(kernel, dtype, own))
