"""Who runs the trials: this machine's cores, or a Ray cluster.

An engine is given groups of keys and gives back groups of trials; it writes nothing to the store.
"""

from zeta.evaluate.engines.engine import (
    NAMES as NAMES,
    Engine,
    EngineName as EngineName,
    make_engine,
)
from zeta.evaluate.engines.local import LocalEngine, available_cores

__all__ = ["Engine", "LocalEngine", "available_cores", "make_engine"]
