"""`zeta compare`: the pairs, the words, the errors."""

from dataclasses import replace
from pathlib import Path

import pytest

from answering import noise, realistic, study, write_tasks
from zeta._errors import UnknownNameError, UserError
from zeta.evaluate import Settings, TrialKey, Verdict
from zeta.evaluate.results import Results
from zeta.evaluate.statistics import benjamini_hochberg
from zeta.evaluate.versus import describe, versus


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("versus")
    settings = Settings(("exo", "laplace"), write_tasks(folder, 3), 10, tuning_seeds=(0,))
    return study(folder / "out", realistic, settings)[0]


def test_two_activations_on_each_task_and_over_all(results: Results) -> None:
    found = versus(results, "exo", "laplace")
    assert list(found.comparisons) == list(results.settings.tasks)
    for task, c in found.comparisons.items():
        a, b = results.score(task, "exo"), results.score(task, "laplace")
        assert c.differences == tuple(x - y for x, y in zip(a.values, b.values, strict=True))
    comparisons = found.comparisons.values()
    assert [c.p_adjusted for c in comparisons] == benjamini_hochberg(
        [c.p_value for c in comparisons]
    )
    assert found.overall
    assert found.overall.difference.value > 0
    assert found.overall.verdict is Verdict.BETTER


def test_the_other_way_round_is_the_opposite(results: Results) -> None:
    one, other = versus(results, "exo", "laplace"), versus(results, "laplace", "exo")
    assert one.overall
    assert other.overall
    assert one.overall.difference.value == pytest.approx(-other.overall.difference.value)
    assert one.overall.improvement.value == pytest.approx(1 - other.overall.improvement.value)
    assert one.overall.p_value == pytest.approx(other.overall.p_value, abs=0.01)


def test_the_words(results: Results) -> None:
    sentences = describe(versus(results, "exo", "laplace"), results.names)
    assert len(sentences) == 4
    assert sentences[0].startswith("task_0: exo is better than laplace (+0.0")
    assert sentences[-1].startswith("Over 3 tasks together, exo is better than laplace: mean")


def test_the_control_is_no_activation_to_compare(results: Results, tmp_path: Path) -> None:
    settings = results.settings
    controlled = replace(settings, controlled=settings.tasks)
    found = study(tmp_path, realistic, controlled)[0]
    assert versus(found, "exo", "laplace") == versus(results, "exo", "laplace")
    with pytest.raises(UnknownNameError, match="unknown activation or task 'silu \\(retuned\\)'"):
        versus(found, "exo", "silu (retuned)")


def test_two_tasks_of_the_same_data(tmp_path: Path) -> None:
    (first,) = write_tasks(tmp_path, 1)
    copy = first.replace("task_0", "other_layer")
    with (tmp_path / "tasks.py").open("a") as file:
        file.write("from dataclasses import replace\n")
        file.write("other_layer = replace(task_0, name='other_layer')\n")

    def value(key: TrialKey) -> float:
        return noise(key) + (0.05 if key.task == copy else 0.0) + 0.001 * (key.seed % 3)

    results, _ = study(
        tmp_path / "out", value, Settings(("exo",), (first, copy), 10, tuning_seeds=(0,))
    )
    found = versus(results, "other_layer", "task_0")
    assert found.kind == "task"
    assert list(found.comparisons) == list(results.settings.activations)
    assert {c.verdict for c in found.comparisons.values()} == {Verdict.BETTER}
    assert found.overall
    assert found.overall.difference.value == pytest.approx(0.05)
    sentences = describe(found, results.names)
    assert sentences[0].startswith("exo: other_layer is better than task_0 (+0.0500")
    assert sentences[-1].startswith("Over 4 activations together, other_layer is better than")


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("exo", "exo", "cannot be compared with itself"),
        ("exo", "task_0", "'exo' is one activation and '.*task_0' one task"),
        ("task_0", "task_1", "differ in their data"),
        ("exo", "mish", "unknown activation or task 'mish'"),
    ],
)
def test_what_cannot_be_compared(results: Results, a: str, b: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        versus(results, a, b)


def test_the_nearest_name_is_suggested(results: Results) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'laplace'"):
        versus(results, "exo", "laplac")
