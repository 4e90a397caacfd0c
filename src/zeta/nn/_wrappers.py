"""What wrappers need of a module that has more methods than ``forward``, and who else holds it."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zeta.kernels.support import is_eager

_Method = TypeVar("_Method", bound=Callable[..., Any])
_Module = TypeVar("_Module", bound=nn.Module)

# Modules whose gradients one backward has asked about.
_asked: WeakSet[nn.Module] = WeakSet()


def as_forward(method: _Method) -> _Method:
    """Run a method by calling its module, so that the hooks of ``forward`` run around it.

    In them FSDP2 gathers the weights, and pruning and offloading put theirs in place. The class's
    ``forward`` takes ``_call``: the method, what follows x, and the options.
    """

    @functools.wraps(method)
    def call(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if "_call" not in (getattr(type(self).forward, "__kwdefaults__", None) or {}):
            return method(self, x, *args, **kwargs)  # a subclass's forward may be what calls it
        _refuse_per_sample_gradients(self)
        result = self(x, _call=(method, args, kwargs))
        _ask_whether_gradients_stay_local(self, result)
        return result

    return cast(_Method, call)


def ties(module: nn.Module, names: Iterable[str]) -> list[tuple[str, nn.Module]]:
    """Which of these parameters other living modules have too, and who, however they were tied."""
    own = [(name, p) for name in names if (p := module._parameters.get(name)) is not None]
    dicts = [d for d in gc.get_referrers(*(p for _, p in own)) if isinstance(d, dict)]
    if all(d is module._parameters for d in dicts):
        return []
    gc.collect()  # what nobody has any more ties nothing
    others = [m for m in _living(nn.Module) if m is not module]
    return [(name, m) for m in others for name, p in own if any(p is q for q in _parameters(m))]


def _living(kind: type[_Module]) -> list[_Module]:
    # By the type: `isinstance` would ask an object that only stands for another.
    return [cast(_Module, o) for o in gc.get_objects() if issubclass(type(o), kind)]


def _parameters(module: nn.Module) -> list[Tensor | None]:
    return list(vars(module).get("_parameters", {}).values())


def _refuse_per_sample_gradients(module: nn.Module) -> None:
    """Opacus computes ``forward`` anew for each sample, whatever method was called."""
    marked = any(hasattr(parameter, "grad_sample") for parameter in _parameters(module))
    if marked and module.training and torch.is_grad_enabled():
        raise RuntimeError(
            "Opacus takes per-sample gradients of forward alone: use a subclass of "
            f"{type(module).__name__} whose forward returns self.log_prob(x), and F.nll_loss of it"
        )


def _ask_whether_gradients_stay_local(module: nn.Module, result: Any) -> None:
    """In the first backward, warn where a DistributedDataParallel reduces nothing.

    Its ``forward`` is what makes it reduce gradients. Nothing leads from a module to the one that
    wraps it, so all objects are looked through, once.
    """
    if not is_eager() or module in _asked or not (dist.is_available() and dist.is_initialized()):
        return

    def ask(_: Tensor) -> None:
        if module in _asked:
            return
        _asked.add(module)
        held = {id(parameter) for parameter in _parameters(module)}
        for ddp in _living(DistributedDataParallel):
            reduced = {id(parameter) for parameter in getattr(ddp, "_module_parameters", ())}
            if held & reduced and not getattr(ddp, "_lazy_init_ran", True):
                warnings.warn(
                    f"gradients of this {type(module).__name__} stay on this process, since the "
                    "forward of the DistributedDataParallel around it has not run: compute the "
                    "loss in the wrapped model's forward",
                    stacklevel=1,
                )

    result = result[0] if isinstance(result, tuple) else result
    if isinstance(result, Tensor) and result.requires_grad:
        result.register_hook(ask)
