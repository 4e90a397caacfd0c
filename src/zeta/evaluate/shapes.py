"""The activations' curves, sampled, so that a report can be rebuilt without their files."""

from collections.abc import Iterable, Mapping

import numpy as np

from zeta._formula import Formula
from zeta.evaluate.candidates import load_candidate
from zeta.evaluate.protocol import Settings, Trial
from zeta.evaluate.results import Shape

GRID = tuple(round(-4 + 0.1 * step, 1) for step in range(81))


def sample_shapes(settings: Settings, trials: Iterable[Trial]) -> tuple[Shape, ...]:
    """Every activation as documented, and as it was after training where it is learnable.

    Args:
        trials: the layers of the first final seed's are shown.

    Raises:
        UserError: a formula cannot be loaded any more.

    Example:
        >>> from zeta.evaluate import Settings
        >>> from zeta.evaluate.shapes import sample_shapes
        >>> [shape.activation for shape in sample_shapes(Settings(("exo",), ("digits",)), ())]
        ['exo', 'relu', 'gelu', 'silu']
    """
    first = ("final", settings.first_seed)
    shown = [trial for trial in trials if (trial.key.phase, trial.key.seed) == first]
    others = (*settings.ablations.values(), settings.control)  # of the same shapes
    shapes = []
    for name in settings.activations:
        if name in others:
            continue
        formula = load_candidate(name)
        layers = [layer for t in shown if t.key.activation == name for layer in t.learned]
        learned = tuple(_sample(formula, parameters) for parameters in layers)
        shapes.append(Shape(name, _sample(formula, {}), learned))
    return tuple(shapes)


def _sample(formula: Formula, parameters: Mapping[str, float]) -> tuple[float | None, ...]:
    with np.errstate(all="ignore"):
        at = formula.grouped(formula.flat(formula.parameters) | dict(parameters))
        grid = np.array(GRID)
        # Of a gate, what it makes of a value of 1.
        inputs = grid, *[np.ones_like(grid)] * (len(formula.inputs) - 1)
        values = np.asarray(formula(*inputs, **at), dtype=float)
    return tuple(float(f"{v:.5g}") if np.isfinite(v) else None for v in values)
