"""Candidates: formulas of one input, and gates of two for the tasks that take them."""

from collections.abc import Mapping

from zeta._errors import UserError
from zeta._formula import Formula
from zeta.evaluate.protocol import as_trained, formula_source
from zeta.evaluate.tasks import TASKS, GatedTask, Task
from zeta.load_formula import load_formula, one_spelling


def candidate_name(asked: str) -> str:
    """The one name of an activation that was asked for.

    Raises:
        UserError: it is a control's.

    Example:
        >>> from zeta.evaluate.candidates import candidate_name
        >>> candidate_name("./mine.py:swish")
        'mine.py:swish'
    """
    name = one_spelling(asked)
    if name != as_trained(name):
        raise UserError(f"{name!r} is a control, which runs add by themselves; name another")
    return name


def load_candidate(activation: str) -> Formula:
    """The formula of an activation or of a gate of two inputs.

    Args:
        activation: one of :attr:`zeta.evaluate.Settings.activations`.

    Raises:
        UserError: it cannot be loaded, or takes more inputs.

    Example:
        >>> from zeta.evaluate.candidates import load_candidate
        >>> load_candidate("swiglu").inputs
        ('gate', 'value')
    """
    source = formula_source(activation)
    formula = load_formula(source, inputs=None)
    return formula if is_gate(formula) else load_formula(source)


def is_gate(formula: Formula) -> bool:
    """Whether it takes a gate and a value."""
    return len(formula.inputs) == 2


def check_gates(formulas: Mapping[str, Formula], tasks: Mapping[str, Task]) -> None:
    """Refuse a gate on a task without gated units.

    Raises:
        UserError: which task, and which would do.
    """
    plain = [name for name, task in tasks.items() if not isinstance(task, GatedTask)]
    gates = [name for name, formula in formulas.items() if is_gate(formula)]
    if plain and gates:
        fit = ", ".join(name for name, task in TASKS.items() if isinstance(task, GatedTask))
        raise UserError(
            f"{gates[0]!r} is a gate of two inputs, and task {plain[0]!r} has no gated units; "
            f"gates run on: {fit} (--task)"
        )
