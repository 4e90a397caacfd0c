"""Compares the catalogue with what frameworks ship of it, and both with mpmath: docs/oracles.md.

    python benchmarks/accuracy.py > docs/oracles.md

Over the grid of the tests, in float32: the largest difference in units in the last place, and each
one's largest error over max(1, κ), κ being the condition number of the function at the point.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cases import Truth, grid, truths, ulps
from oracles import ORACLES, Oracle
from zeta import activations

HEAD = """\
# Against other libraries

Every formula of the catalogue that another library ships too, in float32 over the whole range
({points} points, to ±10⁴ and the largest numbers), both compared with 50 digits. Subnormal numbers
are left out, which XLA takes for 0 on processors.
*Differ* is the largest difference between the two, in units in the last place (ulp); *off* is an
implementation's own largest error over max(1, κ), where κ is the relative
[condition number](numerics.md#accuracy): what rounding the input alone would do is not counted.
Where they differ, the one that is less off is right.

Made by `python benchmarks/accuracy.py` with {versions}.

| formula | library | differ, ulp | Zeta off | library off | where the library is most off | right |
|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the page."""
    names = ("torch", "jax", "keras", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(HEAD.format(points=len(grid(torch.float32)), versions=versions))
    for library, functions in ORACLES.items():
        for name in sorted(functions):
            print(row(library, name, functions[name]))


def row(library: str, name: str, oracle: Oracle) -> str:
    """One formula in one library."""
    formula, x = activations.get(name), grid(torch.float32)
    ours, theirs = formula(x), oracle(x)
    known = truths(formula, torch.float32)
    differ = max(
        ulps(a - b, truth.value, torch.float32)
        for a, b, truth in zip(ours.tolist(), theirs.tolist(), known, strict=True)
        if is_inside(truth)
    )
    (off, _), (theirs_off, at) = worst(ours, known), worst(theirs, known)
    right = "both" if max(off, theirs_off) <= 4 else "Zeta" if off < theirs_off else library
    cells = (f"{differ:.3g}", f"{off:.2f}", f"{theirs_off:.3g}", f"x = {at:.4g}", right)
    return f"| [{name}](activations/{name}.md) | {library} | {' | '.join(cells)} |"


def worst(y: torch.Tensor, known: list[Truth]) -> tuple[float, float]:
    """The largest error in ulp over max(1, κ), and where."""
    return max(
        (ulps(truth.value - got, truth.value, torch.float32) / max(1.0, truth.condition), truth.x)
        for got, truth in zip(y.tolist(), known, strict=True)
        if is_inside(truth)
    )


def is_inside(truth: Truth) -> bool:
    """Whether neither x nor the value is subnormal, and the value does not round to ±inf."""
    info = torch.finfo(torch.float32)
    sizes = abs(truth.x), abs(truth.value)
    return sizes[1] <= info.max and all(s == 0 or s >= info.smallest_normal for s in sizes)


if __name__ == "__main__":
    main()
