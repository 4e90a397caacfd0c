"""What Zeta's modules with parameters have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class Module(nn.Module):
    """A module that has its documented starting values under transformers too, and marks.

    **Starting values.** transformers' ``from_pretrained`` builds a model on the meta device, gives
    memory to what the checkpoint lacks, and has every module initialised by the model's own
    ``_init_weights``, which does not know the modules of other libraries. Before that it asks each
    module whether it is initialised, by the attribute ``_is_hf_initialized``. A module that is not
    answers by calling its ``reset_parameters``. Meanwhile transformers keeps ``torch.nn.init`` from
    writing to what was in the checkpoint, so that ``reset_parameters`` must set values by that
    alone; whoever else asks, while values are not kept so, changes nothing. No part of
    transformers is replaced for this, and none imported; what the model's
    ``_init_weights`` has to say about our modules comes afterwards and holds.

    **Marks.** A parameter that weight decay should leave alone has ``_no_weight_decay = True``, the
    mark of state-space models that trainers look for. FSDP2 puts parameters of its own in the place
    of ours, past :meth:`register_parameter`: those have no mark, and
    :func:`zeta.nn.parameter_groups`, which goes by the modules, finds them.
    """

    # torch.jit.trace would compile it.
    __jit_unused_properties__ = ("_is_hf_initialized",)

    _starts_late = False
    _marked_initialized = False

    def _start(self) -> None:
        """Set the starting values, now or as soon as there is memory; for ``__init__``."""
        self.reset_parameters()
        self._note_start()

    def _note_start(self) -> None:
        """Note whether what is set now will have to be set again.

        It will on the meta device, and while transformers makes ``torch.nn.init`` do nothing, as it
        does for DeepSpeed's ZeRO-3.
        """
        probe: Tensor | None = nn.init.zeros_(torch.empty(0))
        self._starts_late = probe is None or probe.is_meta or has_meta_tensors(self)

    def reset_parameters(self) -> None:
        """Set the starting values, through ``torch.nn.init``."""
        raise NotImplementedError

    def _never_decayed(self, name: str) -> bool:
        """Whether weight decay should leave this parameter of the module itself alone."""
        return True

    @property
    def _is_hf_initialized(self) -> bool:
        if self._starts_late and not self._marked_initialized and _keeps_loaded_values():
            self.reset_parameters()
        return self._marked_initialized

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, value: bool) -> None:
        self._marked_initialized = value

    # Parameters are made anew by assignment (transformers, `load_state_dict(assign=True)`), by
    # conversion (`to_empty`) and by copying.

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As every module does, and mark it."""
        super().register_parameter(name, param)
        self._mark()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._starts_late = has_meta_tensors(self)
        self._mark()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._starts_late = False  # what has values keeps them

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mark()

    def _mark(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter is not None and self._never_decayed(name):
                parameter._no_weight_decay = True  # type: ignore[attr-defined]


def _keeps_loaded_values() -> bool:
    """Whether transformers initialises a model now, by its own functions in `torch.nn.init`."""
    return nn.init.uniform_.__module__ == "transformers.initialization"


def has_meta_tensors(module: nn.Module, recurse: bool = True) -> bool:
    """Whether some parameter or buffer has no memory yet."""
    tensors = itertools.chain(module.parameters(recurse), module.buffers(recurse))
    return any(tensor.is_meta for tensor in tensors)
