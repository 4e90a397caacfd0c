"""Random effects over data sets, against statsmodels."""

import numpy as np
import pytest
from scipy import stats

from zeta.evaluate.pooling import decisive, pool, shrink

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


def test_shrinking_takes_what_noise_adds() -> None:
    """Of known means, with entries that hardly learn, data sets that differ, and missing cells."""
    rng = np.random.default_rng(0)
    held, before, after = [], [], []
    for _ in range(200):
        true_I = rng.normal(0, 0.5, size=60)
        effects_IK = true_I[:, None] + rng.normal(0, 2, size=4) + rng.normal(0, 0.6, size=(60, 4))
        effects_IK[:6] -= 20
        effects_IK[rng.random(effects_IK.shape) < 0.05] = np.nan
        found = shrink(effects_IK)[6:]
        luck = np.median([e.value for e in found] - true_I[6:])  # the data sets', the same for all
        held += [e.low <= t + luck <= e.high for e, t in zip(found, true_I[6:], strict=True)]
        plain_I = np.nanmean(effects_IK - np.nanmedian(effects_IK, axis=0), axis=1)[6:]
        before.append(np.std(plain_I - true_I[6:]))
        after.append(np.std([e.value for e in found] - true_I[6:]))
    assert 0.9 < np.mean(held) < 0.98
    assert np.mean(after) < np.mean(before)


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])
def test_shrunken_intervals_hold_where_entries_hardly_differ(spread: float) -> None:
    """Thirteen, as many as a leaderboard's last round has; 1 is the noise's spread."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        true_I = rng.normal(0, spread, size=13)
        found = shrink(true_I[:, None] + rng.normal(size=(13, 6)))
        held += [e.low <= t <= e.high for e, t in zip(found, true_I, strict=True)]
    assert np.mean(held) > 0.9


def test_equal_entries_shrink_to_one() -> None:
    noise = np.random.default_rng(0).normal(size=(80, 3))
    found = [e.value for e in shrink(noise)]
    assert np.std(found) < 0.5 * np.std(noise.mean(axis=1))
