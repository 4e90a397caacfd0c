"""Which parameters weight decay should leave alone."""

from typing import Any

from torch import nn

from zeta.nn.module import Module

# Norms whose weight may have several dimensions.
_NORMS = nn.LayerNorm | nn.RMSNorm


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """A model's parameters for ``torch.optim``, in two groups: with weight decay and without.

    Without are all parameters

    - with fewer than two dimensions: biases, the weights of norms, scalars;
    - of ``nn.LayerNorm`` and ``nn.RMSNorm``, and those whose own name contains "bias", whatever
      their shape: the mixture's (K, V) bias, attention's ``bias_k``, tables of relative positions;
    - of Zeta's activations, which are shapes and not weights: decay would pull Exo's alpha to 0;
    - that are marked ``_no_weight_decay``, as those of state-space models are.

    With decay is the rest: the weights of linear layers, convolutions and embeddings, also of a
    mixture. That is the rule of nanoGPT, timm and transformers' ``Trainer`` where they agree.

    Args:
        model: any module; on one wrapped by FSDP with flat parameters, call this before wrapping.
        weight_decay: for the first group.

    Returns:
        The group with decay, then the one without; each parameter once, also where several modules
        share it, in the model's order. A shared one has none if one of its places says so. Frozen
        parameters are left out; a group may be empty.

    Raises:
        ValueError: weight_decay is negative.

    Example:
        >>> import torch
        >>> from zeta.nn import Exo, parameter_groups
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), Exo(learnable=True))
        >>> groups = parameter_groups(model, 0.1)
        >>> [(len(group["params"]), group["weight_decay"]) for group in groups]
        [(1, 0.1), (2, 0.0)]
        >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)

    Source: nanoGPT's ``configure_optimizers``, timm's ``param_groups_weight_decay``.
    """
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    decays: dict[nn.Parameter, bool] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                decays[parameter] = decays.get(parameter, True) and _decays(module, name, parameter)
    return [
        {"params": [p for p, decayed in decays.items() if decayed], "weight_decay": weight_decay},
        {"params": [p for p, decayed in decays.items() if not decayed], "weight_decay": 0.0},
    ]


def _decays(module: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    return not (
        parameter.dim() < 2
        or "bias" in name
        or isinstance(module, _NORMS)
        or (isinstance(module, Module) and module._never_decayed(name))
        or getattr(parameter, "_no_weight_decay", False)
    )
