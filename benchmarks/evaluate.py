"""Trials of `zeta evaluate` that train together, against the same trials one at a time.

Both use one thread, as every worker does; with a worker per core both grow alike. Seconds are the
processor's, which other programs on the machine lengthen less. For each task that trains stacked,
the ten trials of an activation's tuning (five learning rates, two seeds) and
its ten final ones (one learning rate), in turn with two of them trained alone; medians over the
rounds. Also, how far the results are apart.

    python benchmarks/evaluate.py --out benchmarks/results/evaluate_cpu.md
"""

import argparse
import math
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

from zeta.doctor import environment
from zeta.evaluate import Trial, TrialKey, formula_fingerprint, tasks
from zeta.evaluate.protocol import TUNING_SEEDS, Settings, formula_source, half_decade
from zeta.evaluate.training import run_trials
from zeta.load_formula import load_formula

ACTIVATIONS = ("relu", "exo", "laplace", "learnable_selu_variation")
SAMPLED = (0, 5)  # of ten trials, those that are trained alone


@dataclass(frozen=True)
class Row:
    """One group of ten trials: seconds per trial, and how far its results are from alone."""

    task: str
    activation: str
    phase: str
    together: float
    alone: float
    first_epoch: float
    score: float

    @property
    def ratio(self) -> float:
        """How many trials are done in the time of one alone."""
        return self.alone / self.together


def groups(task: str, activation: str) -> dict[str, list[TrialKey]]:
    """The ten trials of each phase."""
    settings, data = Settings((activation,), (task,)), tasks.get(task)
    formula = formula_fingerprint(activation, load_formula(formula_source(activation)))

    def key(step: int, seed: int, phase: str) -> TrialKey:
        rate = half_decade(step)
        return TrialKey(
            task, data.fingerprint(), activation, formula, rate, seed, phase, data.budget
        )

    tuned = [key(step, seed, "tuning") for step in settings.grid_steps for seed in TUNING_SEEDS[:2]]
    return {"tuning": tuned, "final": [key(-5, seed, "final") for seed in settings.final_seeds(10)]}


def groups_of(keys: Sequence[TrialKey]) -> list[Sequence[TrialKey]]:
    """As many as the task trains together."""
    most = tasks.get(keys[0].task).together
    return [keys[i : i + most] for i in range(0, len(keys), most)]


def measure(keys: Sequence[TrialKey], rounds: int) -> Row:
    """Together and alone in turn."""
    run_trials(keys[:1])  # the data, the kernels
    together, alone = [], []
    for _ in range(rounds):
        started = process_time()
        trials = [trial for group in groups_of(keys) for trial in run_trials(group)]
        together.append((process_time() - started) / len(keys))
        started = process_time()
        singles = [run_trials([keys[i]])[0] for i in SAMPLED]
        alone.append((process_time() - started) / len(SAMPLED))
    pairs = list(zip([trials[i] for i in SAMPLED], singles, strict=True))
    return Row(
        keys[0].task,
        keys[0].activation,
        keys[0].phase,
        statistics.median(together),
        statistics.median(alone),
        max(abs(a.curve[0] / b.curve[0] - 1) for a, b in pairs),
        max(_apart(a, b) for a, b in pairs),
    )


def _apart(a: Trial, b: Trial) -> float:
    return math.nan if a.value is None or b.value is None else abs(a.value - b.value)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, and the geometric mean of their ratios."""
    lines = [
        "| task | activation | trials | together, ms | alone, ms | ratio | first epoch's loss "
        "apart | score apart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.task} | {r.activation} | {r.phase} | {1000 * r.together:.0f} | "
        f"{1000 * r.alone:.0f} | {r.ratio:.1f} | {r.first_epoch:.1e} | {r.score:.1e} |"
        for r in rows
    ]
    mean = statistics.geometric_mean(r.ratio for r in rows)
    worst, best = min(r.ratio for r in rows), max(r.ratio for r in rows)
    lines += ["", f"Geometric mean of the ratios {mean:.1f}; from {worst:.1f} to {best:.1f}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(tasks.TASKS))
    parser.add_argument("--activations", nargs="+", default=ACTIVATIONS)
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    options = parser.parse_args()
    rows = []
    for name in options.tasks:
        task = tasks.get(name)
        if task.together == 1 or task.missing():
            continue
        for activation in options.activations:
            rows += [measure(keys, options.rounds) for keys in groups(name, activation).values()]
            print(table(rows[-2:]), flush=True)
    machine = "\n".join(f"- {label}: {value}" for label, value in environment().items())
    command = shlex.join(["python", "benchmarks/evaluate.py", *sys.argv[1:]])
    made = f"Made by `{command}`."
    text = f"# Trials together and alone\n\n{__doc__}\n{made}\n\n{table(rows)}\n\n{machine}\n"
    print(table(rows))
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
