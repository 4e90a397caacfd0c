"""One trial: a pure function of its key, paired across activations."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zeta import activations
from zeta._errors import UserError
from zeta.evaluate import (
    Budget,
    TrialKey,
    evaluate,
    formula_fingerprint,
    plan,
    run_trial,
    tasks,
)
from zeta.evaluate.protocol import formula_source, frozen_twin, learned_name
from zeta.evaluate.training import make_network, run_trials
from zeta.load_formula import load_formula

BUDGET = Budget(epochs=4, batch_size=64, width=16)


def key_of(activation: str, task: str = "digits", **changes: object) -> TrialKey:
    fingerprint = formula_fingerprint(activation, load_formula(formula_source(activation)))
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
        network = make_network(task, load_formula(activation), key)
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


NOISY = """
from dataclasses import replace
from torch import nn
from zeta.evaluate import tasks

def network(shape, make_activation):
    layers = nn.Linear(64, 16), nn.BatchNorm1d(16), make_activation(), nn.Dropout(0.2)
    return nn.Sequential(*layers, nn.Linear(16, 10))

noisy = replace(tasks.get("digits"), network=network)
"""


@pytest.mark.parametrize("phase", ["tuning", "final"])
def test_scoring_by_epoch_changes_nothing_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    path = tmp_path / "noisy.py"
    path.write_text(NOISY)
    keys = [key_of("relu", f"{path}:noisy", phase=phase, seed=seed) for seed in (7, 8)]
    found = run_trials(keys)
    for trial in found:
        assert len(trial.score_curve) == BUDGET.epochs
        assert trial.score_curve[-1] == trial.value
    shorter = run_trials([replace(key, budget=replace(BUDGET, epochs=2)) for key in keys])
    assert [t.value for t in shorter] == [t.score_curve[1] for t in found]
    monkeypatch.setattr("zeta.evaluate.training.scored_epochs", lambda epochs: (epochs,))
    for trial, once in zip(found, run_trials(keys), strict=True):
        assert (once.value, once.curve) == (trial.value, trial.curve)


def test_ten_epochs_are_scored_at_most_and_no_stream() -> None:
    assert len(run_trial(key_of("relu", budget=replace(BUDGET, epochs=12))).score_curve) == 10
    assert run_trial(key_of("relu", "shuttle_stream")).score_curve == ()
    diverged = run_trial(key_of("squared_relu", learning_rate=1e12))
    assert len(diverged.score_curve) == len(diverged.curve)


@pytest.mark.parametrize(
    ("change", "message"), [({"formula": "0"}, "changed"), ({"data": "0"}, "data of task")]
)
def test_a_stale_key_is_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_trial(key_of("relu", **change))


@pytest.mark.parametrize("name", ["exo", "learnable_selu_variation"])
@pytest.mark.parametrize("task", ["breast_cancer", "diabetes"])
@pytest.mark.parametrize("phase", ["tuning", "final"])
def test_trials_that_train_together_are_those_that_train_alone(
    name: str, task: str, phase: str
) -> None:
    keys = [
        key_of(name, task, phase=phase, seed=seed, learning_rate=rate)
        for rate in (0.001, 0.003)
        for seed in (0, 1)
    ]
    together, alone = run_trials(keys), [run_trial(key) for key in keys]
    assert [t.key for t in together] == keys
    for ours, theirs in zip(together, alone, strict=True):
        # Float32 sums in another order: 4 epochs of some 20 steps, each a few roundings apart.
        np.testing.assert_allclose(ours.curve, theirs.curve, rtol=1e-5)
        assert ours.value == pytest.approx(theirs.value, abs=2e-5)
        assert ours.parameters == theirs.parameters
        for layer, other in zip(ours.learned, theirs.learned, strict=True):
            assert layer == pytest.approx(other, rel=1e-5)
    assert run_trials(keys) == together, "the same bits from the same trials"


def test_one_that_diverges_leaves_the_others_alone() -> None:
    keys = [key_of("squared_relu", learning_rate=rate) for rate in (0.001, 1e12)]
    sound, diverged = run_trials(keys)
    assert (diverged.status, diverged.value) == ("diverged", None)
    assert sound.status == "ok"
    np.testing.assert_allclose(sound.curve, run_trial(keys[0]).curve, rtol=1e-5)


def test_what_differs_in_more_than_seed_and_rate_does_not_train_together() -> None:
    with pytest.raises(ValueError, match="may differ in seed and learning rate alone"):
        run_trials([key_of("relu"), key_of("gelu")])


def test_a_frozen_twin_keeps_its_parameters() -> None:
    twin = run_trial(key_of("learnable_selu_variation (frozen)"))
    assert twin.learned == ()
    learnable = run_trial(key_of("learnable_selu_variation"))
    assert learnable.parameters == twin.parameters + 2 * 5


LEARNABLE = """
from zeta import formula
from zeta.math import sigmoid

@formula(beta=1.0, cut=3.0, learnable=("beta",))
def of_a_user(x, beta, cut):
    return x * sigmoid(beta * x) + 0 * cut
"""


@pytest.mark.parametrize("registered", [False, True])
def test_a_formula_of_a_user_trains_what_it_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: bool
) -> None:
    source = f"{tmp_path}/user.py:of_a_user"
    (tmp_path / "user.py").write_text(LEARNABLE)
    if registered:  # and forgotten afterwards
        learnable = activations.FAMILIES["learnable"]
        monkeypatch.setitem(learnable, "of_a_user", load_formula(source))
    name = learned_name("of_a_user" if registered else source)
    trial, twin = run_trial(key_of(name)), run_trial(key_of(frozen_twin(name)))
    assert [set(layer) for layer in trial.learned] == [{"beta"}] * 2
    assert all(layer["beta"] != 1.0 for layer in trial.learned)
    assert trial.parameters == twin.parameters + 2
    assert trial.key.formula != twin.key.formula


@pytest.mark.parametrize("name", ["exo", "laplace"])
def test_any_formula_may_train(name: str) -> None:
    trial, fixed = run_trial(key_of(f"{name} (learned)")), run_trial(key_of(name))
    documented = activations.get(name).parameters
    assert [set(layer) for layer in trial.learned] == [set(documented)] * 2
    assert trial.learned[0] != documented
    assert trial.parameters == fixed.parameters + 2 * len(documented)
    assert trial.key.formula != fixed.key.formula


def test_a_control_trains_as_what_it_is_the_control_of() -> None:
    name = "learnable_selu_variation"
    trial, control = run_trial(key_of(name)), run_trial(key_of(f"{name} (retuned)"))
    assert (control.value, control.curve, control.learned) == (
        trial.value, trial.curve, trial.learned,
    )  # fmt: skip


def test_a_stream_is_scored_before_it_is_trained_on(tmp_path: Path) -> None:
    # Labels are drawn by chance: whoever is scored after training on a row knows its label.
    path = tmp_path / "stream.py"
    path.write_text(
        "import numpy as np\nfrom zeta.evaluate import Budget, Task\n"
        "rng = np.random.default_rng(0)\n"
        "x, y = rng.standard_normal((400, 30)), rng.integers(2, size=400)\n"
        "t = Task('chance', '', 'classification', lambda: (x, y), Budget(3, 1, 64), stream=True)\n"
    )
    source = f"{path}:t"
    trial = run_trial(key_of("relu", source, budget=Budget(3, 1, 64)))
    assert trial.value == pytest.approx(0.5, abs=0.1)
    assert len(trial.curve) == 3


NETWORK = """
import numpy as np
import torch
from torch import nn
from zeta.evaluate import Budget, Task

class Scored(nn.Module):
    def __init__(self, shape, make_activation):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 2), make_activation(), nn.Dropout(0.9))

    def forward(self, x):
        y = self.layers(x)
        return y if self.training else torch.zeros_like(y) + torch.tensor([1.0, 0.0])

def load():
    return np.random.default_rng(0).normal(size=(80, 4)), np.arange(80) % 4 // 3

t = Task("scored", "", "classification", load, Budget(1, 8, 4), network=Scored)
"""


@pytest.mark.parametrize("trials", [1, 2])
def test_networks_predict_when_they_are_scored(tmp_path: Path, trials: int) -> None:
    (tmp_path / "task.py").write_text(NETWORK)
    key = key_of("relu", f"{tmp_path}/task.py:t", budget=Budget(1, 8, 4))
    found = run_trials([replace(key, seed=seed) for seed in range(trials)])
    assert [trial.value for trial in found] == [0.75] * trials, "class 0 throughout"


def test_frozen_parameters_are_not_counted(tmp_path: Path) -> None:
    freezing = NETWORK.replace(
        "    def forward", "        self.layers[0].bias.requires_grad_(False)\n\n    def forward", 1
    )
    (tmp_path / "task.py").write_text(freezing)
    key = key_of("relu", f"{tmp_path}/task.py:t", budget=Budget(1, 8, 4))
    assert run_trial(key).parameters == 4 * 2


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Before any training, and without a folder."""
    for device, reason in (("meta", "meta"), ("cuda:9", "CUDA"), ("gpu", "device")):
        if device == "cuda:9" and torch.cuda.device_count() > 9:
            continue
        with pytest.raises(
            UserError, match=f"^device '{device}' cannot be used here: .*{reason}"
        ) as e:
            evaluate(["exo"], ["digits"], out=tmp_path / "out", device=device)
        assert "\n" not in str(e.value)
        with pytest.raises(UserError, match=f"^device '{device}' cannot be used here"):
            plan(["exo"], ["digits"], out=tmp_path / "out", device=device)
        assert not (tmp_path / "out").exists()


def test_weights_that_never_had_a_score_are_not_those_before_training() -> None:
    """Of two networks that stop by validation, one whose outputs are never finite."""
    from zeta.evaluate.training import _BestEpoch

    weight = torch.zeros(2, 3)
    best = _BestEpoch(SimpleNamespace(parameters={"weight": weight}, buffers={}))
    for scores in ([0.5, None], [0.4, None]):
        weight += 1
        best.note(scores)
    best.restore()
    assert weight[:, 0].tolist() == [1.0, 2.0]
