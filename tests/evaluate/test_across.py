"""The common scale, and what all tasks say together."""

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest

from answering import CONSTANT, noise, realistic, study, write_tasks
from zeta.evaluate import Settings, TrialKey, Verdict
from zeta.evaluate.across import judge_overall
from zeta.evaluate.analyse import analyse
from zeta.evaluate.compare import judge
from zeta.evaluate.pooling import pool
from zeta.evaluate.protocol import BASELINES
from zeta.evaluate.ranking import MIN_TASKS
from zeta.evaluate.report import render
from zeta.evaluate.results import AcrossTasks, Results, Run, Score, TaskInfo
from zeta.evaluate.runs import read_run
from zeta.evaluate.standings import standings
from zeta.evaluate.statistics import Estimate
from zeta.evaluate.wording import overall_figures

CANDIDATES = ("exo", "learnable_selu_variation", "laplace")


def results_of(folder: Path, tasks: int, value=realistic) -> Results:
    settings = Settings(CANDIDATES, write_tasks(folder, tasks), 10, tuning_seeds=(0,))
    return study(folder / "out", value, settings, drawn=True)[0]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(tmp_path_factory.mktemp("across"), MIN_TASKS)


@pytest.fixture(scope="module")
def across(results: Results) -> AcrossTasks:
    assert results.across
    return results.across


def test_the_anchor_is_one_and_the_constant_zero(tmp_path: Path) -> None:
    """Every baseline is right in nine of ten; exo halves the errors, laplace predicts nothing."""

    def value(key: TrialKey) -> float | None:
        return {"exo": 0.95, "laplace": None}.get(key.activation, 0.9)

    across = results_of(tmp_path, 2, value).across
    assert across
    means = {a.activation: a.interquartile_mean.value for a in across.aggregates}
    constant = CONSTANT
    assert means["laplace"] == 0
    assert [means[b] for b in BASELINES] == pytest.approx([1, 1, 1])
    assert means["exo"] == pytest.approx((0.95 - constant) / (0.9 - constant))


def test_twins_are_neither_ranked_nor_aggregated(across: AcrossTasks) -> None:
    assert {a.activation for a in across.aggregates} == {*CANDIDATES, *BASELINES}
    assert across.ranking
    assert set(across.ranking.ranks) == {*CANDIDATES, *BASELINES}


def test_each_candidate_and_each_ablation_has_an_answer(across: AcrossTasks) -> None:
    asked = [(o.candidate, o.question) for o in across.overall]
    assert asked == [*((c, "baseline") for c in CANDIDATES),
                     ("learnable_selu_variation", "ablation")]  # fmt: skip
    for o in across.overall:
        assert o.difference.low < o.difference.value < o.difference.high
        assert o.improvement.low <= o.improvement.value <= o.improvement.high
        assert o.p_adjusted >= o.p_value


def test_the_mean_difference_is_that_of_the_scaled_comparisons(
    results: Results, across: AcrossTasks
) -> None:
    laplace = next(o for o in across.overall if o.candidate == "laplace")
    effects, errors = [], []
    for task in results.tasks:
        tuned = {t.activation: t.score for t in results.tunings if t.task == task.source}
        anchor = max(BASELINES, key=lambda name: tuned[name])
        span = results.score(task.source, anchor).mean - CONSTANT
        c = results.comparison(task.source, "laplace")
        effects.append(c.mean / span)
        errors.append(c.error / span)
    expected = pool([task.source for task in results.tasks], effects, errors)
    assert laplace.difference.value == pytest.approx(expected.mean.value)
    assert laplace.p_value == pytest.approx(expected.p_value)
    assert len(laplace.pooled.without) == MIN_TASKS


@pytest.mark.parametrize(
    ("gains", "datasets", "verdict"),
    [
        ((0.05, 0.06, 0.05, 0.04), "abcd", Verdict.BETTER),
        ((0.0, 0.0, 0.5, 0.0), "abcd", Verdict.UNDECIDED),
        ((0.0, 0.5, 0.5, 0.5), "abbb", Verdict.UNDECIDED),
    ],
)
def test_one_data_set_does_not_decide_for_all(
    gains: Sequence[float], datasets: str, verdict: Verdict
) -> None:
    """Each has one vote, however clear it is and however many tasks it has."""

    def score(task: int, activation: str, gain: float) -> Score:
        values = tuple(0.9 + gain + (0.001 * seed if gain else 0) for seed in range(10))
        mean = sum(values) / 10
        return Score(f"{task}", activation, 0.01, 0, 0.1, values, mean, 1, 0, 0, 100, 0.1)

    pairs = [(score(i, "exo", g), score(i, "silu", 0)) for i, g in enumerate(gains)]
    infos = {
        f"{i}": TaskInfo(f"{i}", "", "accuracy", "", name, 10, 1 / 3, 1, 1, 1)
        for i, name in enumerate(datasets)
    }
    comparisons = judge(Settings(("exo",), tuple(infos)), infos, pairs)
    found = judge_overall(comparisons, pairs, [1.0] * len(gains), list(datasets))
    assert found.verdict is verdict
    assert found.pooled.shrunken.keys() == set(datasets)


def test_a_verdict_that_hangs_on_one_data_set_says_so(across: AcrossTasks) -> None:
    (overall, *_) = across.overall
    without = {"a": Estimate(0.1, 0.05, 0.15), "b": Estimate(0.1, -0.01, 0.2)}
    hanging = replace(
        overall, verdict=Verdict.BETTER, pooled=replace(overall.pooled, without=without)
    )
    assert overall_figures(hanging).endswith("; not so without b")
    assert "not so" not in overall_figures(replace(hanging, verdict=Verdict.UNDECIDED))


def test_profiles_fall_from_all_runs_to_few(across: AcrossTasks) -> None:
    for a in across.aggregates:
        assert list(a.profile) == sorted(a.profile, reverse=True)
        assert len(a.profile) == len(a.profile_low) == len(across.thresholds)


@pytest.mark.parametrize("lowered", [0.8, 0.795], ids=["worse than the constant", "within noise"])
def test_a_task_on_which_no_baseline_learns_is_left_out(tmp_path: Path, lowered: float) -> None:
    def value(key: TrialKey) -> float:
        return noise(key) - (lowered if key.task.endswith("task_1") else 0)

    results = results_of(tmp_path, 3, value)
    assert results.across
    assert [task[-6:] for task in results.across.tasks] == ["task_0", "task_2"]
    assert list(results.across.left_out.values()) == [
        "no baseline is clearly better than a constant prediction"
    ]
    assert "task_1 is left out: no baseline is clearly better" in results.report.read_text()


def silenced(results: Results, number: int) -> Results:
    """As if the first so many tasks did not tell activations apart."""
    tasks = tuple(replace(t, tells_apart=i >= number) for i, t in enumerate(results.tasks))
    run = {field.name: getattr(results, field.name) for field in fields(Run)}
    return analyse(Run(**run | {"tasks": tasks}), results.folder)


def test_what_tells_no_activations_apart_has_verdicts_and_no_part_in_averages(
    results: Results,
) -> None:
    found, (silent, *others) = silenced(results, 1), results.settings.tasks
    assert found.across
    assert found.across.tasks == tuple(others)
    assert found.across.left_out == {silent: "a linear network does as well"}
    assert found.comparisons == results.comparisons
    assert all(o.tasks == tuple(others) for o in found.across.overall)
    assert found.across.ranking is None, "the others are too few"
    of_others = replace(results, tasks=results.tasks[1:])
    assert [s.mean_rank for s in standings(found)] == [s.mean_rank for s in standings(of_others)]
    said = "On task_0 a linear network does as well; averages and ranks over tasks are made without"
    assert said in found.conclusion.paragraph


def test_one_task_that_tells_is_no_average(results: Results) -> None:
    found = silenced(results, MIN_TASKS - 1)
    assert found.across
    assert found.across.aggregates == found.across.overall == ()
    assert "; without, too few tasks are left to average over." in found.conclusion.paragraph
    page = " ".join(render(found).split())
    assert "that needs two tasks with a common scale. task_0, task_1" in page
    assert "task_3 and task_4 are left out: a linear network does as well." in page
    assert '<th>candidate</th><th>reference</th><th>verdict</th><th class="number">diff' not in page
    assert len(standings(silenced(results, MIN_TASKS))) == len(standings(results))


def test_older_results_do_not_say_which_tasks_tell(results: Results, tmp_path: Path) -> None:
    data = silenced(results, 2).to_json()
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert read_run(tmp_path).telling == results.tasks[2:]
    for task in data["protocol"]["tasks"]:
        del task["tells_apart"]
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert read_run(tmp_path).telling == results.tasks


def test_no_task_with_a_scale(tmp_path: Path) -> None:
    results = results_of(tmp_path, 2, lambda key: CONSTANT)
    assert results.across
    assert results.across.aggregates == results.across.overall == ()
    assert "All tasks together" in results.report.read_text()


def test_too_few_tasks_for_ranks_is_said(tmp_path: Path) -> None:
    results = results_of(tmp_path, 2)
    assert results.across
    assert results.across.ranking is None
    text = " ".join(results.report.read_text().split())
    assert "they need 6 tasks, here are 2" in text


def test_one_task_has_nothing_to_say_across(tmp_path: Path) -> None:
    results = results_of(tmp_path, 1)
    assert results.across is None
    assert "All tasks together" not in results.report.read_text()
