"""captum: its DeepLift on models with Zeta's activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def register_captum() -> tuple[type, ...]:
    """Make captum's DeepLift treat Zeta's activations as activations.

    DeepLift sends a difference of outputs back through an activation f by the slope
    ``(f(x) - f(x₀)) / (x - x₀)`` instead of f′(x), for the classes that it knows; through others it
    sends the gradient, and its attributions do not add up to the difference. This adds
    ``FormulaModule`` and its subclasses, your own included where they are defined by now. It serves
    ``DeepLiftShap`` and the variants for layers and neurons too. Calling it again changes nothing.

    ``SELUSoftmax`` and ``MixtureOfSoftmaxes`` are not elementwise and not added: attribute what
    goes into them.

    Returns:
        The classes.

    Raises:
        ImportError: captum is not installed.

    Example:
        >>> import torch, zeta
        >>> from captum.attr import DeepLift
        >>> from zeta.integrations import register_captum
        >>> zeta.nn.Exo in register_captum()
        True
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), zeta.nn.Exo(), torch.nn.Linear(4, 1))
        >>> x = torch.ones(1, 3, requires_grad=True)
        >>> _, delta = DeepLift(model).attribute(x, 0 * x, return_convergence_delta=True)
        >>> delta.abs().item() < 1e-6
        True

    Source: Shrikumar et al. 2017, Learning important features through propagating activation
    differences: the Rescale rule.
    """
    # captum has no public way.
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, nonlinear

    from zeta.nn import FormulaModule

    classes = tuple(_with_subclasses(FormulaModule))
    for kind in classes:  # captum looks up the very class
        SUPPORTED_NON_LINEAR.setdefault(kind, nonlinear)
    return classes


def _with_subclasses(kind: type[Any]) -> Iterator[type]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)
