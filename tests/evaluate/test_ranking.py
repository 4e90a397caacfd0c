"""Ranks and their tests against autorank's, and Nemenyi's p-values against its distribution."""

import warnings

import numpy as np
import pandas as pd
import pytest
from autorank import autorank
from scipy import stats

from zeta.evaluate.ranking import MIN_TASKS, rank
from zeta.evaluate.statistics import Array

NAMES = ["exo", "laplace", "relu", "gelu", "silu"]


@pytest.fixture
def scores() -> Array:
    rng = np.random.default_rng(1)
    return rng.normal(0, 1, (12, 5)) + np.array([1.0, 0.0, 0.3, 2.5, 0.3])


def test_ranks_friedman_and_critical_difference_equal_autorank_s(scores: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of the normality that it does not need here
        theirs = autorank(
            pd.DataFrame(scores, columns=NAMES), force_mode="nonparametric", order="descending"
        )
    ours = rank(scores, NAMES)
    assert (theirs.omnibus, theirs.posthoc) == ("friedman", "nemenyi")
    assert ours.ranks == pytest.approx(theirs.rankdf["meanrank"].to_dict())
    assert ours.p_value == pytest.approx(theirs.pvalue)
    # Its quantiles are a table's, of six digits.
    assert ours.critical_difference == pytest.approx(theirs.cd, rel=2e-5)


def test_nemenyi_s_p_is_five_percent_at_the_critical_difference(scores: Array) -> None:
    found = rank(scores, NAMES)
    ranks = np.array(list(found.ranks.values()))
    distances = np.abs(ranks[:, None] - ranks)
    statistic = distances / np.sqrt(5 * 6 / (6 * 12)) * np.sqrt(2)
    expected = stats.studentized_range.sf(statistic, 5, np.inf)
    np.fill_diagonal(expected, 1.0)
    assert np.array(found.p_values) == pytest.approx(expected, abs=1e-6)
    significant = np.array(found.p_values) < 0.05
    assert (significant == (distances > found.critical_difference)).all()
    assert significant.any()
    assert not significant.all()


def test_best_first_and_equal_scores_share_a_rank() -> None:
    scores = np.array([[0.1, 0.5, 0.5]] * MIN_TASKS)
    assert rank(scores, ["a", "b", "c"]).ranks == {"b": 1.5, "c": 1.5, "a": 3.0}


def test_equal_scores_everywhere_do_not_differ() -> None:
    found = rank(np.ones((MIN_TASKS, 3)), ["a", "b", "c"])
    assert found.p_value == 1.0
    assert np.array(found.p_values) == pytest.approx(1.0)


def test_too_few_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match=f"ranks need {MIN_TASKS} tasks, got {MIN_TASKS - 1}"):
        rank(np.ones((MIN_TASKS - 1, 3)), ["a", "b", "c"])


@pytest.mark.slow
def test_without_a_difference_few_are_called() -> None:
    """What the comment at MIN_TASKS says."""
    rng = np.random.default_rng(0)
    studies = [rank(rng.normal(size=(MIN_TASKS, 6)), [*"abcdef"]) for _ in range(1000)]
    friedman = np.mean([s.p_value < 0.05 for s in studies])
    nemenyi = np.mean([np.ptp(list(s.ranks.values())) > s.critical_difference for s in studies])
    assert 0.02 < friedman < 0.06
    assert 0.02 < nemenyi < 0.06
