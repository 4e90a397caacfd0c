"""Average ranks over tasks: Friedman's test, Nemenyi's, and the critical difference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from zeta.evaluate.statistics import SIGNIFICANCE, Array

__all__ = ["MIN_TASKS", "Ranking", "critical_difference", "rank"]

# Both tests' distributions hold for many tasks. Simulated without any difference (4 to 7
# activations, 4,000 studies each), they call one in 2.9 to 5.5 % with six tasks, in 1 to 2 % with
# three; and below six, activations must differ by over two thirds of all ranks to be told apart.
#: Fewer tasks are not ranked.
MIN_TASKS = 6


@dataclass(frozen=True)
class Ranking:
    """How activations rank over tasks.

    Attributes:
        tasks: how many tasks.
        ranks: activation -> mean rank, best (lowest) first; equal scores share a rank.
        p_value: of Friedman's test that all rank alike.
        critical_difference: mean ranks further apart than this differ significantly (Nemenyi).
        p_values: of Nemenyi's test, activation by activation, in the order of ``ranks``.
    """

    tasks: int
    ranks: dict[str, float]
    p_value: float
    critical_difference: float
    p_values: tuple[tuple[float, ...], ...]


def rank(scores: Array, activations: Sequence[str]) -> Ranking:
    """Rank activations on every task and compare their mean ranks.

    Args:
        scores: (tasks, activations); higher is better.
        activations: the names of the columns, three or more.

    Raises:
        ValueError: fewer than ``MIN_TASKS`` tasks.

    Example:
        >>> import numpy as np
        >>> from zeta.evaluate.ranking import rank
        >>> scores = np.array([[0.3, 0.2, 0.1]] * 6)
        >>> ranking = rank(scores, ["exo", "relu", "gelu"])
        >>> ranking.ranks, round(ranking.critical_difference, 2)
        ({'exo': 1.0, 'relu': 2.0, 'gelu': 3.0}, 1.35)
    """
    if len(scores) < MIN_TASKS:
        raise ValueError(f"ranks need {MIN_TASKS} tasks, got {len(scores)}")
    import scikit_posthocs  # late: it brings pandas and seaborn

    mean_ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
    order = np.argsort(mean_ranks, kind="stable")
    everywhere_equal = (scores == scores[:, :1]).all()
    friedman = 1.0 if everywhere_equal else stats.friedmanchisquare(*scores.T).pvalue
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(scores[:, order]).to_numpy()
    return Ranking(
        tasks=len(scores),
        ranks={activations[i]: float(mean_ranks[i]) for i in order},
        p_value=float(friedman),
        critical_difference=critical_difference(*scores.shape),
        p_values=tuple(tuple(map(float, row)) for row in nemenyi),
    )


def critical_difference(tasks: int, activations: int) -> float:
    """Nemenyi's critical difference of mean ranks at the 5 % level (Demšar 2006)."""
    q = stats.studentized_range.ppf(1 - SIGNIFICANCE, activations, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(activations * (activations + 1) / (6 * tasks)))
