"""Tasks under conditions: other initial weights, a larger budget; and what verdicts make of it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from answering import noise, settings_for, study
from zeta import activations
from zeta._errors import UserError
from zeta.evaluate import Budget, Task, TrialKey, Verdict, evaluate, formula_fingerprint, tasks
from zeta.evaluate.dependence import conclude
from zeta.evaluate.initialisation import match_variance, matched_gain
from zeta.evaluate.plan import Plan
from zeta.evaluate.results import Results
from zeta.evaluate.run import make_settings
from zeta.evaluate.runs import rebuild
from zeta.evaluate.stack import Alone, Networks, networks_of
from zeta.evaluate.terminal import print_plan, print_results
from zeta.evaluate.training import _BestEpoch, make_network, run_trials
from zeta.evaluate.versus import versus

BUDGET = Budget(epochs=4, batch_size=64, width=16)
STUDIED = ("digits", "digits (matched)", "digits (4x)")


def key_of(activation: str, task: str, **changes: object) -> TrialKey:
    formula, data = activations.get(activation), tasks.get(task).fingerprint()
    fingerprint = formula_fingerprint(activation, formula)
    key = TrialKey(task, data, activation, fingerprint, 0.01, 100, "final", BUDGET)
    return replace(key, **changes)


def test_a_condition_is_part_of_a_tasks_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from zeta.evaluate import tasks\nmine = tasks.get('diabetes')\n")
    for source in ("diabetes", f"{path}:mine"):
        task, data = tasks.get(source), tasks.get(source).fingerprint()
        matched, larger = tasks.get(f"{source} (matched)"), tasks.get(f"{source} (4x)")
        assert (task.matched, task.stopping, matched.matched, larger.stopping) == (0, 0, 1, 1)
        assert matched.budget == task.budget
        assert larger.budget == replace(task.budget, epochs=4 * task.budget.epochs)
        assert matched.fingerprint() == larger.fingerprint() == data
        assert matched.dataset == larger.dataset == source
    with pytest.raises(UserError, match="unknown task 'diabetes \\(8x\\)'"):
        tasks.get("diabetes (8x)")
    with pytest.raises(UserError, match="is under a condition already; name the task itself"):
        tasks.get("diabetes (matched) (4x)")
    with pytest.raises(UserError, match="a stream is seen in one pass"):
        tasks.get("shuttle_stream (4x)")
    with pytest.raises(UserError, match="its networks come with weights"):
        tasks.get("transfer (matched)")


def test_keys_are_what_they_were() -> None:
    key = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
    assert key.hex() == "d22d7b7354b160e8484c32bea473f6e7"


@pytest.mark.parametrize("name", ["relu", "elu", "tanh", "exo"])
def test_matched_weights_keep_the_variance_of_signals(name: str) -> None:
    formula = getattr(activations, name)
    width, layers = 256, 12
    made = [formula.module() for _ in range(layers)]
    hidden = [module for one in made for module in (nn.Linear(width, width), one)]
    network = nn.Sequential(*hidden)
    match_variance(network, made, matched_gain(name, formula), seed=0)
    x, sizes = torch.randn(256, width), []
    with torch.no_grad():
        for module in network:
            x = module(x)
            sizes += [float(x.square().mean())] if isinstance(module, nn.Linear) else []
    # Each layer's is off by a factor of some 1 ± 2/√256, and the factors multiply.
    assert all(0.5 < size < 2 for size in sizes), sizes
    assert all(not module.bias.any() for module in network if isinstance(module, nn.Linear))


def test_equal_seeds_draw_equal_numbers_for_every_activation() -> None:
    def numbers(name: str, seed: int = 100) -> list[torch.Tensor]:
        gain = matched_gain(name, getattr(activations, name))
        key, task = key_of(name, "digits (matched)", seed=seed), tasks.get("digits_conv (matched)")
        network = make_network(task, getattr(activations, name), key)
        layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        scales = [1.0, *[gain] * (len(layers) - 1)]
        return [
            layer.weight.detach() * math.sqrt(layer.weight[0].numel()) / scale
            for layer, scale in zip(layers, scales, strict=True)
        ]

    for ours, theirs in zip(numbers("tanh"), numbers("gelu"), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert abs(float(ours.std()) - 1) < 4 / math.sqrt(2 * ours.numel())
    assert not numbers("tanh")[0].equal(numbers("tanh", seed=101)[0])


def test_gains_of_gates() -> None:
    for gate, activation in (("swiglu", "silu"), ("geglu", "gelu"), ("reglu", "relu")):
        expected = matched_gain(activation, getattr(activations, activation))
        assert matched_gain(gate, getattr(activations, gate)) == pytest.approx(expected, rel=1e-6)
    # E[relu(z)²]² = 1/4
    assert matched_gain("drelu", activations.drelu) == pytest.approx(2, rel=1e-4)


def test_with_stopping_final_trials_train_on_what_tuning_trials_do() -> None:
    task, usual = tasks.get("digits (4x)"), tasks.get("digits")
    final, tuning = task.split("final", 3), task.split("tuning", 3)
    np.testing.assert_array_equal(final.train_x, tuning.train_x)
    np.testing.assert_array_equal(final.stop_x, tuning.stop_x)
    np.testing.assert_array_equal(tuning.stop_x, tuning.score_x)
    np.testing.assert_array_equal(final.score_y, usual.split("final", 3).score_y)
    rows = len(final.train_x) + len(final.stop_x) + len(final.score_x)
    assert rows == len(task.load()[1])
    assert task.test_to_train() == usual.test_to_train(), "the test rows that splits share"
    assert len(usual.split("final", 3).stop_x) == 0


def test_equal_targets_of_rows_that_say_when_to_stop_are_refused() -> None:
    """Of seed 111 the rows that train and those that score have some of the few other targets."""
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.zeros(60)
    y[:6] = np.arange(1, 7)
    rare = Task("rare", "", "regression", lambda: (x, y), Budget(3, 8, 8))
    assert np.ptp(rare.split("final", 111).score_y) > 0
    with pytest.raises(UserError, match="the 11 rows that say which epoch is best all have the"):
        replace(rare, stopping=True).split("final", 111)


def test_an_activation_without_a_gain_is_refused_before_any_training(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from zeta import formula\nfrom zeta.math import exp\n@formula\ndef steep(x):\n"
        "    return exp(x * x)\n"
    )
    with pytest.raises(UserError, match=r"steep' has no variance-preserving initialisation: the"):
        evaluate([f"{path}:steep"], ["diabetes"], init=("default", "matched"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [1, 2])
def test_the_weights_of_each_networks_best_epoch_are_kept(number: int) -> None:
    layers = [nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(number)]
    networks = networks_of(layers, [0.1] * number)
    best, seen = _BestEpoch(networks), list[dict[str, torch.Tensor]]()
    for scores in ((0.5, None), (0.5, 0.3), (0.4, 0.6), (None, 0.6)):
        networks(torch.randn(number, 5, 3)).sum().backward()
        networks.step()
        seen.append(state_of(networks))
        best.note(scores[:number])
    best.restore()
    for name, now in state_of(networks).items():
        for network, epoch in enumerate((0, 2)[:number]):
            assert now[network].equal(seen[epoch][name][network]), name
            assert not now[network].equal(seen[3][name][network]), name


def state_of(networks: Networks) -> dict[str, torch.Tensor]:
    state = {**networks.parameters, **networks.buffers}
    return {name: now.detach().clone() for name, now in state.items()}


def test_the_learning_rate_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = list[float]()
    step = Alone.step

    def noted(self: Alone, share: float = 1.0) -> None:
        step(self, share)
        shares.append(self._optimizer.param_groups[0]["lr"] / 0.01)

    monkeypatch.setattr(Alone, "step", noted)
    run_trials([key_of("relu", "digits (4x)")])
    half = len(shares) // 2
    assert shares[0] == 1
    assert shares[half] == pytest.approx(0.5, abs=0.01)
    assert 0 < shares[-1] < 1e-3
    assert shares == sorted(shares, reverse=True)
    shares.clear()
    run_trials([key_of("relu", "digits (matched)")])
    assert {*shares} == {1.0}


@pytest.mark.parametrize("phase", ["tuning", "final"])
def test_the_best_epoch_is_scored(monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Alone and stacked; of a tuning trial its score is the best that was seen."""
    seen = list[list[float | None]]()
    note = _BestEpoch.note
    monkeypatch.setattr(
        _BestEpoch, "note", lambda self, scores: (seen.append(list(scores)), note(self, scores))
    )
    keys = [
        key_of("relu", "digits (4x)", phase=phase, learning_rate=rate, seed=seed)
        for rate in (0.003, 0.3)
        for seed in (7, 8)
    ]
    together = run_trials(keys)
    by_epoch = np.array(seen, dtype=float)
    assert len(by_epoch) == BUDGET.epochs
    assert (by_epoch.argmax(axis=0) < BUDGET.epochs - 1).any(), "one got worse towards the end"
    if phase == "tuning":
        assert [trial.value for trial in together] == by_epoch.max(axis=0).tolist()
    assert run_trials(keys[:1])[0].value == pytest.approx(together[0].value, abs=1 / 400)


def test_a_diverged_trial_stays_so() -> None:
    (sound, diverged) = run_trials(
        [
            key_of("squared_relu", "digits (4x)", learning_rate=0.001),
            key_of("squared_relu", "digits (4x)", learning_rate=1e12),
        ]
    )
    assert sound.status == "ok"
    assert (diverged.status, diverged.value) == ("diverged", None)


def test_the_tasks_of_a_run_are_a_star() -> None:
    both = {"init": ("default", "matched"), "budget": (1, 4)}
    settings, skipped = make_settings(("prelu",), ("digits", "diabetes"), None, False, **both)
    assert settings.tasks == (
        *("digits", "digits (matched)", "digits (4x)"),
        *("diabetes", "diabetes (matched)", "diabetes (4x)"),
    )
    assert settings.own_tasks == settings.controlled == ("digits", "diabetes")
    assert settings.variants["digits (4x)"] == "digits"
    on_variant = [name for task, name in settings.pairs if task == "digits (4x)"]
    assert on_variant == ["prelu", "relu", "gelu", "silu"], "neither twin nor control"
    assert not skipped
    assert make_settings(("elu",), ("digits",), None, False)[0].tasks == ("digits",)
    alone, _ = make_settings(("elu",), ("digits (4x)",), None, False)
    assert (alone.own_tasks, alone.variants) == (("digits (4x)",), {}), "as any task"


def test_what_cannot_be_run_under_a_condition() -> None:
    settings, skipped = make_settings(
        (), (), None, False, init=("default", "matched"), budget=("1", "4")
    )
    assert "shuttle_stream" in settings.tasks
    assert "seen in one pass" in skipped["shuttle_stream (4x)"]
    assert "come with weights" in skipped["transfer (matched)"]
    for changes, message in (
        ({"budget": (1, 4)}, "task 'shuttle_stream \\(4x\\)': a stream is seen in one pass"),
        ({"init": ("default", "he")}, "init must be of default and matched, got 'he'"),
        ({"init": ("matched",)}, "init must have default among its values, with which"),
        ({"budget": ("4",)}, "budget must have 1 among its values, with which the others are"),
        ({"budget": (1, 3)}, "budget must be of 1 and 4, got '3'"),
        ({"budget": ()}, "budget must have 1 among its values"),
    ):
        with pytest.raises(UserError, match=message):
            make_settings(("elu",), ("shuttle_stream",), None, False, **changes)


def test_verdicts_as_one() -> None:
    worse, equal = Verdict.WORSE, Verdict.EQUIVALENT
    assert conclude("matched", worse, worse, 0.001) == "holds"
    assert conclude("matched", worse, equal, 0.049) == "depends on initialisation"
    assert conclude("4x", worse, equal, 0.049) == "depends on budget"
    assert conclude("4x", worse, equal, 0.05) == "not told apart"
    assert conclude("4x", Verdict.TOO_FEW, Verdict.TOO_FEW, 0.001) == "not told apart"


def planted(key: TrialKey) -> float:
    """By default elu is worse and tanh better; with matched weights both are like silu."""
    own = np.random.default_rng([key.seed, *f"{key.task} {key.activation}".encode()]).normal()
    effect = {"elu": -0.05, "tanh": 0.05}.get(key.activation, 0.0)
    effect = 0.0 if key.task.endswith("(matched)") else effect
    return noise(key) + 0.002 * float(own) + (-0.05 if key.activation == "mish" else effect)


@pytest.fixture(scope="module")
def conditioned(tmp_path_factory: pytest.TempPathFactory) -> Results:
    settings = replace(settings_for("elu", "tanh", "mish", "learnable_selu_variation"),
                       tasks=STUDIED)  # fmt: skip
    return study(tmp_path_factory.mktemp("conditions"), planted, settings, drawn=True)[0]


def test_what_depends_on_a_condition_is_found(conditioned: Results) -> None:
    found = {(d.candidate, d.condition): d for d in conditioned.dependences}
    assert {name: found[name, "matched"].finding for name in ("elu", "tanh", "mish")} == {
        "elu": "depends on initialisation", "tanh": "depends on initialisation", "mish": "holds",
    }  # fmt: skip
    assert {found[name, "4x"].finding for name in ("elu", "tanh", "mish")} == {"holds"}
    elu = found["elu", "matched"]
    assert (elu.task, elu.reference, elu.default) == ("digits", "silu", Verdict.WORSE)
    assert elu.verdict is not Verdict.WORSE
    on = {(c.task, c.candidate): c for c in conditioned.comparisons if c.question != "ablation"}
    expected = np.subtract(on[STUDIED[1], "elu"].differences, on["digits", "elu"].differences)
    assert elu.change.value == pytest.approx(expected.mean())
    assert elu.change.low < 0.05 < elu.change.high
    by_p = sorted(conditioned.dependences, key=lambda d: d.p_value)
    assert by_p[-1].p_adjusted == by_p[-1].p_value
    assert by_p[0].p_adjusted >= by_p[0].p_value, "corrected over all"


def test_variants_have_no_part_in_other_statistics(conditioned: Results, tmp_path: Path) -> None:
    settings = replace(conditioned.settings, tasks=("digits",))
    alone, _ = study(tmp_path, planted, settings)
    usual = [c for c in conditioned.comparisons if c.question != "condition"]
    assert usual == list(alone.comparisons)
    assert conditioned.across is None
    assert {c.task for c in conditioned.comparisons if c.question == "condition"} == {*STUDIED[1:]}
    asked = versus(conditioned, "elu", "tanh")
    assert [*asked.comparisons] == [*STUDIED]
    assert asked.comparisons["digits"] == versus(alone, "elu", "tanh").comparisons["digits"]
    twin = versus(conditioned, "elu", "learnable_selu_variation (frozen)")
    assert [*twin.comparisons] == ["digits"]
    between = versus(conditioned, "digits", "digits (matched)")
    assert "elu" in between.comparisons


def test_outputs_say_what_depends(conditioned: Results, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(conditioned)
    shown = " ".join(capsys.readouterr().out.split())
    conclusion = conditioned.conclusion
    assert conclusion.headline.endswith("Depends on initialisation: elu and tanh on digits")
    assert conclusion.headline in shown
    assert "depends on initialisation on digits (worse by default, " in shown
    assert "2 changed with initialisation" in conclusion.paragraph
    page = conditioned.report.read_text()
    assert "<td>depends on initialisation</td>" in page
    assert "digits (matched): difference in accuracy" in page
    assert "Conditions: tasks are run once more" in " ".join(conditioned.protocol)
    assert rebuild([conditioned.folder], conditioned.folder).to_json() == conditioned.to_json()
    assert "depends" not in " ".join(conclusion.candidates["mish"])
    plan = Plan((), 0, 2, 4, under_conditions=8)
    print_plan(plan)
    assert "the only one of 4, or of 8 under conditions." in capsys.readouterr().out
