"""Keys: equal where a trial is the same, different wherever anything that matters is."""

from dataclasses import replace

import pytest

from zeta import activations, formula
from zeta.activations import relu, silu
from zeta.evaluate import Budget, Settings, Trial, TrialKey, formula_fingerprint
from zeta.evaluate.protocol import formula_source, half_decade
from zeta.math import sigmoid

KEY = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
TIMING = {"seconds": 1.0, "step_ms": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"task": "x"}, {"data": "x"}, {"activation": "x"}, {"formula": "x"},
        {"learning_rate": 0.03}, {"seed": 1}, {"phase": "tuning"},
        {"budget": Budget(2, 2, 3)}, {"protocol": 99},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_field_is_part_of_the_key(change: dict[str, object]) -> None:
    assert replace(KEY, **change).hex() != KEY.hex()
    assert replace(KEY).hex() == KEY.hex()


def test_json_round_trip() -> None:
    trial = Trial(KEY, "accuracy", "ok", 0.5, 7, (1.0,), ({"a": 1.0},), TIMING)
    back = Trial.from_json(trial.to_json())
    assert back == trial
    assert back.timing == trial.timing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "fields do not hash"),
        ({"value": "high"}, "contradict"),
        ({"value": float("inf")}, "contradict"),
        ({"status": "diverged"}, "contradict"),
        ({"status": "banana", "value": None}, "unknown status"),
        ({"metric": 3}, "unknown status or metric"),
        ({"curve": ["a"]}, "no finite number"),
        ({"curve": [float("inf")]}, "no finite number"),
        ({"curve": []}, "0 of 1 epochs"),
        ({"curve": [1.0, 0.5]}, "2 of 1 epochs"),
        ({"score_curve": [0.5, 0.5]}, "more epochs than are scored"),
        ({"score_curve": [None]}, "no finite number"),
        ({"learned": [{"a": None}]}, "no finite number"),
        ({"timing": {"seconds": float("inf")}}, "timing must be"),
        ({"constant": None}, "constant is no finite number"),
    ],
)
def test_inconsistent_fields_are_refused(change: dict[str, object], message: str) -> None:
    fields = Trial(KEY, "accuracy", "ok", 0.5, 7, (1.0,), timing=TIMING).to_json()
    with pytest.raises(ValueError, match=message):
        Trial.from_json(fields | change)


def test_fingerprint_follows_the_maths_not_the_spelling() -> None:
    @formula(beta=1.0)
    def swish(x, beta):
        return x * sigmoid(x * beta)

    @formula(beta=1.0)
    def again(x, beta):
        return sigmoid(beta * x) * x

    @formula(beta=2.0)
    def steeper(x, beta):
        return x * sigmoid(beta * x)

    prints = [formula_fingerprint("f", f) for f in (swish, again, steeper, silu, relu)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("name", ["silu", "learnable_selu_variation"])
def test_the_control_is_the_same_formula_trained_alike(name: str) -> None:
    control = Settings(("exo",), ("digits",), reference=name).control
    formula = activations.get(name)
    assert formula_source(control) == name
    assert formula_fingerprint(control, formula) == formula_fingerprint(name, formula)
    frozen = formula_fingerprint(f"{name} (frozen)", formula)
    assert (frozen == formula_fingerprint(name, formula)) == (name == "silu")


def test_tuning_seeds_are_never_final_seeds() -> None:
    settings = Settings(("exo",), ("digits",))
    assert len(set(settings.final_seeds(500))) == 500
    assert not set(settings.final_seeds(500)) & set(settings.tuning_seeds)
    assert not set(settings.final_seeds(500)) & set(settings.tuning_seeds_of(settings.control))


def test_learning_rates_are_half_decades() -> None:
    assert [half_decade(s) for s in (-7, -6, -5, -4, -3)] == [0.0003, 0.001, 0.003, 0.01, 0.03]


def test_a_trial_of_before_scores_by_epoch_is_read() -> None:
    trial = Trial(KEY, "accuracy", "ok", 0.5, 7, (1.0,), timing=TIMING, score_curve=(0.5,))
    assert Trial.from_json(trial.to_json()) == trial
    old = trial.to_json()
    del old["score_curve"]
    assert Trial.from_json(old) == replace(trial, score_curve=())
