"""The one table of cases that drives the shared tests, derived from the catalogue.

A formula that is added to the catalogue is tested everywhere the moment it exists.
"""

import functools
import hashlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mpmath
import numpy as np
import pytest
import torch
from mpmath.libmp import from_pickable, to_pickable

import zeta
from zeta import activations, formula
from zeta._backends import mpmath as mpmath_backend
from zeta._formula import Formula

# Where old versions of the packages are tried: what they may lack is in a share of the share too.
IS_SHORT = "ZETA_TEST_SHARE" in os.environ
# For what follows from a formula's structure, not from its numbers, and takes long: one or two of
# each kind, with parameters and without, smooth and not, of every branch and primitive that counts.
SHARE = [
    activations.get(name)
    for name in (
        *("exo", "learnable_selu_variation", "laplace", "selu", "gelu_tanh", "mish", "sign_ste"),
        *("snake", *(() if IS_SHORT else ("relu", "gelu", "tanhshrink", "srelu"))),
    )
]
HALF_DTYPES = [torch.float16, torch.bfloat16]
FULL_DTYPES = [torch.float32, torch.float64]
DTYPES = HALF_DTYPES + FULL_DTYPES

FORMULAS = SHARE if IS_SHORT else list(activations.CATALOGUE.values())
# A surrogate's derivative is not that of the values.
DIFFERENTIABLE = [f for f in SHARE if f.name != "sign_ste"]
GATE_SHARE = [
    activations.get(name)
    for name in (
        *("glu", "swiglu", "swiglu_oai", "swiglu_step", "situ_glu", "swish_glu", "powlu_glu"),
    )
]
# How two inputs lie in one tensor has nothing to do with the gate: every gate of the share in the
# usual layout, one that tells its inputs apart in every layout. (gate, layout, gate_first)
LAYOUTS = [(layout, first) for layout in ("halves", "interleaved") for first in (True, False)]
GATES_IN_LAYOUTS = [
    *((gate, *LAYOUTS[0]) for gate in GATE_SHARE if gate is not activations.swiglu_oai),
    *((activations.swiglu_oai, *layout) for layout in LAYOUTS),
]
# The share, and of `make studies` all.
SHARE_OR_ALL = [f if f in SHARE else pytest.param(f, marks=pytest.mark.slow) for f in FORMULAS]
# Every formula in float32, and a share in the others too, which differ in how numbers are stored,
# whatever the formula: each is a kernel to be compiled.
IN_ALL_DTYPES = [
    (f, dtype) for f in FORMULAS for dtype in (DTYPES if f in SHARE else [torch.float32])
]

TRUTHS = Path(__file__).parent / ".truths"

# f(-inf) and f(+inf); None where there is no limit, but something finite.
LIMITS = {
    "exo": (-1.0, math.inf),
    "learnable_selu_variation": (None, math.inf),
    "laplace": (0.0, 1.0),
    "relu": (0.0, math.inf),
    "leaky_relu": (-math.inf, math.inf),
    "elu": (-1.0, math.inf),
    "selu": (-activations.SELU_ALPHA * activations.SELU_SCALE, math.inf),
    "gelu": (0.0, math.inf),
    "gelu_tanh": (0.0, math.inf),
    "silu": (0.0, math.inf),
    "mish": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hardswish": (0.0, math.inf),
    "squared_relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "hardsigmoid": (0.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softshrink": (-math.inf, math.inf),
    "hardshrink": (-math.inf, math.inf),
    "threshold": (0.0, math.inf),
    "fatrelu": (0.0, math.inf),
    "sparse_plus": (0.0, math.inf),
    "sparse_sigmoid": (0.0, 1.0),
    "smelu": (0.0, math.inf),
    "star_relu": (-0.4472, math.inf),
    "sqnl": (-1.0, 1.0),
    "plu": (-math.inf, math.inf),
    "hard_mish": (0.0, math.inf),
    "modulus": (math.inf, math.inf),
    "soft_modulus_q": (math.inf, math.inf),
    "cube": (-math.inf, math.inf),
    "celu": (-1.0, math.inf),
    "squareplus": (0.0, math.inf),
    "isru": (-1.0, 1.0),
    "isrlu": (-1.0, math.inf),
    "bent_identity": (-math.inf, math.inf),
    "nlrelu": (0.0, math.inf),
    "softsign": (-1.0, 1.0),
    "elliott": (0.0, 1.0),
    "arctan": (-1.5707963267948966, 1.5707963267948966),
    "lecun_tanh": (-1.7159, 1.7159),
    "penalized_tanh": (-0.25, 1.0),
    "logsigmoid": (-math.inf, 0.0),
    "tanhshrink": (-math.inf, math.inf),
    "exponential": (0.0, math.inf),
    "gaussian": (0.0, 0.0),
    "shifted_softplus": (-0.6931471805599453, math.inf),
    "sqrtsoftplus": (0.0, math.inf),
    "quick_gelu": (0.0, math.inf),
    "gelu_10": (0.0, 10.0),
    "gelu_sine": (None, math.inf),
    "e_swish": (0.0, math.inf),
    "dsilu": (0.0, 1.0),
    "bsilu": (-0.835, math.inf),
    "flatten_t_swish": (-0.2, math.inf),
    "elish": (0.0, math.inf),
    "hard_elish": (0.0, math.inf),
    "lisht": (math.inf, math.inf),
    "telu": (0.0, math.inf),
    "serf": (0.0, math.inf),
    "logish": (0.0, math.inf),
    "smish": (0.0, math.inf),
    "phish": (0.0, math.inf),
    "mila": (0.0, math.inf),
    "atlu": (-0.3183098861837907, math.inf),
    "colu": (0.0, math.inf),
    "powlu": (0.0, math.inf),
    "sine": (None, None),
    "gcu": (None, None),
    "spike_sigmoid": (0.0, 1.0),
    "spike_fast_sigmoid": (0.0, 1.0),
    "spike_atan": (0.0, 1.0),
    "spike_triangle": (0.0, 1.0),
    "sign_ste": (-1.0, 1.0),
    "approx_sign": (-1.0, 1.0),
    "sugar_bsilu": (0.0, math.inf),
    "prelu": (-math.inf, math.inf),
    "rprelu": (-math.inf, math.inf),
    "flexible_relu": (0.0, math.inf),
    "arelu": (-math.inf, math.inf),
    "srelu": (-math.inf, math.inf),
    "apl": (math.inf, math.inf),
    "pact": (0.0, 10.0),
    "poly_relu": (0.0, math.inf),
    "pelu": (-1.0, math.inf),
    "mpelu": (-0.25, math.inf),
    "xielu": (math.inf, math.inf),
    "swish": (0.0, math.inf),
    "xsilu": (0.0, math.inf),
    "xgelu": (0.0, math.inf),
    "xatlu": (-0.3183098861837907, math.inf),
    "acon_c": (0.0, math.inf),
    "smu": (-math.inf, math.inf),
    "smu1": (-math.inf, math.inf),
    "aptx": (0.0, math.inf),
    "snake": (-math.inf, math.inf),
    "snakebeta": (-math.inf, math.inf),
    "sinlu": (0.0, math.inf),
    "coslu": (0.0, math.inf),
    "laaf_tanh": (-1.0, 1.0),
    "stan": (math.inf, math.inf),
    "tanhlu": (-1.0, 1.0),
    "dyt": (-1.0, 1.0),
    "derf": (-1.0, 1.0),
    "rational": (-math.inf, math.inf),
}


@formula(
    numerator=(0.02, 0.5, 0.3, 0.1, 0.02, 0.01),
    denominator=(0.1, 0.2, -0.05, 0.02),
    learnable=True,
)
def rational(x, numerator, denominator):
    """P(x) / (1 + |x·Q(x)|), a formula of two vectors."""
    return _polynomial(x, numerator) * (1 / (1 + abs(x * _polynomial(x, denominator))))


def _polynomial(x, coefficients):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def fraction(of: int, *axes: Sequence[Any]) -> list[tuple[Any, ...]]:
    """One in ``of`` of all combinations, in which any two values of two axes still meet.

    A fractional factorial design: those whose places on the axes add up to a multiple of ``of``.
    """
    places = list(itertools.product(*(range(len(axis)) for axis in axes)))
    taken = [place for place in places if sum(place) % of == 0]
    for i, j in itertools.combinations(range(len(axes)), 2):
        assert {(p[i], p[j]) for p in taken} == {(p[i], p[j]) for p in places}, (i, j)
    return [tuple(axis[i] for axis, i in zip(axes, place, strict=True)) for place in taken]


def name(value) -> str:
    """A readable test id."""
    return getattr(value, "name", str(value).removeprefix("torch."))


@functools.cache
def grid(dtype: torch.dtype) -> torch.Tensor:
    """Points over the whole range: moderate, ±1e4, ±88…±104, subnormal, tiny and the largest."""
    info = torch.finfo(dtype)
    magnitudes = [
        *(1.01 * np.logspace(-8, 4, 37)),  # off what constants are
        *np.linspace(0.07, 12, 37),
        *range(88, 105, 4),
        *(info.smallest_normal, info.smallest_normal / 8, info.eps, info.max / 3, info.max),
        *(0.0, 3.0, 3.25),
    ]
    x = torch.tensor([*magnitudes, *(-m for m in magnitudes)], dtype=torch.float64).to(dtype)
    return x[x.isfinite()].unique()


@dataclass(frozen=True)
class Truth:
    """What mpmath says at one point: value, slopes, and how far rounding x and them may go."""

    value: mpmath.mpf
    slopes: dict[str, mpmath.mpf]  # by "x" and the names of the scalars, a vector's one by one
    formula: Formula
    x: float
    kinks: dict[str, bool]  # where the slopes of the two sides differ
    condition: float  # relative change of the value per relative change of x and parameters

    def slope_drift(self, key: str) -> float:
        """How far a slope moves per relative change of x, as by the rounding of ω·x in sin(ω·x)."""
        change = 1 + mpmath.ldexp(1, -40)
        with mpmath.workdps(50):
            at = {"x": mpmath.mpf(self.x) * change} | _defaults(self.formula)
            moved, _ = _slope(self.formula, at, key)
            return float(abs(moved - self.slopes[key]) / (change - 1))


@functools.cache
def truths(formula: Formula, dtype: torch.dtype) -> list[Truth]:
    """The truth at every point of the grid, parameters at their defaults.

    Those of the catalogue are kept on disk, for the other processes of a run and for later ones,
    until a source that they follow from changes.
    """
    compute = lambda: [truth(formula, x) for x in grid(dtype).tolist()]
    if activations.CATALOGUE.get(formula.name) is not formula:
        return compute()
    kept = TRUTHS / f"{_sources()} {formula.name} {name(dtype)}.json"
    try:
        found = json.loads(kept.read_text())
    except FileNotFoundError:
        found = [_packed(truth) for truth in compute()]
        TRUTHS.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=TRUTHS, delete=False) as file:
            json.dump(found, file)
        os.replace(file.name, kept)
    return [_unpacked(formula, entry) for entry in found]


def _packed(truth: Truth) -> list[Any]:
    """For JSON: an mpmath number as its exact parts."""
    slopes = {key: to_pickable(slope._mpf_) for key, slope in truth.slopes.items()}
    return [to_pickable(truth.value._mpf_), slopes, truth.x, truth.kinks, truth.condition]


def _unpacked(formula: Formula, entry: list[Any]) -> Truth:
    number = lambda parts: mpmath.mp.make_mpf(from_pickable(parts))
    value, slopes, x, kinks, condition = entry
    slopes = {key: number(parts) for key, parts in slopes.items()}
    return Truth(number(value), slopes, formula, x, kinks, condition)


@functools.cache
def _sources() -> str:
    """A digest of what the truths follow from."""
    package = Path(zeta.__file__).parent
    folders = (package, package / "activations", package / "_backends")
    files = [Path(__file__), *(file for folder in folders for file in folder.glob("*.py"))]
    content = b"".join(file.read_bytes() for file in sorted(files))
    return hashlib.sha256(content + mpmath.__version__.encode()).hexdigest()[:16]


def truth(formula: Formula, x: float) -> Truth:
    """Value and central differences at 50 digits, more for a tiny x, whose step is tinier."""
    with mpmath.workdps(50 - min(0, math.frexp(x)[1])):
        at = {"x": mpmath.mpf(x)} | _defaults(formula)
        value = _value(formula, at)
        slopes, kinks = {}, {}
        for key in at:
            slopes[key], kinks[key] = _slope(formula, at, key)
        moved = sum(abs(at[key] * slope) for key, slope in slopes.items())
        condition = float(moved / abs(value)) if value else 0.0
        return Truth(value, slopes, formula, x, kinks, condition)


def _defaults(formula: Formula) -> dict[str, mpmath.mpf]:
    defaults = formula.flat(formula.parameters)
    return {name: mpmath.mpf(value) for name, value in defaults.items()}


def _value(formula: Formula, at: dict[str, mpmath.mpf]) -> mpmath.mpf:
    return formula(at["x"], **formula.grouped(at))


def _slope(formula: Formula, at: dict[str, mpmath.mpf], key: str) -> tuple[mpmath.mpf, bool]:
    """The central difference, and whether the two sides' slopes differ."""
    step = mpmath.ldexp(1, -60) * (abs(at[key]) or mpmath.mpf(1))
    with surrogates():
        above, here, below = (
            _value(formula, at | {key: at[key] + shift}) for shift in (step, 0, -step)
        )
    return (above - below) / (2 * step), abs(above - 2 * here + below) > step / 1000


def surrogates() -> AbstractContextManager[Any]:
    """While mpmath's functions are those of which the derivatives are."""
    return mock.patch.object(mpmath_backend, "with_gradient", lambda value, surrogate: surrogate)


def ulps(error: mpmath.mpf, at: mpmath.mpf, dtype: torch.dtype) -> float:
    """An error in units in the last place of a number of that size."""
    info = torch.finfo(dtype)
    exponent = mpmath.frexp(at)[1] - 1 if at else -10_000
    exponent = max(exponent, math.frexp(info.smallest_normal)[1] - 1)
    return float(abs(error) / mpmath.ldexp(mpmath.mpf(info.eps), exponent))
