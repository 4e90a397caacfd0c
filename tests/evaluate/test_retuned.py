"""Whole studies, tuning included, of an activation against itself and of effects that are known.

Training 400 studies would take a day. So trials of many seeds are trained once, and each study
draws its seeds from them: two disjoint sets that tune, and those of the final trials.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from zeta.evaluate import Settings, Trial, TrialKey, Verdict
from zeta.evaluate.compare import control, judge, score_trials
from zeta.evaluate.engines import Engine, LocalEngine
from zeta.evaluate.protocol import as_trained
from zeta.evaluate.results import Comparison, Score
from zeta.evaluate.statistics import SIGNIFICANCE, detectable, summarise
from zeta.evaluate.sweep import Sweep

STUDIES, SEEDS = 400, 20
POOL = {"tuning": range(1000, 1120), "final": range(2000, 2060)}
FAMILY = 48  # the comparisons of a default run
MOST_ALARMS = 0.073  # what 400 studies exceed in 2.5 % of cases if the rate is 5 %


class Pool:
    """Trials of every seed of ``POOL``, all of a learning rate trained when one is asked for."""

    def __init__(self, sweep: Sweep, engine: Engine) -> None:
        self._sweep, self._engine = sweep, engine
        self._trials: dict[TrialKey, Trial] = {}

    def trial(self, key: TrialKey, seed: int) -> Trial:
        """The trial of another seed; the control's are the reference's."""
        key = replace(key, seed=seed, activation=as_trained(key.activation))
        if key not in self._trials:
            keys = [replace(key, seed=seed) for seed in POOL[key.phase]]
            for group in self._engine.run(self._sweep.groups(keys)):
                self._trials |= {trial.key: trial for trial in group}
        return self._trials[key]


class Drawn(dict[TrialKey, Trial]):
    """The trials of one study, which are finished as soon as they are asked for.

    Each seed of the protocol stands for one of the pool's; no two for the same.
    """

    def __init__(self, pool: Pool, settings: Settings, rng: np.random.Generator) -> None:
        self._pool = pool
        seeds = {
            "tuning": (*settings.tuning_seeds, *settings.tuning_seeds_of(settings.control)),
            "final": settings.final_seeds(SEEDS),
        }
        self._seeds = {
            phase: dict(zip(used, rng.permutation(POOL[phase])[: len(used)].tolist(), strict=True))
            for phase, used in seeds.items()
        }

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: TrialKey) -> Trial:
        return self._pool.trial(key, self._seeds[key.phase][key.seed])


class Studies:
    """``STUDIES`` studies of a task."""

    def __init__(self, task: str, engine: Engine) -> None:
        self.settings = Settings(("gelu",), (task,), SEEDS, controlled=(task,))
        self._sweep = Sweep(self.settings)
        self.task = self._sweep.infos[task]
        pool, rng = Pool(self._sweep, engine), np.random.default_rng(7)
        self._drawn = [Drawn(pool, self.settings, rng) for _ in range(STUDIES)]

    def twice(self) -> list[Sequence[Comparison]]:
        """Silu, tuned twice, against itself: as it is, and raised by its standard deviation."""
        names = (self.settings.reference, self.settings.control)
        return [
            control(self.settings, [self.task], [self._score(name, trials) for name in names])
            for trials in self._drawn
        ]

    def others(self) -> list[Comparison]:
        """Gelu against silu."""
        pairs = [(self._score("gelu", d), self._score("silu", d)) for d in self._drawn]
        infos = {self.task.source: self.task}
        return [judge(self.settings, infos, [pair])[0] for pair in pairs]

    def _score(self, name: str, trials: Drawn) -> Score:
        pair = self.task.source, name
        tuning = self._sweep.tuning(pair, trials)
        keys = self._sweep.final_keys(pair, tuning.learning_rates)
        finals = [trials[key] for key in sorted(keys, key=lambda key: key.seed)]
        return score_trials(self.task, tuning, finals)


def called(comparisons: Sequence[Comparison], comparisons_in_all: int = 1) -> float:
    """The share of which p is small enough for the only difference of so many comparisons."""
    return float(np.mean([c.p_value < SIGNIFICANCE / comparisons_in_all for c in comparisons]))


def moved(c: Comparison, by: float, test_to_train: float) -> Comparison:
    """With another true difference."""
    found = summarise([d + by for d in c.differences], test_to_train, c.rope)
    return replace(c, p_value=found.p_value, mean=found.mean)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["digits", "housing", "shuttle_stream"])
def test_the_same_activation_tuned_twice_is_seldom_called_different(task: str) -> None:
    with LocalEngine() as engine:
        studies = Studies(task, engine)
        twice = studies.twice()
        others = studies.others()
    assert tell_of_twice(task, twice) <= MOST_ALARMS
    tell_of_others(task, others, studies.task.test_to_train, twice)


def tell_of_twice(task: str, twice: Sequence[Sequence[Comparison]]) -> float:
    """Print how often silu was called different from itself; that share."""
    retuned, planted = zip(*twice, strict=True)
    clear = np.mean([c.verdict in (Verdict.BETTER, Verdict.WORSE) for c in retuned])
    equal = np.mean([not any(c.differences) for c in retuned])
    print(
        f"{task}: silu tuned twice: the same in all seeds {equal:.1%}, p < .05 in "
        f"{called(retuned):.2%}, better or worse in {clear:.2%}; raised by the standard deviation "
        f"of its scores, found in {called(planted):.1%} alone and {called(planted, FAMILY):.1%} "
        f"as the only one of {FAMILY}"
    )
    return called(retuned)


def tell_of_others(
    task: str, others: Sequence[Comparison], ratio: float, twice: Sequence[Sequence[Comparison]]
) -> None:
    """Print how often a difference of gelu from silu that is known would be found."""
    truth = float(np.mean([c.mean for c in others]))
    sd = float(np.sqrt(np.mean([np.var(c.differences, ddof=1) for c in others])))
    own = float(np.mean([planted.mean - retuned.mean for retuned, planted in twice]))
    large = detectable(SEEDS, ratio, FAMILY) * sd
    covered = np.mean([c.low <= truth <= c.high for c in others])
    print(
        f"{task}: gelu is {truth:+.4f} from silu, which {covered:.1%} of the intervals hold; "
        f"silu's standard deviation is {own:.4f}, that of the differences {sd:.4f}. Found alone "
        f"and as the only one of {FAMILY}, if the difference were"
    )
    for words, by in (("silu's", own), ("that of the differences", sd), ("detectable", large)):
        found = [moved(c, by - truth, ratio) for c in others]
        print(f"    {words}, {by:.4f}: {called(found):.1%}, {called(found, FAMILY):.1%}")
