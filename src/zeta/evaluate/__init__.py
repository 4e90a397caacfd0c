"""Does an activation help? Paired trials on real data, honest statistics, a report.

===========================  ==================================================================
``evaluate``                 compare activations with relu, gelu and silu; write a report
``plan``                     what that would run, with the time and memory it needs
``Task``, ``Budget``         write one to evaluate on data of your own
``tasks``                    the tasks that come along
``run_trial``                one training run, a pure function of its key
``TrialKey``, ``Trial``      what a trial depends on; what it gives
``formula_fingerprint``      the part of the key that tells formulas apart
``Results``, ``Comparison``  what an evaluation found out
``Progress``                 the protocol of whoever wants to be told of finished trials
===========================  ==================================================================
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from zeta._errors import missing_extra

# Looked for and not imported: only the worker processes need PyTorch.
if _missing := [
    package
    for module, package in (
        ("filelock", "filelock"),
        ("torch", "PyTorch"),
        ("sklearn", "scikit-learn"),
        ("jinja2", "Jinja2"),
        ("matplotlib", "Matplotlib"),
        ("scikit_posthocs", "scikit-posthocs"),
    )
    if importlib.util.find_spec(module) is None
]:
    raise missing_extra("zeta.evaluate", *_missing, extra="evaluate")

from zeta.evaluate import tasks
from zeta.evaluate.plan import Plan, TaskPlan
from zeta.evaluate.progress import Progress
from zeta.evaluate.protocol import Settings, Trial, TrialKey, formula_fingerprint
from zeta.evaluate.results import Comparison, Results, Verdict
from zeta.evaluate.run import Interrupted, evaluate, plan
from zeta.evaluate.tasks import Budget, Task

if TYPE_CHECKING:
    from zeta.evaluate.training import run_trial

__all__ = [
    "Budget",
    "Comparison",
    "Interrupted",
    "Plan",
    "Progress",
    "Results",
    "Settings",
    "Task",
    "TaskPlan",
    "Trial",
    "TrialKey",
    "Verdict",
    "evaluate",
    "formula_fingerprint",
    "plan",
    "run_trial",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name == "run_trial":  # late, since it imports PyTorch
        from zeta.evaluate.training import run_trial

        return run_trial
    raise AttributeError(f"module 'zeta.evaluate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
