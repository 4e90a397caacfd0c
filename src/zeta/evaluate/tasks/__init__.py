"""The tasks that activations are compared on, all of real data that come inside packages.

To add one, write a small file with a :class:`Task` and name it in ``TASKS``.
"""

from zeta._errors import UnknownNameError
from zeta.evaluate.tasks.adult import adult
from zeta.evaluate.tasks.breast_cancer import breast_cancer
from zeta.evaluate.tasks.condition import conditioned, split_condition
from zeta.evaluate.tasks.deep_housing import deep_housing
from zeta.evaluate.tasks.diabetes import diabetes
from zeta.evaluate.tasks.digits import digits, digits_conv, digits_gated
from zeta.evaluate.tasks.fashion_mnist import fashion_mnist
from zeta.evaluate.tasks.gated import GatedTask, gated_unit
from zeta.evaluate.tasks.housing import housing, housing_gated
from zeta.evaluate.tasks.letters import letters, letters_gated
from zeta.evaluate.tasks.patches import patches
from zeta.evaluate.tasks.photograph import photograph
from zeta.evaluate.tasks.photograph_waves import photograph_waves
from zeta.evaluate.tasks.see_and_hear import see_and_hear
from zeta.evaluate.tasks.shuttle import shuttle_stream
from zeta.evaluate.tasks.spoken_digits import spoken_digits
from zeta.evaluate.tasks.task import METRICS as METRICS, Budget, Shape, Split, Task
from zeta.evaluate.tasks.transfer import transfer
from zeta.evaluate.tasks.words import (
    words_mixture,
    words_selu_softmax,
    words_softmax,
    words_stream,
)
from zeta.load_formula import is_file_source, load_from_file

__all__ = [
    "QUICK",
    "SLOW",
    "TASKS",
    "Budget",
    "GatedTask",
    "Shape",
    "Split",
    "Task",
    "gated_unit",
    "get",
]

#: Every task by name.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        digits,
        digits_conv,
        fashion_mnist,
        breast_cancer,
        adult,
        diabetes,
        photograph,
        words_softmax,
        words_mixture,
        words_selu_softmax,
        spoken_digits,
        see_and_hear,
        transfer,
        shuttle_stream,
        words_stream,
        deep_housing,
        patches,
        letters,
        letters_gated,
        housing,
        photograph_waves,
        digits_gated,
        housing_gated,
    )
}
#: Tasks that run only if they are named, since they take minutes or are for gates.
SLOW = (
    *("letters", "letters_gated"),
    *("words_softmax", "words_mixture", "words_selu_softmax", "words_stream"),
    *("digits_gated", "housing_gated"),
)
#: The tasks of a quick look, which take seconds and need nothing more to be installed.
QUICK = ("digits", "breast_cancer", "diabetes")


def get(source: str) -> Task:
    """The task that ``source`` names.

    Args:
        source: a name of ``TASKS`` or ``"path/to/file.py:name"``; with "(matched)" after it, the
            task with variance-preserving initialisation, and with "(4x)" the one with four times
            the epochs, a learning rate that falls to 0, and validation stopping.

    Raises:
        UserError: an unknown name (the message suggests the nearest), an unusable file, or a task
            that cannot be run under the condition.

    Example:
        >>> from zeta.evaluate import tasks
        >>> tasks.get("diabetes").metric
        'R²'
        >>> tasks.get("diabetes (4x)").budget.epochs / tasks.get("diabetes").budget.epochs
        4.0
    """
    base, condition = split_condition(source)
    if condition:
        return conditioned(base, get(base), condition)
    if is_file_source(source):
        return load_from_file(source, Task)
    if source not in TASKS:
        raise UnknownNameError("task", source, TASKS)
    return TASKS[source]
