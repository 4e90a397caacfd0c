"""timm: an activation as its models take it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeta._formula import Formula

if TYPE_CHECKING:
    from torch import nn


def act_layer(activation: str | Formula | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What to give as ``act_layer=`` to timm's models.

    About a third of timm's calls are ``act_layer(inplace=True)``. The function returned here drops
    ``inplace``, since Zeta's activations never overwrite their input, and hands everything else on.

    Args:
        activation: a class or factory of modules, a formula, or a name of the catalogue.

    Raises:
        UnknownNameError: no such name in the catalogue.

    Example:
        >>> from zeta.integrations import act_layer
        >>> act_layer("exo")(inplace=True)
        Exo(alpha=1)
    """
    from zeta.integrations.pytorch import MAKER

    make = MAKER.factory(activation)

    # A function: timm takes classes, functions and partials alone.
    def build(inplace: bool = False, **kwargs: Any) -> nn.Module:
        return make(**kwargs)

    return build
