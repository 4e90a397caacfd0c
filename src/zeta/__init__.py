"""Zeta: write an activation function once as a formula; everything else follows.

Importing ``zeta`` imports no framework. The parts load when they are first touched:

======================  =====================================================================
``zeta.formula``        the decorator that turns a Python function into a :class:`Formula`
``zeta.math``           the primitives a formula is written with
``zeta.activations``    the catalogue: every activation once, as a formula
``zeta.ops``            PyTorch functions
``zeta.nn``             PyTorch modules
``zeta.jax``            JAX functions
``zeta.flax``           Flax NNX modules
``zeta.keras``          Keras layers and functions, on three backends
``zeta.convert``        weights from one framework's modules to another's
``zeta.integrations``   model surgery, Hugging Face transformers, timm
``zeta.evaluate``       does an activation help? Paired trials, statistics and a report
======================  =====================================================================
"""

import importlib
from typing import Any

from zeta._errors import UnknownNameError, UserError, refuse_upstream_beside
from zeta._formula import Formula, formula

refuse_upstream_beside()

__all__ = [
    "Facts",
    "Formula",
    "UnknownNameError",
    "UserError",
    "activations",
    "convert",
    "evaluate",
    "flax",
    "formula",
    "integrations",
    "jax",
    "keras",
    "math",
    "nn",
    "ops",
    "register_transformers",
    "replace_activations",
    "replace_gates",
]

_INTEGRATIONS = frozenset({"register_transformers", "replace_activations", "replace_gates"})
_HERE = frozenset({"Formula", "UnknownNameError", "UserError", "formula"})
_SUBMODULES = frozenset(__all__) - _HERE - _INTEGRATIONS - {"Facts"}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"zeta.{name}")
    if name in _INTEGRATIONS:
        return getattr(importlib.import_module("zeta.integrations"), name)
    if name == "Facts":
        return importlib.import_module("zeta._facts").Facts
    if name == "__version__":
        from importlib.metadata import version

        return version("zeta-nn")
    raise AttributeError(f"module 'zeta' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
