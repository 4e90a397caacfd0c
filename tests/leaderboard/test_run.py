"""The leaderboard with an engine that answers: rounds, resuming, new entries, bad folders."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from answering import AnsweringEngine, realistic, write_tasks
from zeta import activations
from zeta._errors import UserError
from zeta._formula import Formula
from zeta.evaluate.protocol import TrialKey
from zeta.evaluate.run import Interrupted
from zeta.leaderboard import Board, make_leaderboard, run
from zeta.leaderboard.board import FILE, Cost, read_board
from zeta.leaderboard.page import PAGE
from zeta.leaderboard.rounds import DIVISIONS, Division, Round

NAMES = ("exo", "laplace", "relu", "gelu", "silu", "elu", "tanh", "mish")


def value(key: TrialKey) -> float | None:
    """As a rule realistic; elu diverges, and tanh is far below a constant prediction."""
    return {"elu": None, "tanh": -1000.0}.get(key.activation, realistic(key))


@pytest.fixture(scope="module")
def division(tmp_path_factory: pytest.TempPathFactory) -> Division:
    """Eight activations, of which three and those that are kept go on to a third task."""
    first, second, third = write_tasks(tmp_path_factory.mktemp("tasks"), 3)
    return Division(
        name="activations",
        formulas={name: activations.get(name) for name in NAMES},
        reference="silu",
        kept=("silu", "laplace"),
        rounds=(
            Round("screen", "all", (first, second), tuning_seeds=(0,), num_seeds=3),
            Round(
                "confirmation",
                "the best",
                (first, second, third),
                entries=3,
                tuning_seeds=(0, 1),
                num_seeds=5,
                first_seed=1000,
            ),
        ),
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[AnsweringEngine]:
    with pytest.MonkeyPatch.context() as patch:
        answering = AnsweringEngine(value)
        patch.setattr(run, "make_engine", lambda *_: answering)
        patch.setattr(run, "measure_costs", lambda found, _: {n: Cost(1.5, 4.0) for n in found})
        yield answering


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, division: Division, engine: AnsweringEngine
) -> Path:
    """Of a finished leaderboard."""
    folder = tmp_path_factory.mktemp("board")
    make_leaderboard(out=folder, divisions=[division])
    return folder


@pytest.fixture
def board(folder: Path) -> Board:
    return read_board(folder / FILE)


def names_of(board: Board, round_name: str) -> set[str]:
    played = next(p for p in board.divisions[0].rounds if p.name == round_name)
    return {entry.activation for entry in played.entries}


def test_the_best_go_on_and_those_that_are_kept(board: Board, division: Division) -> None:
    screen = board.divisions[0].rounds[0]
    ahead = [e.activation for e in screen.entries if e.activation not in division.kept][:3]
    assert names_of(board, "screen") == set(NAMES)
    assert names_of(board, "confirmation") == {*ahead, "silu", "laplace"}
    placed = [entry.activation for _, entry in board.divisions[0].placed]
    assert set(placed[:5]) == names_of(board, "confirmation")
    assert set(placed) == set(NAMES)


def test_the_page_has_a_profile_of_each(folder: Path) -> None:
    page = (folder / PAGE).read_text()
    assert all(f'id="activations-{name}"' in page for name in NAMES)


def test_confirmation_has_splits_that_chose_nobody(
    board: Board, division: Division, engine: AnsweringEngine
) -> None:
    third = division.rounds[1].tasks[2]
    finals = [key for key in engine.ran if key.phase == "final"]
    assert {key.seed for key in finals if key.task == third} == set(range(1000, 1005))
    assert {key.seed for key in finals if key.activation == "tanh"} == {100, 101, 102}


def test_a_trial_below_the_constant_counts_as_the_constant(board: Board) -> None:
    entry = board.divisions[0].in_round("screen", "tanh")
    assert entry is not None
    assert [cell.effect.value for cell in entry.cells] == pytest.approx([-1, -1], abs=0.02)


def test_a_diverging_entry_has_its_share_of_divergence(board: Board) -> None:
    entry = board.divisions[0].in_round("screen", "elu")
    assert entry is not None
    assert [cell.diverged for cell in entry.cells] == [1.0, 1.0]
    assert {e.activation for _, e in board.divisions[0].placed[-2:]} == {"elu", "tanh"}


def test_it_resumes_and_new_entries_are_trained_alone(
    tmp_path: Path, folder: Path, board: Board, division: Division, engine: AnsweringEngine
) -> None:
    trained = len(engine.ran)
    (tmp_path / "mine.py").write_text(
        "from zeta import formula\nfrom zeta.math import sigmoid\n"
        "@formula\ndef mine(x):\n    return 2 * x * sigmoid(x)\n"
    )
    entry = f"{tmp_path}/mine.py:mine"
    found = make_leaderboard([entry], out=folder, divisions=[division]).divisions[0]
    assert {key.activation for key in engine.ran[trained:]} == {entry}
    assert entry in {e.activation for _, e in found.placed}
    trained = len(engine.ran)
    again = make_leaderboard(out=folder, divisions=[division])
    assert len(engine.ran) == trained
    assert again.divisions[0].rounds == board.divisions[0].rounds


def test_an_entry_that_cannot_start_matched_is_refused_before_training(
    tmp_path: Path, division: Division, engine: AnsweringEngine
) -> None:
    (tmp_path / "mine.py").write_text(
        "from zeta import formula\nfrom zeta.math import exp\n"
        "@formula\ndef grows(x):\n    return exp(x * x)\n"
    )
    with pytest.raises(UserError, match="no variance-preserving initialisation"):
        make_leaderboard([f"{tmp_path}/mine.py:grows"], out=tmp_path / "out", divisions=[division])
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_keeps_its_trials_and_its_time(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(key: TrialKey) -> float | None:
        if key.activation == "mish":
            raise KeyboardInterrupt
        return value(key)

    minutes = count()
    clock = SimpleNamespace(perf_counter=lambda: 60.0 * next(minutes))
    monkeypatch.setattr(run, "time", clock)
    monkeypatch.setattr(engine, "value", interrupted)
    with pytest.raises(Interrupted, match="the same command resumes"):
        make_leaderboard(out=tmp_path, divisions=[division])
    before = read_board(tmp_path / FILE)
    assert (before.seconds, before.divisions) == (60.0, ())
    monkeypatch.setattr(engine, "value", value)
    board = make_leaderboard(out=tmp_path, divisions=[division])
    assert board.seconds >= 120.0
    assert board.divisions[0].rounds


def test_a_task_of_which_a_linear_network_learns_as_much_has_no_part(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = division.rounds[0].tasks[0]
    tasks = run.task_registry
    get, linear = tasks.get, replace(tasks.get(first), tells_apart=False)
    monkeypatch.setattr(tasks, "get", lambda name: linear if name == first else get(name))
    board = make_leaderboard(out=tmp_path, divisions=[division])
    screen = board.divisions[0].rounds[0]
    assert screen.left_out == {first: "a linear network does as well"}


def test_an_edited_formula_of_ones_own_is_measured_anew(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("from zeta import formula\nmine = formula(lambda x: x * x)\n")
    measured: list[set[str]] = []

    def measure(found: Mapping[str, Formula], _: Formula) -> dict[str, Cost]:
        measured.append({*found})
        return {name: Cost(1.5, 4.0) for name in found}

    monkeypatch.setattr(run, "measure_costs", measure)
    entry = f"{tmp_path}/mine.py:mine"
    for _ in range(2):
        make_leaderboard([entry], out=tmp_path / "board", divisions=[division])
    assert measured == [{*NAMES, entry}, {entry}]


def test_a_control_is_no_entry(tmp_path: Path, division: Division) -> None:
    with pytest.raises(UserError, match=r"'silu \(retuned\)' is a control"):
        make_leaderboard(["silu (retuned)"], out=tmp_path / "out", divisions=[division])
    assert not (tmp_path / "out").exists()


def test_what_is_no_folder_is_refused_in_a_line(
    tmp_path: Path, division: Division, engine: AnsweringEngine
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / FILE).mkdir()
    for out, why in ((tmp_path / "file", "Not a directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"^cannot read .*{FILE}': {why}$"):
            make_leaderboard(out=out, divisions=[division])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "protocol": 3}', "of format 1, protocol 3; this version has 1 and 4"),
        ("{", "holds no leaderboard"),
        ('{"format": 1, "protocol": 4}', "holds no leaderboard"),
        ("[" * 100_000, "holds no leaderboard"),
    ],
)
def test_other_folders_are_refused_in_a_line(
    tmp_path: Path, division: Division, engine: AnsweringEngine, text: str, message: str
) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        make_leaderboard(out=tmp_path, divisions=[division])
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "trials").glob("*.json"))


def test_a_round_takes_the_tasks_whose_data_are_there(
    tmp_path: Path,
    division: Division,
    engine: AnsweringEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = run.task_registry
    missing = division.rounds[0].tasks[1]
    get, without = tasks.get, replace(tasks.get(missing), missing=lambda: "install it")
    monkeypatch.setattr(tasks, "get", lambda name: without if name == missing else get(name))
    board = make_leaderboard(out=tmp_path / "board", divisions=[division])
    assert board.skipped == {missing: "install it"}
    assert missing not in json.dumps([list(p.tasks) for p in board.divisions[0].rounds])


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Have the data of these tasks be missing."""
    get = run.task_registry.get
    found = {name: replace(get(name), missing=lambda: "install it") for name in missing}
    monkeypatch.setattr(run.task_registry, "get", lambda name: found.get(name) or get(name))


def test_a_round_without_any_data_is_left_out(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, *division.rounds[0].tasks)
    board = make_leaderboard(out=tmp_path / "board", divisions=[division])
    assert [played.name for played in board.divisions[0].rounds] == ["confirmation"]
    assert names_of(board, "confirmation") == set(NAMES), "nobody was ranked before"
    without(monkeypatch, *division.rounds[1].tasks)
    with pytest.raises(UserError, match=r"no task can be run for activations: install it$"):
        make_leaderboard(out=tmp_path / "nothing", divisions=[division])
    assert not (tmp_path / "nothing").exists()


def test_of_a_single_data_set_nothing_is_decided(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = division.rounds[1].tasks
    without(monkeypatch, *others)
    board = make_leaderboard(out=tmp_path, divisions=[division])
    assert read_board(tmp_path / FILE) == board, "it resumes"
    for played in board.divisions[0].rounds:
        assert list(played.tasks) == [first]
        for entry in played.entries:
            assert entry.mean == entry.shrunken == entry.cells[0].effect
            assert entry.verdict == "undecided"


def test_a_round_whose_reference_fails_places_nobody(
    tmp_path: Path, division: Division, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(key: TrialKey) -> float | None:
        lost = key.activation == "silu" and key.seed >= 1000
        return None if lost else value(key)

    monkeypatch.setattr(engine, "value", failing)
    board = make_leaderboard(out=tmp_path / "last", divisions=[division])
    screen, last = board.divisions[0].rounds
    assert (last.entries, last.selects) == ((), False)
    assert {*last.left_out} == {*division.rounds[1].tasks}
    assert [e.activation for _, e in board.divisions[0].placed] == [
        e.activation for e in screen.entries
    ]
    monkeypatch.setattr(engine, "value", lambda key: None)
    with pytest.raises(UserError, match="no entry can be ranked: silu, with which all are"):
        make_leaderboard(out=tmp_path / "all", divisions=[division])


def test_every_formula_of_one_or_two_inputs_has_a_division() -> None:
    entries = [name for division in DIVISIONS for name in division.formulas]
    assert set(entries) >= {*activations.CATALOGUE, *activations.GATES}
    assert len(entries) >= 80
    for of in DIVISIONS:
        assert {of.reference} <= set(of.kept) <= set(of.formulas)
