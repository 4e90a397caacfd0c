"""The page: what is on it, and that it holds together where cells are missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from zeta.evaluate.results import Verdict
from zeta.evaluate.statistics import Estimate
from zeta.leaderboard.board import Board, Cell, Cost, Entry, Played, Standings, read_board
from zeta.leaderboard.page import headline, render, rows, shade


def entry(name: str, value: float, tasks: tuple[str, ...] = ("digits", "housing")) -> Entry:
    near = Estimate(value, value - 0.01, value + 0.01)
    cells = tuple(Cell(task, 0.9, 0.01, 0.01, 1.5, 0.1, near) for task in tasks)
    verdict = Verdict.BETTER if value > 0.015 else Verdict.UNDECIDED
    return Entry(name, cells, near, near, 0.04, verdict)


def played(name: str, *entries: Entry, selects: bool = True) -> Played:
    tasks = {"digits": "digits", "housing": "houses"}
    return Played(name, f"the {name}", selects, 10, tasks, {}, entries)


SCREEN = played("screen", entry("relu", 0.03), entry("exo", 0.02), entry("silu", 0.0))
LAST = played("confirmation", entry("exo", 0.02), entry("silu", 0.0), entry("mish", -0.01))
MATCHED = played("matched", entry("exo", -0.005), selects=False)


@pytest.fixture
def board() -> Board:
    costs = {"exo": Cost(2.0, 4.0), "silu": Cost(1.0, 4.0), "relu": Cost(1.5, 4.0)}
    shapes = {"exo": (None, *[0.5] * 79, 9e9)}
    division = Standings("activations", "silu", ("silu",), (SCREEN, LAST, MATCHED), costs, shapes)
    return Board((division,), {"CPU": "some <b>processor</b>"}, {"patches": "install it"}, 60.0)


def test_later_rounds_stand_before_earlier_ones(board: Board) -> None:
    found = rows(board.divisions[0])
    assert [row.name for row in found] == ["exo", "silu", "mish", "relu"]
    assert found[0].effect("matched") == Estimate(-0.005, -0.015, 0.005)
    assert found[1].effect("matched") is None


def test_headline_counts_the_better_of_the_last_round(board: Board) -> None:
    assert headline(board) == (
        "Of 4 activations, 2 reached the last round; better than silu over its data sets: exo"
    )


def test_frontier_joins_what_is_cheaper_or_better(board: Board) -> None:
    from zeta.leaderboard.page import _frontier

    division = board.divisions[0]
    found = _frontier(division, [e for _, e in division.placed if e.activation in division.costs])
    assert [e.activation for e in found] == ["silu", "relu"]


def test_page_escapes_and_names_what_was_skipped(board: Board) -> None:
    page = render(board)
    assert "some &lt;b&gt;processor" in page
    assert "skipped: patches" in page
    assert "Quality and cost" in page
    assert page.count('class="profile"') == 4


def test_page_without_costs_or_cells(board: Board) -> None:
    half = played("screen", entry("exo", 0.02, ("digits",)), entry("silu", 0.0))
    division = replace(board.divisions[0], rounds=(half,), costs={}, shapes={})
    page = render(replace(board, divisions=(division,)))
    assert "Quality and cost" not in page
    assert "<td></td>" in page


def test_shades_are_symmetric() -> None:
    assert [shade(0.02), shade(-0.02)] == ["ahead-2", "behind-2"]


def test_a_board_is_read_as_it_was_written(board: Board, tmp_path: Path) -> None:
    board.write(tmp_path)
    assert read_board(tmp_path / "leaderboard.json") == board
