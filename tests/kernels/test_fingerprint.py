"""The cache key changes whenever the formula does, and only then."""

import importlib.util
import math
import sys
import types

import pytest

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


@pytest.mark.parametrize("name", ["profile", "code", "math"])
@pytest.mark.parametrize("is_imported", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "f = formula(lambda x: x * {k})",
        "def helper(x): return x * {k}\nf = formula(lambda x: helper(x))",
        "class K:\n    k = {k}\nf = formula(lambda x: x * K.k)",
    ],
    ids=["formula", "function", "class"],
)
def test_a_file_named_like_one_of_pythons(name, is_imported, text, tmp_path, monkeypatch):
    """Each version is seen for itself, or not understood."""
    found = []
    for version in ("2.0", "3.0"):
        file = tmp_path / version / f"{name}.py"
        file.parent.mkdir()
        file.write_text("from zeta import formula\n" + text.replace("{k}", version))
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        if is_imported:
            monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        found.append(fingerprint(module.f))
    assert found[0] != found[1] or found == [None, None]


def test_pythons_own_are_known_by_their_names():
    assert fingerprint(formula(lambda x: float(math.sqrt(2.0)) * math.tau * x))
