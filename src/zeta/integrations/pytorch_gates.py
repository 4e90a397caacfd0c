"""Gates of PyTorch models: ``act(gate) * value`` in a module's code, computed by one gate."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zeta import activations
from zeta._formula import Formula
from zeta._modules import IsMatched
from zeta.integrations import names
from zeta.integrations.gate_calls import why_no_product
from zeta.integrations.names import activation_name, unmatched
from zeta.integrations.pytorch import Place, check, find_places, lost, put_in, settle
from zeta.integrations.replacement import check_distinct
from zeta.integrations.report import Replaced, SurgeryReport
from zeta.integrations.transformers import configured_activations, written_into_code
from zeta.nn import GatedUnit

_MULTIPLICATIONS = frozenset({torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__})

# What Python looks for on the class alone.
_OPERATORS = (
    *("abs", "add", "bool", "contains", "eq", "float", "ge", "getitem", "gt", "iter", "le", "len"),
    *("lt", "matmul", "ne", "neg", "pow", "radd", "rmatmul", "rpow", "rsub", "rtruediv", "sub"),
    "truediv",
)


class FusedGate(nn.Module, IsMatched):
    """Stands where a module's code calls an activation to multiply by it, ``act(gate) * value``.

    What it answers is a :class:`PendingGate`: nothing is computed before the product, which is the
    gate of both. While the module has hooks that see its output, and under ``torch.fx``, it answers
    the activation itself.

    Args:
        activation: the gate.
        name: the place's qualified name, for errors.

    Example:
        >>> import torch
        >>> from zeta.activations import swiglu
        >>> from zeta.integrations.pytorch_gates import FusedGate
        >>> from zeta.nn import GatedUnit
        >>> act = FusedGate(GatedUnit(swiglu), "act")
        >>> act(torch.tensor([1.0, 2.0])) * torch.tensor([3.0, 4.0])
        tensor([2.1932, 7.0464])
    """

    activation: GatedUnit

    def __init__(self, activation: GatedUnit, name: str) -> None:
        super().__init__()
        self.activation = activation
        self.name = name
        self.is_product = is_product(activation.formula)

    def forward(self, input: Tensor) -> PendingGate | Tensor:
        """The activation of a gate that waits for its value."""
        pending = PendingGate(input, self)
        if self._backward_hooks or self._backward_pre_hooks:
            return pending.activated("a backward hook")
        if not isinstance(input, Tensor) or (self._forward_hooks and self.is_product):
            return pending.activated(f"a {type(input).__name__}")
        return pending


class PendingGate:
    """The activation of ``gate``, not computed yet; times a value it is what the gate computes.

    Where it is used in any other way, the activation is computed: the gate of a value of 1.

    Args:
        gate: the gate's first input.
        fused: the module that answered this.

    Raises:
        RuntimeError: used in another way, and the formula is no activation times the value.
    """

    def __init__(self, gate: Tensor, fused: FusedGate) -> None:
        self._gate = gate
        self._fused = fused

    def times(self, value: Any) -> Any:
        """The product with what stands beside it in the code."""
        if isinstance(value, PendingGate):
            value = value.activated()
        if isinstance(value, Tensor) and _kind(value) == _kind(self._gate):
            return self._fused.activation(self._gate, value)
        return self.activated(_shown(value)) * value

    __mul__ = __rmul__ = times

    def activated(self, use: str = "another use") -> Tensor:
        """The activation itself."""
        fused, gate = self._fused, self._gate
        if not fused.is_product:
            raise RuntimeError(  # a TypeError in an operator is lost: Python tries another one
                f"{fused.name}: {fused.activation.formula!r} is no activation times a value, so "
                "that the code around it can only multiply by it, a tensor like "
                f"{_shown(gate)}; it came to {use}"
            )
        result: Tensor = fused.activation(gate, torch.ones_like(gate))
        return result

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _MULTIPLICATIONS and len(args) == 2 and not kwargs:
            first, second = args
            return first.times(second) if isinstance(first, cls) else second.times(first)
        return func(*_activated(args), **_activated(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.activated(), name)


def _operator(name: str) -> Callable[..., Any]:
    return lambda pending, *others: getattr(pending.activated(), name)(*_activated(others))


for _name in _OPERATORS:
    setattr(PendingGate, f"__{_name}__", _operator(f"__{_name}__"))


def _activated(given: Any) -> Any:
    """Arguments of a function of PyTorch, with the activations in place of what is pending."""
    if isinstance(given, PendingGate):
        return given.activated()
    if isinstance(given, dict):
        return {name: _activated(each) for name, each in given.items()}
    return type(given)(map(_activated, given)) if type(given) in (list, tuple) else given


def _kind(x: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return x.shape, x.dtype, x.device


def _shown(x: Any) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)} on {x.device}"


@functools.cache
def is_product(formula: Formula) -> bool:
    """Whether a gate is a function of its first input times its second."""
    try:
        expression = formula.symbolic()
    except Exception:  # of whatever type: a formula is any code, and need not suit SymPy
        return False
    name = formula.inputs[1]
    values = [symbol for symbol in expression.free_symbols if symbol.name == name]
    _, rest = expression.as_independent(*values, as_Add=False)
    return [rest] == values


def replace(model: nn.Module, formula: str | Formula | Callable[[], Any] | None) -> SurgeryReport:
    """:func:`zeta.integrations.replace_gates` on a PyTorch model."""
    check(model)
    make = _factory(formula)
    found = [place for place in find_places(model, _is_activation) if place.around]
    makers: dict[Place, Callable[[], Any]] = {}
    left: list[str] = []
    for place in found:
        plan = _plan(place, make)
        if isinstance(plan, str):
            left.append(f"{place.name}, {unmatched(place.old)!r}: {plan}")
        else:
            makers[place] = plan
    if not makers:
        raise _nothing(model, left)
    places = [*makers]
    shared = {id(place.old): place for place in places}  # one of the places of each old module
    units = {key: _made(makers[place]) for key, place in shared.items()}
    if make:
        check_distinct(units.values(), make, len(units))
    fused = {key: FusedGate(unit, shared[key].name) for key, unit in units.items()}
    for key, place in shared.items():
        settle(fused[key], place)
    return SurgeryReport(
        model,
        tuple(Replaced(p.name, repr(unmatched(p.old)), repr(units[id(p.old)])) for p in places),
        lost=tuple(f"{p.name}: {text}" for p in shared.values() for text in lost(p)),
        left=tuple(left),
        configured=", ".join(configured_activations(model)),
        noun="gate",
        _undo=put_in(model, places, fused),
    )


def _factory(formula: str | Formula | Callable[[], Any] | None) -> Callable[[], Any] | None:
    """What makes the new gates; None where each follows from the activation that it replaces."""
    if isinstance(formula, str):
        formula = activations.get(formula)
    if isinstance(formula, Formula):
        if len(formula.inputs) != 2:
            raise TypeError(
                f"a gate has two inputs, and {formula!r} has {len(formula.inputs)}: give one of "
                f"{', '.join(activations.GATES)}, or use zeta.replace_activations"
            )
        return functools.partial(GatedUnit, formula)
    if formula is None or (callable(formula) and not isinstance(formula, nn.Module)):
        return formula
    raise TypeError(
        "the gate must be a name of the catalogue, a formula of two inputs, or a function that "
        f"makes a new zeta.nn.GatedUnit for every place; got {formula!r}"
    )


def _is_activation(name: str, value: Any) -> bool:
    """Whether it is an activation: known, or a module without parts that is called one."""
    if isinstance(value, GatedUnit) or activation_name(value) in names.GATES:
        return isinstance(value, FusedGate)
    if activation_name(value):
        return True
    words = name.rpartition(".")[2].split("_")
    return ("act" in words or "activation" in words) and not any(True for _ in value.children())


def _plan(place: Place, make: Callable[[], Any] | None) -> Callable[[], Any] | str:
    """What makes the gate for the place, or why the activation stays as it is."""
    old = place.old
    if why := why_no_product(place.around[0], place.attribute, nn.Module):
        return why
    if make:
        return make
    if isinstance(old, FusedGate):
        return "it is a gate already; name a formula for another one"
    if any(True for _ in (*old.parameters(), *old.buffers())):
        return "it has values of its own, which no gate of the catalogue has; name a formula"
    gate = _gate_of(old)
    return (
        functools.partial(GatedUnit, gate)
        if gate
        else "the catalogue has no gate of it; name a formula"
    )


def _gate_of(activation: nn.Module) -> Formula | None:
    """The gate of the catalogue that is this activation times the value, by what it answers."""
    with torch.no_grad(), torch.device("cpu"):  # also where a model is built on the meta device
        x = torch.linspace(-50, 50, 4001, dtype=torch.float64)
        try:
            y = activation.forward(x.clone())  # past the hooks, which are for the model's inputs
        except Exception:  # of whatever type: it is not elementwise, say
            return None
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return None
    for gate in filter(is_product, activations.GATES.values()):
        expected = gate(x.numpy(), np.ones(x.shape))
        # To rounding, of constants too: two kinds of GELU differ by 5e-4.
        if np.allclose(y.double().numpy(), expected, rtol=1e-6, atol=1e-6):
            return gate
    return None


def _made(make: Callable[[], Any]) -> GatedUnit:
    unit = make()
    if not isinstance(unit, GatedUnit):
        raise TypeError(
            f"what makes the gates must make a zeta.nn.GatedUnit, not {type(unit).__name__}"
        )
    return unit


def _nothing(model: nn.Module, left: list[str]) -> ValueError:
    counts = Counter(line.partition(", ")[2] for line in left)  # alike in every layer
    lines = [f"{line} ×{n}" if n > 1 else line for line, n in counts.items()]
    reasons = "; ".join(lines) or "it has no activation that is a module"
    hint = written_into_code(model)
    return ValueError(
        f"nothing in {type(model).__name__} is act(gate) * value with an activation that a gate "
        f"can replace: {reasons}{'. ' if hint else ''}{hint}"
    )
