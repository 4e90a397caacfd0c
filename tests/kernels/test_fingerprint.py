"""The cache key changes whenever the formula does, and only then."""

import types

import zeta.math as zm
from cases import FORMULAS
from zeta import formula
from zeta.kernels.fingerprint import fingerprint

SLOPE = 2.0


def helper(x):
    return x * SLOPE


def test_every_catalogue_formula_is_understood_and_different():
    found = [fingerprint(f) for f in FORMULAS]
    assert all(found)
    assert len(set(found)) == len(FORMULAS)


def test_equal_formulas_have_equal_fingerprints():
    first, second = (formula(lambda x: zm.tanh(x) * 2) for _ in range(2))
    assert fingerprint(first) == fingerprint(second)


def test_constants_closures_defaults_and_globals_count(monkeypatch):
    def with_closure(k):
        return formula(lambda x: x * k)

    assert fingerprint(formula(lambda x: x * 2)) != fingerprint(formula(lambda x: x * 3))
    assert fingerprint(formula(lambda x: x * 1)) != fingerprint(formula(lambda x: x * True))
    assert fingerprint(with_closure(1.0)) != fingerprint(with_closure(2.0))
    assert fingerprint(formula(lambda x: zm.sin(x))) != fingerprint(formula(lambda x: zm.cos(x)))
    f = formula(lambda x: helper(x))
    before = fingerprint(f)
    monkeypatch.setitem(globals(), "SLOPE", 3.0)
    assert fingerprint(f) != before


def test_attributes_of_modules_count():
    module = types.ModuleType("own")
    module.k = 1.0
    f = formula(lambda x: x * module.k)
    assert fingerprint(f) is None  # a module in a closure is not looked into


def test_what_is_not_understood_gives_none():
    table = {"k": 2.0}
    assert fingerprint(formula(lambda x: x * table["k"])) is None
