"""Hugging Face transformers: Zeta's activations by name in a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from zeta import activations
from zeta._errors import missing_extra
from zeta._formula import Formula
from zeta._modules import check_one_input
from zeta.integrations.names import activation_name

if TYPE_CHECKING:
    from torch import nn

# What configurations call the activation of the feed-forward layers.
_FIELDS = ("hidden_act", "hidden_activation", "activation_function")


def register_transformers(*, replace: str | Collection[str] = ("laplace",)) -> tuple[str, ...]:
    """Make ``hidden_act="exo"`` and the catalogue's other names work in configurations.

    Every name goes into ``transformers.activations.ACT2FN``, which builds a new module at every
    look-up, so that each layer has parameters of its own. What is registered later
    (:func:`zeta.activations.register`) is entered by itself. A name that transformers already has
    keeps its meaning there, unless it is in ``replace``. By default that is "laplace" alone, where
    Zeta's keeps the digits of the lower tail that ``1 + erf`` loses.

    Call it before building a model, also before ``from_pretrained`` of one that was saved with
    such a name. Calling it again changes nothing. What a checkpoint lacks, such as the parameters
    of ``learnable_selu_variation`` where it was trained with another activation, gets its starting
    values.

    Some models ignore the setting, in silence, since their activation is written into their code:
    of transformers 5.23.0 the language models GPT-OSS, Inkling 2 and MiniMax-M3-VL, and parts of
    others that ``docs/surgery.md`` lists. Whether a model listens is seen by looking for a
    :class:`zeta.nn.FormulaModule` among its ``modules()``.

    Args:
        replace: what Zeta's activations take over from transformers: names of the catalogue.

    Returns:
        The names that stand for Zeta's activations after this call.

    Raises:
        UnknownNameError: a name in ``replace`` that is not in the catalogue.
        TypeError: one that is a gate; also from a model whose configuration names one.
        ImportError: transformers is not installed.

    Example:
        >>> import zeta
        >>> names = zeta.register_transformers()
        >>> "exo" in names, "gelu" in names
        (True, False)
        >>> from transformers.activations import ACT2FN
        >>> ACT2FN["exo"]
        Exo(alpha=1)
    """
    try:
        from transformers.activations import ACT2FN
    except ModuleNotFoundError as error:
        part = "zeta.register_transformers"
        raise missing_extra(part, "transformers", extra="transformers") from error
    from zeta.integrations.pytorch import MAKER

    names = (replace,) if isinstance(replace, str) else replace
    for formula in [_activation(name) for name in names]:
        ACT2FN[formula.name] = _ENTERED[formula.name] = MAKER.of_formula(formula)
    activations.load_entry_points()
    activations.follow(_enter)
    return tuple(name for name in activations.CATALOGUE if _is_ours(name))


# What this module has put into ACT2FN.
_ENTERED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}


def _enter(formula: Formula) -> None:
    """Put a formula into ACT2FN, unless transformers has one of its name."""
    from transformers.activations import ACT2FN

    from zeta.integrations.pytorch import MAKER

    name = formula.name
    if name not in ACT2FN or _is_ours(name):
        is_gate = name in activations.GATES
        # What a look-up calls: of a gate, what raises.
        entry = (_activation, {"name": name}) if is_gate else MAKER.of_formula(formula)
        ACT2FN[name] = _ENTERED[name] = entry


def _is_ours(name: str) -> bool:
    from transformers.activations import ACT2FN

    # `ACT2FN[name]` would build a module.
    return name in _ENTERED and dict.get(ACT2FN, name) == _ENTERED[name]


def _activation(name: str) -> Formula:
    """The catalogue's activation of that name.

    Raises:
        UnknownNameError: there is none.
        TypeError: it is a gate.
    """
    formula = activations.get(name)
    check_one_input(formula, "an activation's name in transformers")
    return formula


def configured_activations(model: nn.Module) -> dict[str, str]:
    """What the configurations of a transformers model and its parts call their activation.

    By what they say, ``"hidden_act='gelu'"``, the name that they give.
    """
    # Whoever has such a model has loaded this.
    configurations = sys.modules.get("transformers.configuration_utils")
    if configurations is None:
        return {}
    found = (getattr(module, "config", None) for module in model.modules())
    configs = {id(c): c for c in found if isinstance(c, configurations.PreTrainedConfig)}
    return {
        f"{field}={name!r}": name
        for config in configs.values()
        for field in _FIELDS
        if isinstance(name := getattr(config, field, None), str)
    }


def written_into_code(model: nn.Module) -> str:
    """What to say of a transformers model whose configured activation no module computes."""
    configured = configured_activations(model)
    if not configured:
        return ""
    from transformers.activations import ACT2FN

    built = ACT2FN.keys() - activations.GATES.keys()  # a gate's look-up raises
    computed = {activation_name(module) for module in model.modules()}
    ignored = [
        said
        for said, name in configured.items()
        if (activation_name(ACT2FN[name]) if name in built else name) not in computed
    ]
    if not ignored:
        return ""
    return (
        f"The configuration says {', '.join(ignored)}, but no module computes that: the model "
        "ignores this setting, and an activation written into its code is out of surgery's reach"
    )
