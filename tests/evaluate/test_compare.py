"""Families, ablations, verdicts; and the two promises: no false alarms, effects are found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from answering import noise, settings_for, study, write_tasks
from zeta.evaluate import Settings, TrialKey, Verdict
from zeta.evaluate.compare import compare, judge
from zeta.evaluate.protocol import BASELINES, as_trained, frozen_twin
from zeta.evaluate.results import Comparison, Score, TaskInfo, Tuning
from zeta.evaluate.runs import rebuild
from zeta.evaluate.statistics import POWER, Array, benjamini_hochberg, detectable

LSELU = "learnable_selu_variation"


SEEDS, TEST_TO_TRAIN = 20, 1 / 3
SETTINGS = Settings(("exo",), ("digits",), rope=0.01)
DIGITS = TaskInfo("digits", "", "accuracy", "", "digits", SEEDS, TEST_TO_TRAIN, 1, 1, 1)


def simulate(rng: np.random.Generator, effect: float) -> Comparison:
    """One study of one candidate on one task, through all that compares real trials.

    Differences of splits that share rows are correlated as Nadeau and Bengio take them to be, by
    n_test / (n_test + n_train); their standard deviation is 1 and their mean ``effect``.
    """
    overlap = TEST_TO_TRAIN / (1 + TEST_TO_TRAIN)
    common = np.sqrt(overlap / (1 - overlap)) * rng.normal()
    luck = rng.normal(0, 1, SEEDS)
    tunings, scores = [], []
    for name in SETTINGS.activations:
        own = effect + common + rng.normal(0, 1, SEEDS) if name == "exo" else 0.0
        tunings.append(Tuning("digits", name, {0.01: 0.0}, (0.01,) * SEEDS))
        scores.append(score("digits", name, luck + own))
    (comparison,) = compare(SETTINGS, (DIGITS,), tunings, scores)
    return comparison


def score(task: str, activation: str, values: Array) -> Score:
    listed = tuple(map(float, values))
    return Score(
        task, activation, 0.01, 0, 0.1, listed, float(np.mean(values)), 1.0, 0.0, 0, 100, 0.1
    )


def called(studies: int, effect: float) -> int:
    """In how many studies a difference is called."""
    rng = np.random.default_rng(12)
    verdicts = [simulate(rng, effect).verdict for _ in range(studies)]
    return sum(v in (Verdict.BETTER, Verdict.WORSE) for v in verdicts)


def plausible(studies: int, rate: float) -> tuple[float, float]:
    """The counts that a rate gives in 99.9 of 100 runs."""
    low, high = stats.binom.interval(0.999, studies, rate)
    return float(low), float(high)


def test_the_same_activation_twice_is_told_apart_in_five_percent() -> None:
    low, high = plausible(400, 0.05)
    assert low <= called(400, effect=0) <= high


def test_the_detectable_effect_is_found_in_eighty_percent() -> None:
    low, high = plausible(400, POWER)
    assert low <= called(400, detectable(SEEDS, TEST_TO_TRAIN, 1)) <= high


@pytest.mark.slow
def test_how_often_exactly() -> None:
    effect = detectable(SEEDS, TEST_TO_TRAIN, 1)
    alarms, found = called(10_000, effect=0) / 10_000, called(10_000, effect) / 10_000
    print(f"called without a difference {alarms:.1%}, with {effect:.2f} sd {found:.1%}")
    assert 0.044 < alarms < 0.056
    assert 0.788 < found < 0.812


def verdict_of(*differences: float, rope: float = 0.01) -> Verdict:
    """Of a candidate that is so far ahead, seed by seed in turn."""
    candidate = score("digits", "exo", np.resize(differences, SEEDS))
    pair = candidate, score("digits", "silu", np.zeros(SEEDS))
    return judge(replace(SETTINGS, rope=rope), {"digits": DIGITS}, [pair])[0].verdict


def test_verdicts_by_the_region_of_practical_equivalence() -> None:
    assert verdict_of(0.02, 0.03) is Verdict.BETTER
    assert verdict_of(-0.02, -0.03) is Verdict.WORSE
    assert verdict_of(0.002, 0.003) is Verdict.EQUIVALENT, "it is not 0, and of no importance"
    assert verdict_of(0.002, 0.003, rope=0.001) is Verdict.BETTER
    assert verdict_of(0.009, 0.013) is Verdict.BETTER, "above 0, and not inside"
    assert verdict_of(0.008, -0.008) is Verdict.UNDECIDED
    assert verdict_of(0.0, 0.0, rope=0.0) is Verdict.EQUIVALENT


def test_data_are_too_small_where_more_seeds_could_not_decide() -> None:
    assert verdict_of(0.05, -0.05) is Verdict.TOO_SMALL
    assert verdict_of(0.0446, 0.0046) is Verdict.UNDECIDED, "more seeds may find so much"
    assert verdict_of(0.05, -0.05, rope=0.0) is Verdict.UNDECIDED, "nothing is too small for none"
    assert verdict_of(0.06, 0.02, rope=0.001) is Verdict.BETTER, "which small data can show"


def test_too_few_seeds_come_before_data_that_are_too_small() -> None:
    few = replace(DIGITS, seeds=3)
    candidate, silu = (
        replace(score("digits", name, np.array(values)), values=values)
        for name, values in (("exo", (0.1, -0.1, 0.0)), ("silu", (0.0, 0.0, 0.0)))
    )
    assert judge(SETTINGS, {"digits": few}, [(candidate, silu)])[0].verdict is Verdict.TOO_FEW


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, ...]:
    """A learnable candidate whose training helps, and one that is better than the baselines."""
    gains = {LSELU: 0.02, frozen_twin(LSELU): 0.0, "exo": 0.03}

    def value(key: TrialKey) -> float:
        return noise(key) + gains.get(key.activation, 0.02)

    folder = tmp_path_factory.mktemp("several")
    settings = Settings((LSELU, "exo"), write_tasks(folder, 3), 10, tuning_seeds=(0,))
    return study(folder / "out", value, settings)[0].comparisons


def test_a_learnable_candidate_is_compared_with_its_frozen_twin(
    several: tuple[Comparison, ...],
) -> None:
    ablations = [c for c in several if c.question == "ablation"]
    assert {(c.candidate, c.reference) for c in ablations} == {(LSELU, frozen_twin(LSELU))}
    assert {c.verdict for c in ablations} == {Verdict.BETTER}
    assert len(ablations) == 3


def test_a_twin_is_neither_candidate_nor_reference(several: tuple[Comparison, ...]) -> None:
    asked = [c for c in several if c.question == "baseline"]
    assert {c.candidate for c in asked} == {LSELU, "exo"}
    assert {c.reference for c in asked} <= set(BASELINES)


def test_all_comparisons_of_a_question_are_one_family(several: tuple[Comparison, ...]) -> None:
    for question, size in (("baseline", 6), ("ablation", 3)):
        members = [c for c in several if c.question == question]
        assert len(members) == size
        expected = benjamini_hochberg([c.p_value for c in members])
        assert [c.p_adjusted for c in members] == expected


def test_the_best_of_three_is_beside_it(several: tuple[Comparison, ...]) -> None:
    asked = [c for c in several if c.question == "baseline"]
    assert {c.reference for c in asked} == {"silu"}
    assert {c.best for c in asked} <= set(BASELINES)
    assert all(c.best_difference for c in asked)


def test_the_reference_is_never_the_candidate_itself(tmp_path: Path) -> None:
    settings = replace(settings_for("exo", "elu"), reference="elu")
    results, _ = study(tmp_path, noise, settings)
    assert [(c.candidate, c.reference) for c in results.comparisons] == [
        ("exo", "elu"), ("elu", "relu"),
    ]  # fmt: skip
    assert settings.activations == ("exo", "elu", "relu", "gelu", "silu")


def test_controls_are_the_reference_against_itself(tmp_path: Path) -> None:
    """Tuned with other seeds, as it is and raised by one standard deviation of its scores."""

    def value(key: TrialKey) -> float:
        return noise(replace(key, activation=as_trained(key.activation)))

    settings = replace(settings_for("exo"), controlled=("digits",), rope=0.001)
    results, engine = study(tmp_path, value, settings, drawn=True)
    retuned, planted = results.controls
    assert (retuned.mean, retuned.verdict) == (0, Verdict.EQUIVALENT)
    assert planted.mean == pytest.approx(results.score("digits", "silu").sd)
    assert planted.verdict is Verdict.BETTER
    said = results.conclusion.paragraph
    assert "was called different from itself on 0 of 1 task; raised by one standard" in said
    assert "deviation of its scores, on 1." in said
    assert "<h3>Controls</h3>" in results.report.read_text()
    seeds = [
        {key.seed for key in engine.ran if (key.phase, key.activation) == ("tuning", name)}
        for name in ("silu", settings.control)
    ]
    assert not set.intersection(*seeds)
    assert rebuild([tmp_path], tmp_path).to_json() == results.to_json()


def test_a_control_that_differs_is_a_false_alarm_that_is_told(tmp_path: Path) -> None:
    def value(key: TrialKey) -> float:
        return noise(key) + (0.05 if key.activation == "silu (retuned)" else 0)

    settings = replace(settings_for("exo"), controlled=("digits",))
    results, _ = study(tmp_path, value, settings)
    assert "different from itself on 1 of 1 task" in results.conclusion.paragraph
    assert [c.candidate for c in results.comparisons] == ["exo"], "and is no candidate"


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(10, "left undecided whether it matters"), (3, "was tried with too few seeds to tell")],
)
def test_the_ablation_in_words(tmp_path: Path, seeds: int, words: str) -> None:
    results, _ = study(tmp_path, noise, settings_for(LSELU, seeds=seeds))
    expected = f"training its parameters {words} on digits"
    assert results.conclusion.ablations == {LSELU: expected}
