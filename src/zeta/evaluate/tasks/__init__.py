"""The tasks that activations are compared on, all real data that scikit-learn brings along.

To add one, write a small file with a :class:`Task` and name it in ``TASKS``.
"""

from zeta._errors import UnknownNameError
from zeta.evaluate.tasks.breast_cancer import breast_cancer
from zeta.evaluate.tasks.diabetes import diabetes
from zeta.evaluate.tasks.digits import digits
from zeta.evaluate.tasks.task import METRICS, Budget, Split, Task
from zeta.load_formula import is_file_source, load_from_file

__all__ = ["METRICS", "TASKS", "Budget", "Split", "Task", "get"]

TASKS: dict[str, Task] = {task.name: task for task in (digits, breast_cancer, diabetes)}


def get(source: str) -> Task:
    """The task that ``source`` names.

    Args:
        source: a name of ``TASKS`` or ``"path/to/file.py:name"``.

    Raises:
        UserError: an unknown name (the message suggests the nearest) or an unusable file.

    Example:
        >>> from zeta.evaluate import tasks
        >>> tasks.get("diabetes").metric
        'R²'
    """
    if is_file_source(source):
        return load_from_file(source, Task)
    if source not in TASKS:
        raise UnknownNameError("task", source, TASKS)
    return TASKS[source]
