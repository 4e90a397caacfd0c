"""Whether a task tells activations apart that are known to differ: gelu, linear and sigmoid.

Each is tuned and trained with fresh seeds as `zeta evaluate` does, on a smaller grid. A task that
cannot tell a linear network from one with gelu has nothing to say of activations.

    python benchmarks/admission.py --tasks housing patches --out benchmarks/results/admission.md
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from zeta import formula
from zeta.evaluate import Trial, TrialKey, tasks
from zeta.evaluate.protocol import Settings
from zeta.evaluate.sweep import Sweep
from zeta.evaluate.training import run_trials

REFERENCE = "gelu"
GRID = (-6, -5, -4)
SEEDS = 8
SIGNIFICANT = 0.01


@formula
def linear(x):  # type: ignore[no-untyped-def]
    """No activation: the network is linear, or what its other parts make of it."""
    return x


KNOWN = {"linear": f"{Path(__file__).resolve()}:linear", "sigmoid": "sigmoid"}


@dataclass(frozen=True)
class Row:
    """Final scores of a task by activation, one per seed."""

    task: str
    scores: dict[str, list[float]]
    seconds: float

    def p(self, name: str) -> float:
        """Of Wilcoxon's signed-rank test that the reference is better; a seed may go far astray."""
        pairs = np.subtract(self.scores[REFERENCE], self.scores[name])
        return float(stats.wilcoxon(pairs, alternative="greater").pvalue) if pairs.any() else 1.0

    @property
    def admitted(self) -> bool:
        """Whether the reference is better than a linear network."""
        return self.p("linear") < SIGNIFICANT


def measure(task: str) -> Row:
    """Tune the three, and train each with fresh seeds."""
    sweep = Sweep(
        Settings(tuple(KNOWN.values()), (task,), SEEDS, grid_steps=GRID, max_extensions=1)
    )
    sources = {REFERENCE: REFERENCE, **KNOWN}
    finals = {name: _finals(sweep, (task, source)) for name, source in sources.items()}
    return Row(
        task,
        {name: [trial.score for trial in trials] for name, trials in finals.items()},
        float(np.mean([trial.timing["seconds"] for trial in finals[REFERENCE]])),
    )


def _finals(sweep: Sweep, pair: tuple[str, str]) -> list[Trial]:
    trials: dict[TrialKey, Trial] = {}
    while steps := sweep.next_steps(pair, trials):
        trials |= {trial.key: trial for trial in _run(sweep, sweep.tuning_keys(pair, steps))}
    return _run(sweep, sweep.final_keys(pair, sweep.tuning(pair, trials).learning_rates))


def _run(sweep: Sweep, keys: Sequence[TrialKey]) -> list[Trial]:
    return [trial for group in sweep.groups(keys) for trial in run_trials(group)]


def table(rows: Sequence[Row]) -> str:
    """In Markdown; a score is a median and a standard deviation over the seeds."""
    names = (REFERENCE, *KNOWN)
    lines = [
        f"| task | {' | '.join(names)} | p, linear | p, sigmoid | admitted | s/trial |",
        "|---" * (len(names) + 5) + "|",
    ]
    for row in rows:
        scores = [
            f"{np.median(row.scores[n]):.3f} ± {np.std(row.scores[n], ddof=1):.3f}" for n in names
        ]
        ps = [f"{row.p(name):.3f}" for name in KNOWN]
        admitted = "yes" if row.admitted else "no"
        lines.append(f"| {' | '.join([row.task, *scores, *ps, admitted])} | {row.seconds:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(tasks.TASKS))
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    rows = []
    for name in options.tasks:
        if reason := tasks.get(name).missing():
            print(f"{name} is skipped: {reason}", flush=True)
            continue
        rows.append(measure(name))
        print(table(rows[-1:]), flush=True)
    if options.out:
        text = f"# Activations known to differ\n\n{__doc__}\n{table(rows)}\n"
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
