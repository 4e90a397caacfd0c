"""Conditions: a task once more, with another initialisation or a larger budget."""

from dataclasses import replace
from typing import Literal, get_args

from zeta._errors import UserError
from zeta.evaluate.tasks.task import Task

Condition = Literal["matched", "4x"]
_MORE = 4  # times the epochs


def split_condition(source: str) -> tuple[str, Condition | None]:
    """A task's name without its condition, and the condition.

    Example:
        >>> from zeta.evaluate.tasks.condition import split_condition
        >>> split_condition("deep_housing (matched)")
        ('deep_housing', 'matched')
        >>> split_condition("mine.py:task")
        ('mine.py:task', None)
    """
    for condition in get_args(Condition):
        if source.endswith(f" ({condition})"):
            return source.removesuffix(f" ({condition})"), condition
    return source, None


def under(source: str, condition: Condition) -> str:
    """The name of a task under a condition.

    Example:
        >>> from zeta.evaluate.tasks.condition import under
        >>> under("digits", "4x")
        'digits (4x)'
    """
    return f"{source} ({condition})"


def conditioned(source: str, task: Task, condition: Condition) -> Task:
    """A task under a condition.

    Args:
        source: the task's name on the command line.

    Raises:
        UserError: the task cannot be run so.
    """
    if split_condition(source)[1]:
        raise UserError(f"task {source!r} is under a condition already; name the task itself")
    known = replace(task, name=under(task.name, condition), dataset=task.dataset or source)
    if condition == "matched":
        return replace(
            known, matched=True, title=f"{task.title}; variance-preserving initialisation"
        )
    budget = replace(task.budget, epochs=_MORE * task.budget.epochs)
    title = f"{task.title}; {_MORE}× the epochs, a falling learning rate, validation stopping"
    return replace(known, stopping=True, budget=budget, title=title)
