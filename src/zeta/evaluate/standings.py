"""`standings`: the activations in order, for evaluations of many."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from zeta.evaluate.results import Results, Verdict


@dataclass(frozen=True)
class Standing:
    """Where an activation stands among all.

    Attributes:
        place: 1 is best; equal ones share a place.
        mean_rank: over the tasks that tell activations apart, of its mean score.
        first, last: on how many of them it is the best and the worst of all.
        verdicts: of a candidate, verdict -> on how many tasks.
    """

    activation: str
    place: int
    mean_rank: float
    first: int
    last: int
    verdicts: Mapping[Verdict, int]


def standings(results: Results) -> list[Standing]:
    """Candidates and baselines, best first; frozen twins and the control stand elsewhere.

    Ranks need no common scale, and no task outweighs the others. Those that do not tell activations
    apart are not ranked on, unless there are no others; verdicts are of all.
    """
    others = (*results.settings.ablations.values(), results.settings.control)
    names = [name for name in results.settings.activations if name not in others]
    tasks = [task.source for task in results.telling] or results.settings.own_tasks
    scores = np.array([[results.score(task, name).mean for name in names] for task in tasks])
    ranks = stats.rankdata(-scores, axis=1)
    places = stats.rankdata(ranks.mean(axis=0).round(9), method="min")
    asked = [c for c in results.comparisons if c.question == "baseline"]
    found = [
        Standing(
            activation=name,
            place=int(places[i]),
            mean_rank=float(ranks[:, i].mean()),
            first=int((scores[:, i] == scores.max(axis=1)).sum()),
            last=int((scores[:, i] == scores.min(axis=1)).sum()),
            verdicts=dict(Counter(c.verdict for c in asked if c.candidate == name)),
        )
        for i, name in enumerate(names)
    ]
    return sorted(found, key=lambda standing: standing.mean_rank)
