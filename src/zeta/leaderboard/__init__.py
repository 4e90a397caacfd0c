"""`zeta leaderboard`: the whole catalogue, ranked on real data.

=============  ======================================================
``rounds.py``  what is run: divisions, rounds, tasks, seeds
``run.py``     the rounds, from the catalogue to the page
``board.py``   how every entry did, and the file that keeps it
``costs.py``   time and memory beside the reference
``page.py``    the page
=============  ======================================================
"""

from zeta.leaderboard.board import Board, read_board
from zeta.leaderboard.run import make_leaderboard

__all__ = ["Board", "make_leaderboard", "read_board"]
