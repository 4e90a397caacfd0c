"""The catalogue: every activation, gate and formula of logits once, as a formula.

===================  ================================================
``elementwise.py``   activations whose constants are not trained
``learnable.py``     activations whose parameters are, by default
``gated.py``         gates, formulas of two inputs
``logits.py``        what stands between logits and a softmax
``registry.py``      by name and by family; formulas of your own
===================  ================================================

To add one, write it there, or :func:`register` it from your own code. Functions, modules,
derivatives, kernels, plots, references and tests follow from these lines; no other file spells the
maths.

A formula never overflows on the way to a finite result: z = (x - mu) · (1/s) rather than
(x - mu) / s, whose derivative by s is 0·inf once z has overflowed; a gate clipped where it is
already exactly 0 or 1 before it is cubed.
"""

from zeta._formula import Formula, formula
from zeta.activations import registry
from zeta.activations.elementwise import *  # noqa: F403
from zeta.activations.elementwise import SELU_ALPHA as SELU_ALPHA, SELU_SCALE as SELU_SCALE
from zeta.activations.gated import *  # noqa: F403
from zeta.activations.learnable import *  # noqa: F403
from zeta.activations.logits import *  # noqa: F403
from zeta.activations.registry import (
    family as family,
    find as find,
    follow as follow,
    get as get,
    load_entry_points as load_entry_points,
    register as register,
)

#: The families elementwise, learnable, gated and logits, each of formulas by name.
FAMILIES: dict[str, dict[str, Formula]] = registry.FAMILIES
#: Every elementwise and learnable formula, an activation of one input, by name.
CATALOGUE: dict[str, Formula] = registry.CATALOGUE
#: Every gate, a formula of the inputs ``gate`` and ``value``, by name.
GATES: dict[str, Formula] = registry.GATES
#: Every formula made for logits, which has one input, by name.
LOGITS: dict[str, Formula] = registry.LOGITS


@formula
def identity(x):
    """x itself: what stands between logits and a softmax where nothing else does."""
    return x


_TOOLS = (
    *("CATALOGUE", "FAMILIES", "GATES", "LOGITS", "SELU_ALPHA", "SELU_SCALE"),
    *("family", "follow", "get", "load_entry_points", "register"),
)


def __getattr__(name: str) -> Formula:
    if name == "__all__":  # with what was registered
        return [*_TOOLS, *CATALOGUE, *GATES, *LOGITS]  # type: ignore[return-value]
    found = None if name.startswith("_") else find(name)
    if found is None:
        raise AttributeError(f"module 'zeta.activations' has no attribute {name!r}")
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *CATALOGUE, *GATES, *LOGITS})
