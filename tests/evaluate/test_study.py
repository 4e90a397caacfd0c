"""The orchestration, with an engine that answers at once; comparisons and words."""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from answering import CONSTANT, AnsweringEngine, noise, settings_for, study
from zeta._errors import UserError
from zeta.evaluate import Settings, TrialKey, Verdict, tasks
from zeta.evaluate.progress import Silent
from zeta.evaluate.results import short_names
from zeta.evaluate.run import make_settings
from zeta.evaluate.runs import rebuild
from zeta.evaluate.study import Study


def test_planted_effect_is_found_and_noise_is_not(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float:
        return noise(key) + {"exo": 0.03, "mish": -0.03}.get(key.activation, 0)

    results, _ = study(tmp_path, value, settings_for("exo", "mish", "elu"))
    verdicts = {c.candidate: c.verdict for c in results.comparisons}
    assert verdicts == {"exo": Verdict.BETTER, "mish": Verdict.WORSE, "elu": Verdict.UNDECIDED}
    assert results.conclusion.headline == "Better: exo on digits. Worse: mish on digits"
    assert "undecided on digits" in results.conclusion.candidates["elu"]


def test_an_activation_under_two_names_comes_out_equal(tmp_path: Path) -> None:
    path = tmp_path / "twin.py"
    path.write_text(
        "from zeta import formula\nfrom zeta.math import sigmoid\n@formula\ndef twin(x):\n"
        "    return x * sigmoid(x)\n"
    )
    by_maths: dict[tuple[object, ...], float] = {}

    def value(key: TrialKey) -> float:
        score = noise(key) + (0.1 if key.activation == "silu" else 0)
        return by_maths.setdefault((key.formula, key.seed, key.learning_rate), score)

    results, _ = study(tmp_path, value, settings_for(f"{path}:twin"))
    (c,) = results.comparisons
    assert (c.reference, c.mean, c.low, c.high, c.p_adjusted) == ("silu", 0, 0, 0, 1)
    assert c.verdict is Verdict.EQUIVALENT
    assert results.conclusion.headline == "Equivalent"
    assert c.improvement == 0.5


def test_every_activation_gets_the_same_grid_and_budget(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float:
        return noise(key) - abs(np.log10(key.learning_rate) + 2)  # best at 0.01, not on an edge

    results, engine = study(tmp_path, value, settings_for("exo"))
    assert {t.learning_rate for t in results.tunings} == {0.01}
    tuning = Counter(k.activation for k in engine.ran if k.phase == "tuning")
    assert tuning == dict.fromkeys(results.settings.activations, 5 * 2)
    final = [k for k in engine.ran if k.phase == "final"]
    assert Counter(k.activation for k in final) == dict.fromkeys(results.settings.activations, 10)
    assert {k.learning_rate for k in final} == {0.01}
    seeds = ({k.seed for k in engine.ran if k.phase == p} for p in ("tuning", "final"))
    assert not set.intersection(*seeds)


@pytest.mark.parametrize(
    ("sign", "expected"), [(1, (0.0003, 0.3)), (-1, (3e-5, 0.03))], ids=["upwards", "downwards"]
)
def test_a_winner_on_the_edge_extends_the_grid_twice(
    tmp_path: Path, sign: int, expected: tuple[float, float]
) -> None:
    def value(key: TrialKey) -> float:
        return sign * np.log10(key.learning_rate) if key.activation == "exo" else noise(key)

    results, _ = study(tmp_path, value, settings_for("exo"))
    grid = list(next(t for t in results.tunings if t.activation == "exo").validation)
    assert (grid[0], grid[-1], len(grid)) == (*expected, 7)


def test_what_is_uncertain_about_the_rate_is_in_the_final_trials(tmp_path: Path) -> None:
    """Each seed trains at the rate that wins in its own resample of the tuning seeds."""

    def value(key: TrialKey) -> float:
        if key.activation == "exo":  # sure of 0.01
            return -abs(np.log10(key.learning_rate) + 2)
        best = -2 if key.seed % 2 else -3  # every other tuning seed says 0.001
        return -abs(np.log10(key.learning_rate) - best)

    settings = replace(settings_for("exo", seeds=40), tuning_seeds=(0, 1, 2, 3, 4, 5))
    results, engine = study(tmp_path, value, settings, drawn=True)
    tunings = {t.activation: t for t in results.tunings}
    assert set(tunings["exo"].learning_rates) == {0.01}
    assert set(tunings["relu"].learning_rates) == {0.001, 0.003, 0.01}
    assert tunings["relu"].learning_rates == tunings["gelu"].learning_rates, "the same resamples"
    ran = {(k.activation, k.seed): k.learning_rate for k in engine.ran if k.phase == "final"}
    for name, tuning in tunings.items():
        assert [ran[name, seed] for seed in range(100, 140)] == list(tuning.learning_rates)
    score = results.score("digits", "relu")
    assert score.other_rates == tunings["relu"].others > 0
    assert f"{score.learning_rate:g} ({score.other_rates} others)" in results.report.read_text()


def test_a_rate_counts_with_its_neighbours(tmp_path: Path) -> None:
    """A lucky rate amid bad ones loses against a good one amid good ones."""
    scores = {0.0003: 0.5, 0.001: 0.8, 0.003: 0.8, 0.01: 0.5, 0.03: 0.82}
    results, _ = study(tmp_path, lambda key: scores.get(key.learning_rate, 0), settings_for("exo"))
    assert {t.learning_rate for t in results.tunings} == {0.003}
    (tuning, *_) = results.tunings
    assert tuning.validation[0.003] == pytest.approx((0.8 + 2 * 0.8 + 0.5) / 4)


def test_tasks_whose_trials_train_together_have_twice_the_seeds(tmp_path: Path) -> None:
    settings = Settings(("exo",), ("digits", "words_softmax"), tuning_seeds=(0,))
    results, _ = study(tmp_path, noise, settings)
    assert [task.seeds for task in results.tasks] == [20, 10]
    assert {len(c.differences) for c in results.comparisons} == {20, 10}
    assert "With learning rates tuned alike, 10 to 20 paired seeds" in results.conclusion.paragraph
    assert rebuild([tmp_path], tmp_path).to_json() == results.to_json()


def test_the_best_of_three_is_chosen_without_the_test_rows(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float:
        favourite = {"tuning": "gelu", "final": "relu"}[key.phase]
        return noise(key) + (0.2 if key.activation == favourite else 0)

    results, _ = study(tmp_path, value, settings_for("exo", "gelu"))
    best = {c.candidate: c.best for c in results.comparisons}
    assert best["exo"] == "gelu"
    assert best["gelu"] in ("relu", "silu"), "never itself"
    assert {c.reference for c in results.comparisons} == {"silu"}, "whatever is best"


def test_divergence_counts_as_the_constant_predictor_and_is_shown(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float | None:
        return None if key.activation == "exo" and key.seed % 2 else noise(key)

    results, _ = study(tmp_path, value, settings_for("exo"))
    score = results.score("digits", "exo")
    assert score.diverged == 5
    assert min(score.values) == CONSTANT
    assert "Training diverged for exo on digits (5 of 10)" in results.conclusion.paragraph


def test_too_few_seeds_to_tell(tmp_path: Path) -> None:
    results, _ = study(tmp_path, lambda k: noise(k) + (k.activation == "exo"),
                       settings_for("exo", seeds=4))  # fmt: skip
    assert results.comparisons[0].verdict is Verdict.TOO_FEW
    assert results.conclusion.headline == "Too few seeds to tell"


def test_resume_runs_only_what_is_missing_and_ends_alike(tmp_path: Path) -> None:
    def without_timing(folder: Path) -> object:
        data = json.loads((folder / "results.json").read_text())
        del data["timing"]
        for trial in data["trials"]:
            del trial["timing"]
        return data

    # Of digits' 30 epochs these leave the two that the engine's curves have.
    folder, settings = tmp_path / "out", replace(settings_for("exo"), epoch_divisor=15)
    _, engine = study(folder, noise, settings)
    before, total = without_timing(folder), len(engine.ran)
    lost = list(itertools.islice((folder / "trials").glob("*.json"), 7))
    for path in lost[:4]:
        path.unlink()
    for path in lost[4:]:
        path.write_text("{")
    results, engine = study(folder, noise, settings)
    assert len(engine.ran) == len(lost)
    assert without_timing(folder) == before
    assert results.timing["resumed"] == total - len(lost)
    study(tmp_path / "elsewhere", noise, settings)
    assert without_timing(tmp_path / "elsewhere") == before


def test_a_group_is_run_together_and_what_is_missing_of_one_alone(tmp_path: Path) -> None:
    settings = replace(settings_for("exo", seeds=20), epoch_divisor=15)
    _, engine = study(tmp_path, noise, settings)
    for activation in settings.activations:
        sizes = [len(g) for g in engine.groups if g[0].activation == activation]
        assert sorted(sizes[-2:]) == [4, 16], "twenty final trials, at most sixteen as one"
    group = next(g for g in engine.groups if len(g) == 16)
    (tmp_path / "trials" / f"{group[3].hex()}.json").unlink()
    _, engine = study(tmp_path, noise, settings)
    assert engine.groups == [[group[3]]]
    _, engine = study(tmp_path, noise, replace(settings, num_seeds=21))
    assert [len(group) for group in engine.groups] == [1] * len(settings.activations)


def test_long_groups_are_run_first(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text(
        "from dataclasses import replace\nfrom zeta.evaluate import Budget, tasks\n"
        "long = replace(tasks.get('digits'), name='long', budget=Budget(500, 64, 64))\n"
    )
    settings = Settings(("exo",), ("digits", f"{path}:long"), 4, tuning_seeds=(0, 1))
    engine = AnsweringEngine(noise, in_order=True)
    Study(settings, tmp_path / "out", engine, Silent()).run()
    in_turn = [group[0].task for group in engine.groups if group[0].phase == "tuning"]
    assert in_turn[: len(settings.activations)] == [f"{path}:long"] * len(settings.activations)


class Notes(Silent):
    """Keeps what the user should read."""

    def __init__(self) -> None:
        self.lines = list[str]()

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_skipped_tasks_are_noted_and_in_the_results(tmp_path: Path) -> None:
    skipped, notes = {"speech": "pip install 'zeta-nn[tasks]'"}, Notes()
    engine = AnsweringEngine(noise)
    results = Study(settings_for("exo"), tmp_path, engine, notes, skipped).run()
    assert results.to_json()["protocol"]["skipped"] == skipped
    assert notes.lines == ["task speech is skipped: pip install 'zeta-nn[tasks]'"]


def test_a_skipped_task_is_not_what_a_failing_run_talks_of(tmp_path: Path) -> None:
    """The error is all that a user has to read."""
    (tmp_path / "file").touch()
    notes, engine = Notes(), AnsweringEngine(noise)
    with pytest.raises(UserError, match="cannot write to"):
        Study(settings_for("exo"), tmp_path / "file", engine, notes, {"speech": "x"}).run()
    assert not notes.lines


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fashion-mnist").mkdir()
    monkeypatch.setenv("ZETA_DATASETS", str(tmp_path))
    settings, skipped = make_settings((), (), None, quick=False)
    assert settings.activations == (
        "exo", "learnable_selu_variation", "laplace", "relu", "gelu", "silu",
        "learnable_selu_variation (frozen)", "silu (retuned)",
    )  # fmt: skip
    assert {"digits", "diabetes"} <= set(settings.controlled) <= set(tasks.TASKS)
    assert settings.tasks == tuple(name for name in tasks.TASKS if name not in tasks.SLOW)
    assert not skipped
    monkeypatch.setenv("ZETA_DATASETS", str(tmp_path / "none"))
    settings, skipped = make_settings((), (), None, quick=False)
    assert {*settings.tasks, *skipped} == {*tasks.TASKS} - {*tasks.SLOW}
    assert list(skipped) == ["fashion_mnist"]
    settings, _ = make_settings((), ("words_softmax", "digits"), None, quick=False)
    assert settings.controlled == ("digits",), "trials of words are too long"
    assert ("words_softmax", "silu (retuned)") not in settings.pairs
    settings, _ = make_settings(("gelu", "gelu"), (), 7, quick=True)
    assert settings.activations == ("gelu", "relu", "silu")
    settings, _ = make_settings((), (), None, quick=True, reference="mish", rope=0.5)
    assert settings.activations[3:7] == ("relu", "gelu", "silu", "mish")
    assert settings.rope_of("accuracy") == 0.5
    for rope in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="rope must be a number from 0 up"):
            make_settings((), (), None, quick=True, rope=rope)
    with pytest.raises(UserError, match=r"seeds must be at least 2.*got 1"):
        make_settings((), (), 1, quick=False)


LEARNABLE = """
from zeta import formula
from zeta.math import sigmoid

@formula(beta=1.0, cut=3.0, learnable=("beta",))
def mine(x, beta, cut):
    return x * sigmoid(beta * x) + 0 * cut

@formula(beta=1.0)
def plain(x, beta):
    return x * sigmoid(beta * x)
"""


def candidates(*names: str, learn: bool = False) -> tuple[str, ...]:
    return make_settings(names, ("digits",), None, quick=True, learn=learn)[0].candidates


def test_a_name_says_whether_its_parameters_are_trained(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(LEARNABLE)
    mine, plain = f"{path}:mine", f"{path}:plain"
    assert candidates("exo", "prelu", mine, plain) == (
        "exo", "prelu", f"{mine} (learned)", plain,
    )  # fmt: skip
    assert candidates("exo", "prelu", plain, learn=True) == (
        "exo (learned)", "prelu", f"{plain} (learned)",
    )  # fmt: skip
    assert candidates("exo (learned)", "prelu (learned)", f"{mine} (frozen)") == (
        "exo (learned)", "prelu", f"{mine} (frozen)",
    )  # fmt: skip


def test_what_is_trained_has_a_frozen_twin() -> None:
    names = candidates("exo", "exo (learned)")
    settings = Settings(names, ("digits",), baselines=("relu",))
    assert settings.ablations == {"exo (learned)": "exo (frozen)"}
    assert settings.activations == ("exo", "exo (learned)", "relu", "silu", "exo (frozen)")


def test_baselines_are_chosen() -> None:
    def baselines(*names: str, candidate: str = "exo") -> tuple[str, ...]:
        asked = make_settings((candidate,), ("digits",), None, quick=True, baselines=names)
        return asked[0].baselines

    assert baselines() == ("relu", "gelu", "silu")
    assert baselines("relu", "prelu", "exo (learned)") == ("relu", "prelu", "exo (learned)")
    with pytest.raises(UserError, match="unknown activation 'gellu'; did you mean 'gelu'"):
        baselines("gellu")
    with pytest.raises(UserError, match="'relu' has no other baseline than itself; name another"):
        baselines("relu", candidate="relu")


def test_the_best_beside_the_reference_is_of_the_baselines_asked_for(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float:
        return noise(key) + {"silu": 0.2, "prelu": 0.1}.get(key.activation, 0)

    settings = replace(settings_for("exo"), baselines=("relu", "prelu"))
    results, _ = study(tmp_path, value, settings)
    assert [(c.reference, c.best) for c in results.comparisons] == [("silu", "prelu")]
    assert "difference to the best of relu and prelu" in " ".join(results.protocol)


def test_a_task_without_its_data_is_skipped_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speech = replace(tasks.get("digits"), missing=lambda: "pip install 'zeta-nn[tasks]'")
    monkeypatch.setattr(tasks, "TASKS", {"digits": tasks.get("digits"), "speech": speech})
    settings, skipped = make_settings((), (), None, quick=False)
    assert settings.tasks == ("digits",)
    assert skipped == {"speech": "pip install 'zeta-nn[tasks]'"}
    with pytest.raises(UserError, match=r"task 'speech': pip install 'zeta-nn\[tasks\]'"):
        make_settings((), ("digits", "speech"), None, quick=False)
    monkeypatch.delitem(tasks.TASKS, "digits")
    with pytest.raises(UserError, match="no task can be run: pip install"):
        make_settings((), (), None, quick=False)


def test_a_quick_look_takes_tasks_that_need_nothing_installed() -> None:
    settings, skipped = make_settings((), (), None, quick=True)
    assert settings.tasks == tasks.QUICK
    assert not skipped


def test_bad_names_are_found_before_the_folder_is_made(tmp_path: Path) -> None:
    for settings in (settings_for("exoo"), settings_for("exo", task="digit")):
        with pytest.raises(UserError, match="did you mean"):
            Study(settings, tmp_path / "out", AnsweringEngine(noise), Silent())
    assert not (tmp_path / "out").exists()


def test_what_could_fail_at_the_end_fails_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, str]:
        raise OSError("no such machine")

    monkeypatch.setattr("zeta.evaluate.study.environment", broken)
    engine = AnsweringEngine(noise)
    with pytest.raises(OSError, match="no such machine"):
        Study(settings_for("exo"), tmp_path, engine, Silent()).run()
    assert not engine.ran


def test_validation_rows_that_cannot_be_scored_are_found_before_any_training(
    tmp_path: Path,
) -> None:
    # Of 16 rows, two targets differ from the rest: one is tested by seed 0, none validated.
    path = tmp_path / "task.py"
    path.write_text(
        "import numpy as np\nfrom zeta.evaluate import Budget, Task\n"
        "anything = Task('t', '', 'regression', lambda: None, Budget(1, 2, 3))\n"
        "rows, test = anything._cut(np.zeros(16), np.arange(16), 0.25, 0)\n"
        "train, _ = anything._cut(np.zeros(16), rows, 0.25, 0)\n"
        "y = np.zeros(16)\ny[[test[0], train[0]]] = 1\n"
        "t = Task('rare', '', 'regression', lambda: (np.eye(16), y), Budget(1, 2, 3))\n"
    )
    settings = settings_for("exo", task=f"{path}:t")
    with pytest.raises(UserError, match=r"task 'rare': the 3 rows that score the tuning trials"):
        Study(settings, tmp_path, AnsweringEngine(noise), Silent())


def test_names_are_shortened_only_where_they_stay_distinct() -> None:
    assert short_names(["a.py:f", "b.py:f", "b.py:g"]) == {
        "a.py:f": "a.py:f", "b.py:f": "b.py:f", "b.py:g": "g",
    }  # fmt: skip
