"""The argument names of upstream's documents, where Zeta's own are others."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def input_also_called(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function's argument ``input`` be given by other keywords too.

    Args:
        names: the keywords, which the signature does not show.

    Raises:
        TypeError: a call gives it twice.

    Example:
        >>> from zeta._call_forms import input_also_called
        >>> @input_also_called("x")
        ... def double(input):
        ...     return 2 * input
        >>> double(3), double(input=3), double(x=3)
        (6, 6, 6)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            given = [name for name in names if name in kwargs] if kwargs else []
            if not given:
                return function(*args, **kwargs)
            # A new dictionary, since torch.compile follows none that is changed.
            others = {key: value for key, value in kwargs.items() if key != given[0]}
            return function(*args, input=kwargs[given[0]], **others)

        return call

    return decorate
