"""Families, ablations, verdicts; and the two promises: no false alarms, effects are found."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from answering import noise, settings_for, study, write_tasks
from zeta.evaluate import Settings, TrialKey, Verdict
from zeta.evaluate.compare import compare, enough_pairs
from zeta.evaluate.protocol import BASELINES, frozen_twin
from zeta.evaluate.results import Comparison, Score, Tuning
from zeta.evaluate.statistics import Array, holm

LSELU = "learnable_selu_variation"


def simulate(rng: np.random.Generator, effect: float) -> Comparison:
    """One study of one candidate on one task, through all that compares real trials.

    Seeds share a part of their luck, as paired trials do; the paired differences have a standard
    deviation of 1 and the mean ``effect``.
    """
    settings = Settings(("exo",), ("digits",))
    shared = rng.normal(0, 1, settings.num_seeds)
    tunings, scores = [], []
    for name in settings.activations:
        own = rng.normal(0, np.sqrt(0.5), settings.num_seeds)
        values = shared + own + (effect if name == "exo" else 0.0)
        validation = {0.01: 1.0 if name == BASELINES[0] else 0.0}
        tunings.append(Tuning("digits", name, validation, 0.01))
        scores.append(score("digits", name, values))
    (comparison,) = compare(settings, tunings, scores)
    return comparison


def score(task: str, activation: str, values: Array) -> Score:
    listed = tuple(map(float, values))
    return Score(
        task, activation, 0.01, listed, float(np.mean(values)), 1.0, 0.0, 0, 100, 0.1
    )  # fmt: skip


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


def test_an_effect_of_one_standard_deviation_is_found_in_eighty_percent() -> None:
    low, high = plausible(400, 0.8)
    assert low <= called(400, effect=1) <= high


@pytest.mark.slow
def test_how_often_exactly() -> None:
    """Student's t, which knows that the differences are normal, would find 80.3 percent."""
    alarms, found = called(10_000, effect=0) / 10_000, called(10_000, effect=1) / 10_000
    print(f"called without a difference {alarms:.1%}, with one standard deviation {found:.1%}")
    assert 0.04 < alarms < 0.055
    assert 0.78 < found < 0.81


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, ...]:
    """A learnable candidate whose training helps, and one that is better than the baselines."""
    gains = {LSELU: 0.02, frozen_twin(LSELU): 0.0, "exo": 0.03}

    def value(key: TrialKey) -> float:
        return noise(key) + gains.get(key.activation, 0.02)

    folder = tmp_path_factory.mktemp("several")
    settings = Settings((LSELU, "exo"), write_tasks(folder, 3))
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


def test_holm_is_over_the_tasks_of_each_candidate_and_question(
    several: tuple[Comparison, ...],
) -> None:
    families = {(c.candidate, c.question) for c in several}
    assert len(families) == 3
    for family in families:
        members = [c for c in several if (c.candidate, c.question) == family]
        assert [c.p_adjusted for c in members] == holm([c.p_value for c in members])


def test_the_default_evaluation_could_find_something() -> None:
    """Ten seeds suffice for a family of twelve tasks, not for three candidates' at once."""
    assert enough_pairs(10, 12)
    assert not enough_pairs(10, 36)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(10, "made no difference that was found"), (3, "was tried with too few seeds to tell")],
)
def test_the_ablation_in_words(tmp_path: Path, seeds: int, words: str) -> None:
    results, _ = study(tmp_path, noise, settings_for(LSELU, seeds=seeds))
    expected = f"training its parameters {words} on digits"
    assert results.conclusion.ablations == {LSELU: expected}
