"""One trial: a pure function of its key, paired across activations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zeta import activations
from zeta._errors import UserError
from zeta.evaluate import Budget, TrialKey, formula_fingerprint, run_trial, tasks
from zeta.evaluate.training import build_network
from zeta.load_formula import load_formula

BUDGET = Budget(epochs=4, batch_size=64, width=16)


def key_of(activation: str, task: str = "digits", **changes: object) -> TrialKey:
    fingerprint = formula_fingerprint(activation, load_formula(activation))
    data = tasks.get(task).fingerprint()
    key = TrialKey(task, data, activation, fingerprint, 0.01, 100, "final", BUDGET)
    return replace(key, **changes)


def test_equal_keys_give_equal_trials() -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    first = run_trial(key_of("relu"))
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert run_trial(key_of("relu")) == first
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's generator is untouched"
    assert run_trial(key_of("relu", seed=101)).curve != first.curve


@pytest.mark.parametrize("name", ["relu", "silu", "exo", "learnable_selu_variation", "laplace"])
def test_same_initial_weights_for_every_activation(name: str) -> None:
    def weights(activation: str) -> list[np.ndarray]:
        key, task = key_of(activation), tasks.get("digits")
        torch.manual_seed(key.seed)
        split = task.split("final", key.seed)
        network = build_network(task, split, key, load_formula(activation))
        layers = [m for m in network if isinstance(m, torch.nn.Linear)]
        return [p.detach().numpy() for layer in layers for p in layer.parameters()]

    for ours, theirs in zip(weights(name), weights("gelu"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_default_budget_learns_digits() -> None:
    trial = run_trial(key_of("relu", budget=tasks.get("digits").budget))
    assert trial.value is not None
    assert trial.value > 0.95


def test_regression_beats_the_constant_predictor() -> None:
    trial = run_trial(key_of("silu", "diabetes", budget=Budget(20, 32, 32), learning_rate=0.001))
    assert trial.metric == "R²"
    assert trial.value is not None
    assert trial.value > 0.3


def test_only_the_learnable_activation_learns() -> None:
    assert run_trial(key_of("exo")).learned == ()
    layers = run_trial(key_of("learnable_selu_variation")).learned
    documented = activations.learnable_selu_variation.parameters
    assert [set(layer) for layer in layers] == [set(documented)] * 2
    assert all(layers[0][name] != pytest.approx(documented[name], abs=1e-6) for name in documented)


def test_divergence_is_an_outcome() -> None:
    trial = run_trial(key_of("squared_relu", learning_rate=1e12))
    assert (trial.status, trial.value) == ("diverged", None)
    assert len(trial.curve) < BUDGET.epochs


@pytest.mark.parametrize(
    ("change", "message"), [({"formula": "0"}, "changed"), ({"data": "0"}, "data of task")]
)
def test_a_stale_key_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_trial(key_of("relu", **change))
