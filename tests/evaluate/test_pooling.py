"""Random effects over data sets, against statsmodels."""

import numpy as np
import pytest
from scipy import stats

from zeta.evaluate.pooling import decisive, pool

EFFECTS, ERRORS = [0.3, -0.1, 0.25, 0.9, 0.2], [0.1, 0.2, 0.05, 0.4, 0.3]
NAMES = list("abcde")


def test_mean_interval_and_spread_equal_statsmodels_s() -> None:
    combine = pytest.importorskip("statsmodels.stats.meta_analysis").combine_effects
    found = pool(NAMES, EFFECTS, ERRORS)
    theirs = combine(np.array(EFFECTS), np.square(ERRORS), method_re="dl")
    assert found.between**2 == pytest.approx(theirs.tau2)
    assert found.mean.value == pytest.approx(theirs.mean_effect_re)
    half = stats.t.ppf(0.975, 4) * theirs.sd_eff_w_re_hksj
    assert found.mean.high - found.mean.value == pytest.approx(half)
    assert found.p_value == pytest.approx(
        2 * stats.t.sf(theirs.mean_effect_re / theirs.sd_eff_w_re_hksj, 4)
    )


def test_effects_that_agree_by_luck_are_as_uncertain_as_their_errors() -> None:
    found = pool(NAMES, [0.1, 0.101, 0.099, 0.1, 0.1], ERRORS)
    assert found.between == 0
    error = 1 / np.sqrt(np.sum(1 / np.square(ERRORS)))
    assert found.mean.high - found.mean.value == pytest.approx(stats.t.ppf(0.975, 4) * error)


def test_effects_are_shrunken_the_more_the_less_they_say() -> None:
    found = pool(NAMES, EFFECTS, ERRORS)
    moved = {
        name: (found.shrunken[name] - effect) / (found.mean.value - effect)
        for name, effect in zip(NAMES, EFFECTS, strict=True)
    }
    assert all(0 < share < 1 for share in moved.values())
    assert sorted(moved, key=lambda name: moved[name]) == ["c", "a", "b", "e", "d"]


def test_tasks_of_one_data_set_have_one_vote() -> None:
    once = pool(["digits", "words"], [0.1, 0.3], [0.01, 0.01])
    often = pool(["digits", *["words"] * 8], [0.1, *[0.2, 0.4] * 4], [0.01] * 9)
    assert often.mean.value == pytest.approx(once.mean.value)
    assert often.p_value == pytest.approx(once.p_value)
    assert not once.without, "two are all there are"


def test_one_that_decides_alone_is_named() -> None:
    found = pool(list("abcd"), [0.5, 0.01, -0.01, 0.0], [0.01] * 4)
    assert found.mean.low < 0 < found.mean.high
    found = pool(list("abcd"), [0.1, 0.12, 0.11, 0.13], [0.01] * 4)
    assert decisive(found.without) == []
    found = pool(list("abc"), [0.1, 0.12, 0.10], [0.01] * 3)
    assert {"a", "b", "c"} == set(found.without)


@pytest.mark.parametrize("effects", [[0.0, 0.0, 0.0], [0.1, 0.1, 0.1], [0.0, 0.1, 0.2]])
def test_without_any_error(effects: list[float]) -> None:
    found = pool(list("abc"), effects, [0.0, 0.0, 0.0])
    assert found.mean.value == pytest.approx(np.mean(effects))
    assert found.mean.low <= found.mean.value <= found.mean.high
    assert 0 <= found.p_value <= 1
