"""The command and the table that benchmarks of several measures have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from zeta.doctor import environment

# Takes how many rounds are wanted; what was measured, and the figure.
Measure = Callable[[int], Iterator[tuple[str, str]]]


def run(description: str, *measures: Measure) -> None:
    """Print the table, row by row, and write it where that is wanted."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found, threads = environment(), torch.get_num_threads()
    compiler = found["C++ compiler"].rpartition(": ")[2]
    machine = f"{found['CPU']}, {threads} threads, {compiler}, PyTorch {found['torch']}."
    lines = [machine, "", "| | |", "|---|---|"]
    print("\n".join(lines))
    for measure in measures:
        for what, figure in measure(options.rounds):
            lines.append(f"| {what} | {figure} |")
            print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
