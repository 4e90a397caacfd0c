"""The leaderboard of the site: that of a real run over the whole catalogue."""

from leaderboard_page import BOARD, page
from zeta import activations
from zeta.leaderboard import read_board


def test_every_entry_of_the_catalogue_is_placed():
    board = read_board(BOARD)
    entries = [entry.activation for d in board.divisions for _, entry in d.placed]
    assert {*entries} == {*activations.CATALOGUE, *activations.GATES}
    text = page(board)
    assert all(f"[{name}](../activations/{name}.md)" in text for name in entries)


def test_rounds_have_fewer_entries_and_fresh_splits():
    for division in read_board(BOARD).divisions:
        sizes = [len(played.entries) for played in division.rounds if played.selects]
        assert sizes == sorted(sizes, reverse=True)
        assert {division.reference} <= {e.activation for e in division.rounds[-1].entries}
