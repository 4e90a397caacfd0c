"""Gates as candidates, beside activations that are made gates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from zeta._errors import UserError
from zeta.evaluate import Budget, Settings, TrialKey, evaluate, formula_fingerprint, tasks
from zeta.evaluate.candidates import load_candidate
from zeta.evaluate.shapes import sample_shapes
from zeta.evaluate.sweep import Sweep
from zeta.evaluate.tasks import GatedTask, Shape, gated_unit
from zeta.evaluate.training import run_trials


def load() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(40, 5))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def network(shape: Shape, make_activation) -> nn.Module:
    hidden = nn.Linear(5, 2 * shape.width), gated_unit(make_activation())
    return nn.Sequential(*hidden, nn.Linear(shape.width, 2))


GATED = GatedTask("gated", "", "classification", load, Budget(3, 8, 4), network)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_gate_trains_as_its_activation_does(seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "gated", GATED)
    curves = []
    for name in ("swiglu", "silu"):
        formula = formula_fingerprint(name, load_candidate(name))
        key = ("gated", GATED.fingerprint(), name, formula, 0.01)
        keys = [TrialKey(*key, seed, "final", GATED.budget) for seed in range(seeds)]
        curves.append([trial.curve for trial in run_trials(keys)])
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_gates_are_refused_where_there_are_no_gated_units(tmp_path: Path) -> None:
    message = (
        r"^'swiglu' is a gate of two inputs, and task 'digits' has no gated units; "
        r"gates run on: letters_gated, digits_gated, housing_gated \(--task\)$"
    )
    for named in (["digits"], ["letters_gated", "digits"]):
        with pytest.raises(UserError, match=message):
            evaluate(["swiglu"], named, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert Sweep(Settings(("swiglu", "exo"), ("letters_gated",))).pairs[0][1] == "swiglu"


@pytest.mark.parametrize(
    "named",
    [
        {"activations": ["silu (retuned)"]},
        {"activations": ["exo"], "reference": "silu (retuned)"},
        {"activations": ["exo"], "baselines": ["relu", "gelu (retuned)"]},
    ],
)
def test_a_control_is_no_candidate(tmp_path: Path, named: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^'\w+ \(retuned\)' is a control, which runs add"):
        evaluate(tasks=["digits"], quick=True, out=tmp_path / "out", **named)
    assert not (tmp_path / "out").exists()


def test_a_gate_s_shape_is_what_it_makes_of_one() -> None:
    shapes = sample_shapes(Settings(("swiglu",), ("letters_gated",)), ())
    curve = {shape.activation: shape.values for shape in shapes}
    assert curve["swiglu"] == curve["silu"]


def test_formulas_of_three_inputs_are_no_candidates(tmp_path: Path) -> None:
    file = tmp_path / "three.py"
    code = "@formula\ndef f(a, b, c, /):\n    return a * b * c\n"
    file.write_text(f"from zeta import formula\n{code}")
    with pytest.raises(UserError, match="takes 3 inputs"):
        load_candidate(f"{file}:f")
