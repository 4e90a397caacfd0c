"""Runs read back and merged: the same results, or one clear line."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from answering import realistic, study, write_tasks
from zeta._errors import UserError
from zeta.evaluate import Settings
from zeta.evaluate.report import render, write_report
from zeta.evaluate.results import FORMAT, Results
from zeta.evaluate.runs import merge, read_run, rebuild

Finished = Callable[..., Path]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return write_tasks(tmp_path_factory.mktemp("tasks"), 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The folder of a finished run; each is run once."""

    @cache
    def finished(
        candidates: tuple[str, ...], tasks: tuple[str, ...], seeds: int = 3, drawn: bool = False
    ) -> Path:
        folder = tmp_path_factory.mktemp("run")
        settings = Settings(candidates, tasks, seeds, tuning_seeds=(0,), grid_steps=(-6, -5, -4))
        study(folder, realistic, settings, drawn)
        return folder

    return finished


def edited(folder: Path, copy: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A folder with the changed results of another."""
    data = json.loads((folder / "results.json").read_text())
    change(data)
    copy.mkdir()
    (copy / "results.json").write_text(json.dumps(data))
    return copy


def as_json(results: Results) -> dict[str, Any]:
    return json.loads(json.dumps(results.to_json()))


def test_a_report_is_rebuilt_to_the_letter(run: Finished, tasks: tuple[str, ...]) -> None:
    folder = run(("exo", "laplace"), tasks, drawn=True)
    results = rebuild([folder], folder)
    assert render(results) == results.report.read_text()
    assert as_json(results) == json.loads((folder / "results.json").read_text())


def test_it_needs_neither_formulas_nor_tasks(run: Finished, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, 1)
    mine = tmp_path / "mine.py"
    mine.write_text("from zeta import formula\n@formula\ndef mine(x):\n    return x / abs(x)\n")
    folder = run((f"{mine}:mine",), tasks)
    mine.unlink()
    (tmp_path / "tasks.py").unlink()
    results = rebuild([folder], tmp_path / "elsewhere")
    assert results.shapes[0].values[40] is None, "0 / 0"
    write_report(results)
    assert json.loads((tmp_path / "elsewhere" / "results.json").read_text())["trials"]


COMPUTED = ("verdict", "comparisons", "across", "scores", "tuning")


def test_candidates_are_united(run: Finished, tasks: tuple[str, ...], tmp_path: Path) -> None:
    parts = [run(("exo",), tasks), run(("laplace",), tasks)]
    merged = as_json(rebuild(parts, tmp_path))
    whole = as_json(rebuild([run(("exo", "laplace"), tasks)], tmp_path))
    assert [merged[part] for part in COMPUTED] == [whole[part] for part in COMPUTED]


def test_tasks_are_united(run: Finished, tasks: tuple[str, ...], tmp_path: Path) -> None:
    parts = [run(("exo",), tasks[:1]), run(("exo",), tasks)]
    merged = as_json(rebuild(parts, tmp_path))
    whole = as_json(rebuild([run(("exo",), tasks)], tmp_path))
    assert [merged[part] for part in COMPUTED] == [whole[part] for part in COMPUTED]


def test_seeds_are_intersected(run: Finished, tasks: tuple[str, ...], tmp_path: Path) -> None:
    merged = rebuild([run(("exo",), tasks[:1], 5), run(("laplace",), tasks[:1])], tmp_path)
    assert merged.settings.num_seeds == 3
    assert {len(s.values) for s in merged.scores} == {3}
    assert {t.key.seed for t in merged.trials if t.key.phase == "final"} == set(range(100, 103))


def test_a_merged_report_can_be_merged_again(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    write_report(rebuild([run(("exo",), tasks[:1]), run(("laplace",), tasks[:1])], tmp_path))
    merged = rebuild([tmp_path, run(("mish",), tasks[:1])], tmp_path / "all")
    assert merged.settings.candidates == ("exo", "laplace", "mish")


def test_what_one_run_skipped_and_another_ran_is_not_skipped(
    run: Finished, tasks: tuple[str, ...]
) -> None:
    first, second = (read_run(run(("exo",), t)) for t in (tasks[:1], tasks))
    first = replace(first, skipped={tasks[1]: "install x", "gone": "install y"})
    assert merge([("a", first), ("b", second)]).skipped == {"gone": "install y"}


def other_formula(run: dict[str, Any]) -> None:
    for trial in run["trials"]:
        if trial["activation"] == "relu":
            trial["formula"] = "0" * 16
    rekey(run)


def other_data(run: dict[str, Any]) -> None:
    run["protocol"]["tasks"][0]["data"] = "0" * 16


def other_grid(run: dict[str, Any]) -> None:
    run["protocol"]["settings"]["max_extensions"] = 1


def other_protocol(run: dict[str, Any]) -> None:
    for trial in run["trials"]:
        trial["protocol"] += 1
    rekey(run)


def rekey(run: dict[str, Any]) -> None:
    from zeta.evaluate import Budget, TrialKey
    from zeta.evaluate.protocol import _RESULTS

    for trial in run["trials"]:
        fields = {
            k: v
            for k, v in trial.items()
            if k not in ("key", "curve", "score_curve", "learned", *_RESULTS)
        }
        fields["budget"] = Budget(**fields["budget"])
        trial["key"] = TrialKey(**fields).hex()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_formula, "the formula of 'relu' differs"),
        (other_data, "the data of task '.*task_0' differs"),
        (other_grid, "the setting 'max_extensions' differs"),
        (other_protocol, "the protocol version differs"),
    ],
)
def test_what_differs_is_not_merged(
    run: Finished,
    tasks: tuple[str, ...],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    folder = run(("exo",), tasks[:1])
    other = edited(folder, tmp_path / "other", change)
    with pytest.raises(UserError, match=rf"^'.*' and '.*other' cannot be merged: {message}$"):
        rebuild([folder, other], tmp_path)


def test_a_task_that_an_activation_lacks_is_left_out_and_named(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    parts = [run(("laplace",), tasks[:1]), run(("exo", "laplace"), tasks[:1])]
    whole = as_json(rebuild(parts, tmp_path))
    merged = rebuild([run(("laplace",), tasks[:1]), run(("exo",), tasks)], tmp_path / "out")
    assert merged.settings.tasks == tasks[:1]
    assert merged.skipped == {tasks[1]: "left out, since no run has it with laplace"}
    assert {trial.key.task for trial in merged.trials} == set(tasks[:1])
    assert [as_json(merged)[part] for part in COMPUTED] == [whole[part] for part in COMPUTED]
    write_report(merged)
    assert f"Not in this report: {tasks[1]};" in merged.report.read_text()
    assert read_run(tmp_path / "out").skipped == merged.skipped


def test_a_control_on_a_task_that_is_left_out_is_too(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    settings = Settings(
        ("exo",), tasks, 3, tuning_seeds=(0,), grid_steps=(-6, -5, -4), controlled=tasks
    )
    controlled = study(tmp_path / "controlled", realistic, settings)[0].folder
    merged = rebuild([controlled, run(("laplace",), tasks[:1])], tmp_path / "both")
    assert merged.settings.controlled == tasks[:1]
    assert {c.task for c in merged.controls} == {tasks[0]}


def test_runs_that_share_no_task_are_not_merged(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path
) -> None:
    message = r"no task was run with every activation.*task_0' is left out.* with exo; run what"
    with pytest.raises(UserError, match=message):
        rebuild([run(("laplace",), tasks[:1]), run(("exo",), tasks[1:])], tmp_path)


def test_baselines_are_united(run: Finished, tasks: tuple[str, ...]) -> None:
    first, second = (read_run(run((name,), tasks[:1])) for name in ("exo", "laplace"))
    settings = replace(first.settings, candidates=("exo", "gelu"), baselines=("relu", "silu"))
    merged = merge([("a", replace(first, settings=settings)), ("b", second)])
    assert merged.settings.baselines == ("relu", "silu", "gelu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format=FORMAT + 1), "was written by a newer Zeta .* update Zeta"),
        (lambda data: data.pop("format"), "was written by an older Zeta"),
        (lambda data: data.update(format="x"), "is damaged"),
        (lambda data: data.pop("trials"), r"is damaged \(KeyError: 'trials'\)"),
        (lambda data: data["trials"].pop(), "is damaged .* has 2 final trials"),
        (lambda data: data["trials"][0].update(value="high"), "is damaged"),
        (lambda data: data["protocol"]["settings"].update(x=1), "is damaged"),
        (lambda data: data["tuning"].clear(), "is damaged"),
        (lambda data: data["protocol"]["tasks"].clear(), "is damaged"),
    ],
)
def test_unusable_results(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path, change: Any, message: str
) -> None:
    folder = edited(run(("exo",), tasks[:1]), tmp_path / "out", change)
    with pytest.raises(UserError, match=message):
        read_run(folder)


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    """An edit by hand: another value in one place."""

    def change(data: Any) -> None:
        *folders, last = path
        for folder in folders:
            data = data[folder]
        data[last] = value

    return change


NAN = float("nan")
SETTINGS, TASK, TUNING = ("protocol", "settings"), ("protocol", "tasks", 0), ("tuning", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=NAN), "format is no int"),
        (put("environment", value=[]), "environment is no Mapping"),
        (put("environment", "a", value={"b": 1}), r"environment\['a'\] is no str"),
        (put("timing", value={}), "timing has no 'resumed'"),
        (put("timing", "run", value="x"), r"timing\['run'\] is no float"),
        (put("timing", value=[1]), "timing is no dict"),
        (put(*TASK, "test_to_train", value=NAN), "test_to_train is no float"),
        (put(*TASK, "test_to_train", value=1e200), "test_to_train is no float"),
        (put(*TASK, "test_to_train", value=-1.0), "test_to_train is negative"),
        (put(*TASK, "seeds", value=10**12), "there cannot be 1000000000000 seeds"),
        (put(*TASK, "title", value=3), "title is no str"),
        (put(*TASK, "metric", value="luck"), "a trial's metric is not its task's"),
        (put(*SETTINGS, "num_seeds", value=3.0), r"num_seeds is no int \| None"),
        (put(*SETTINGS, "tuning_seeds", value=None), "tuning_seeds is no tuple"),
        (put(*SETTINGS, "quick", value="no"), "quick is no bool"),
        (put("protocol", "skipped", value=None), "skipped is no dict"),
        (put(*TUNING, "learning_rates", 0, value=0.5), "a tuned learning rate was not tried"),
        (put(*TUNING, "learning_rates", value=[0.001]), "not every seed has a learning rate"),
        (put(*TUNING, "validation", 0, 1, value=NAN), r"validation\[0.001\] is no float"),
        (put(*TUNING, "validation", 0, 1, value=None), r"validation\[0.001\] is no float"),
        (lambda data: data["tuning"].append(data["tuning"][0]), "not every activation is tuned"),
        (put("shapes", 0, "values", value=[1.0]), "'exo' has no usable shape"),
        (put("shapes", 0, "values", 0, value=NAN), r"values\[0\] is no float"),
        (put("shapes", 0, "learned", value=3), "learned is no tuple"),
        (put("shapes", 0, "activation", value="zzz"), "'zzz' has no usable shape"),
        (put("trials", -1, "value", value=1e308), "value is no float"),
        (put("trials", -1, "value", value=NAN), "status and value contradict"),
    ],
)
def test_results_edited_by_hand(
    run: Finished, tasks: tuple[str, ...], tmp_path: Path, change: Any, message: str
) -> None:
    folder = edited(run(("exo",), tasks[:1]), tmp_path / "out", change)
    with pytest.raises(UserError, match=rf"is damaged \(ValueError: .*{message}"):
        read_run(folder)


@pytest.mark.parametrize("content", ["{ half a fi", "[]", "null", "[" * 10**5])
def test_what_is_no_results_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"holds no results\.json; `zeta evaluate --out"):
        read_run(tmp_path)
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        read_run(tmp_path)
