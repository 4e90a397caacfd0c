"""Formulas by name and from files, and what is said when that fails."""

import sys
from pathlib import Path

import pytest

from zeta import activations
from zeta._errors import UnknownNameError, UserError
from zeta.load_formula import load_formula, one_spelling

GOOD = """
from helper import SCALE
from zeta import formula
from zeta.math import sigmoid

@formula(beta=1.0)
def swish(x, beta):
    return SCALE * x * sigmoid(beta * x)

def plain(x):
    return x
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("SCALE = 2\n")
    path = tmp_path / "mine.py"
    path.write_text(GOOD)
    return path


def test_catalogue_name() -> None:
    assert load_formula("exo") is activations.exo


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown activation 'gellu'; did you mean 'gelu'"):
        load_formula("gellu")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("logistic", "sigmoid"),
        ("relu2", "squared_relu"),
        ("ReLU", "relu"),
        ("RELU", "relu"),
        ("GeLLU", "gelu"),
    ],
)
def test_what_other_libraries_call_them(name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean {meant!r}"):
        load_formula(name)


def test_a_file_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for spelt in ("mine.py:f", "./mine.py:f", "sub/../mine.py:f", f"{tmp_path}/mine.py:f"):
        assert one_spelling(spelt) == "mine.py:f"
    assert one_spelling("sub/a.py:f") == "sub/a.py:f"
    assert one_spelling("./mine.py") == "mine.py"
    monkeypatch.chdir(tmp_path / "sub")
    assert one_spelling("../mine.py:f") == f"{tmp_path.resolve()}/mine.py:f"
    assert one_spelling("ex/o") == "ex/o"


def test_file_may_import_its_neighbours(good: Path) -> None:
    formula = load_formula(f"{good}:swish")
    assert formula(1.0, beta=0.0) == 1.0
    assert not (good.parent / "__pycache__" / "mine.cpython-311.pyc").exists()


def test_an_edit_within_the_same_second_is_seen(good: Path) -> None:
    assert load_formula(f"{good}:swish")(1.0, beta=0.0) == 1.0
    good.write_text(GOOD.replace("SCALE * x", "SCALE + x"))
    assert load_formula(f"{good}:swish")(1.0, beta=0.0) == 2.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names no Formula; write .*mine.py:NAME .it has: swish"),
        (":swich", "did you mean 'swish'"),
        (":plain", "is not a Formula but of type function; decorate"),
    ],
)
def test_wrong_name_in_a_file(good: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_formula(f"{good}{name}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("x = 1\n\ndef f(:\n", "line 3: SyntaxError: "),
        ("import sys\nsys.exit('a\\nb')\n", "line 2: SystemExit: a b$"),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError: No module"),
        ("class E(BaseException): pass\nraise E('x')\n", "line 2: E: x$"),
        ("x = 1\0\n", r"bad.py': \w+Error: .*null bytes"),
        ("x = 1\n", "has no 'f', nor any Formula"),
        ("from zeta import formula\n@formula\ndef f(x):\n    return 1.0\n", "is constant: an"),
        ("import math\nfrom zeta import formula\n@formula\ndef f(x):\n    return math.exp(x)\n",
         "cannot be evaluated on symbols .TypeError.*functions of zeta.math"),
        ("from zeta import formula\n@formula\ndef f(x):\n    return 'x'\n",
         "cannot be evaluated on symbols .TypeError.*functions of zeta.math"),
        ("from zeta import formula\n@formula\ndef f(x):\n    return x * 1j\n", "complex numbers"),
        ("from zeta import formula\n@formula\ndef f(x):\n    x * 2\n",
         "cannot be used: formula 'f' returned None: end its function with a `return`$"),
        ("from zeta import formula\n@formula\ndef f(x):\n    return x if x > 0 else 0\n",
         "Relational.*piecewise, maximum and minimum of zeta.math, not with if"),
        ("from zeta import formula\n@formula\ndef f(x):\n    return max(x, 0)\n",
         "Relational.*piecewise, maximum and minimum of zeta.math, not with if"),
        ("from zeta import formula\n@formula(a=float('nan'))\ndef f(x, a):\n    return a * x\n",
         "ValueError: formula 'f': the default of 'a' must be finite, got nan"),
    ],
)  # fmt: skip
def test_unusable_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_formula(f"{path}:f")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\nb.py", "\x1b[31m.py", "\udcff.py"])
def test_names_that_a_terminal_obeys(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(GOOD)
    with pytest.raises(UserError, match="has control characters in its name") as caught:
        load_formula(f"{tmp_path / name}:swish")
    assert str(caught.value).isprintable()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none.py': No such file"):
        load_formula(f"{tmp_path}/none.py:f")


def test_ctrl_c_is_no_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "slow.py"
    path.write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_formula(f"{path}:f")


def test_a_file_may_define_dataclasses(good: Path) -> None:
    good.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        f"@dataclass\nclass Point:\n    x: float\n{GOOD}"
    )
    before = set(sys.modules)
    assert load_formula(f"{good}:swish").name == "swish"
    assert set(sys.modules) - before <= {"helper"}
