"""A formula's kernel as a PyTorch operator, which graphs of `torch.compile` call on the CPU.

Inductor's own loops for a tanh, a softplus or an erf take up to five times as long as the kernel.
So a graph calls ``zeta::activation`` for large CPU tensors, and ``zeta::activation_gradients`` in
its backward. All else stays plain operations: small tensors and cheap formulas (ReLU, SiLU), where
a call costs more than it saves and Inductor fuses with the neighbours; other devices, tensor
subclasses, transforms; and exported programs, which must load where there is no Zeta.

What is called is named by a text: the formula, where to import it from, a digest of what it
computes, and its parameters that are numbers. Compiled graphs are kept on disk, and a graph with
that text in it is right for this formula only.

Both are defined by `torch.library`'s single steps: ``custom_op`` would import PyTorch's compiler.
"""

from __future__ import annotations

import importlib
import json
import operator
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import define, impl, register_autograd, register_fake

from zeta._backends import constant_while_compiling
from zeta._backends.torch_plain import ARRAYS
from zeta._errors import NoKernelError
from zeta._formula import Formula
from zeta.kernels import compiler, cpu
from zeta.kernels.build import DTYPES
from zeta.kernels.dispatch import for_prepared, is_sound, prepared
from zeta.kernels.fingerprint import fingerprint
from zeta.kernels.operands import Number, Parameter, broadcasts
from zeta.kernels.support import PLAIN_TYPES, is_plain

# Elements per thread from which on the kernel was not slower than Inductor's loops.
SMALLEST_SHARE = 2**18
# What Inductor's loops take for a function, in exponentials; and from how many on a call pays,
# though nothing is fused with it.
_COST = {
    **dict.fromkeys(("exp", "expm1", "sigmoid", "sigmoid_complement"), 1),
    **dict.fromkeys(("log", "log1p", "sin", "cos", "atan"), 1),
    **dict.fromkeys(("tanh", "softplus"), 2),
    **dict.fromkeys(("erf", "erfc", "tanh_softplus"), 3),
}
_SMALLEST_COST = 3


class Call(NamedTuple):
    """What an operator is told beside tensors.

    Attributes:
        formula: the formula.
        numbers: the parameters in the formula's order; None where one is a tensor.
    """

    formula: Formula
    numbers: tuple[Number, ...]

    def arguments(
        self, tensors: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Parameter]]:
        """The inputs, and every parameter by name; ``tensors`` are inputs, then parameters."""
        count = len(self.formula.inputs)
        rest = iter(tensors[count:])
        values = (next(rest) if number is None else number for number in self.numbers)
        return (*tensors[:count],), dict(zip(self.formula.parameters, values, strict=True))

    def plain(self, *tensors: Tensor) -> Tensor:
        """By plain operations."""
        y: Tensor = ARRAYS.evaluate(self.formula, *self.arguments(tensors))
        return y


_calls: dict[str, Call] = {}
_names: WeakKeyDictionary[Formula, str] = WeakKeyDictionary()
_VALUE, _GRADIENTS = "zeta::activation", "zeta::activation_gradients"
define(
    _VALUE,
    "(Tensor[] tensors, str call) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
define(
    _GRADIENTS,
    "(Tensor upstream, Tensor[] tensors, str call, bool[] wanted) -> Tensor[]",
    tags=torch.Tag.pt2_compliant_tag,
)


# ---- While a graph is traced --------------------------------------------------------------------


def traced(
    formula: Formula, inputs: tuple[Any, ...], parameters: Mapping[str, Any]
) -> Tensor | None:
    """The formula as an operator in the graph that is being traced; None for plain operations.

    Args:
        formula: the formula.
        inputs: of whatever type.
        parameters: every parameter's value by name.
    """
    if torch.compiler.is_exporting() or not torch.compiler.is_dynamo_compiling():
        return None
    # There while a graph is traced. The questions put no condition on a size that varies.
    from torch.fx.experimental.symbolic_shapes import has_static_value, statically_known_true

    x = inputs[0]
    if not all(map(_is_plain, inputs)) or statically_known_true(x.numel() < _smallest()):
        return None
    for other in inputs[1:]:
        if other.dtype != x.dtype or not _have_equal_shapes(other, x):
            return None
    numbers: list[Number] = []
    tensors = [*inputs]
    varied: set[int] = set()
    for parameter, value in parameters.items():
        length = formula.vectors.get(parameter, 0)
        if isinstance(value, Tensor):
            if not _is_plain(value) or not broadcasts(value, x, length):
                return None
            tensors.append(value)
            numbers.append(None)
            sizes = reversed(value.shape[1:] if length else value.shape)
            varied |= {i for i, size in enumerate(sizes) if size != 1}
        elif isinstance(value, tuple):
            if not all(map(has_static_value, value)):
                return None
            numbers.append(tuple(map(float, value)))
        elif has_static_value(value):
            numbers.append(float(value))
        else:  # a number that varies from call to call
            one = torch.ones((), dtype=DTYPES[x.dtype][1], device="cpu")
            tensors.append(one * value)
            numbers.append(None)
    # Along several dimensions they might not be adjacent in memory, as a kernel wants them.
    name = _registered(formula, tuple(numbers), x.dtype) if len(varied) < 2 else ""
    if not name:
        return None
    y: Tensor = torch.ops.zeta.activation(tensors, name)
    return y


def _have_equal_shapes(a: Tensor, b: Tensor) -> bool:
    """Whether they are known to be equal."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    pairs = zip(a.shape, b.shape, strict=False)
    return a.dim() == b.dim() and all(statically_known_true(m == n) for m, n in pairs)


def _is_plain(x: Any) -> bool:
    """As `zeta.kernels.support.is_plain`, of what a compiler knows of a tensor."""
    return (
        type(x) in PLAIN_TYPES
        and x.device.type == "cpu"
        and x.layout == torch.strided
        and x.dtype in DTYPES
    )


@constant_while_compiling
def _registered(formula: Formula, numbers: tuple[Number, ...], dtype: torch.dtype) -> str:
    """The name of a call, which the operators then know; "" if plain operations must do."""
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if transformed or compiler.disabled() or not compiler.find_compiler():
        return ""
    if not is_costly(formula) or not is_sound(formula):
        return ""
    if cpu.kernel(formula, dtype, numbers, None, ()) is None:
        return ""
    call = Call(_nameable(formula), numbers)
    name = _name(call)
    _calls[name] = call
    return name


def _nameable(formula: Formula) -> Formula:
    """Of which formula defaults may be had from its name: where they have no say, its origin."""
    origin = formula._origin or formula
    return origin if origin.scalars == formula.scalars else formula


@constant_while_compiling
def name_of(formula: Formula) -> str:
    """The name of a call of the formula whose parameters are all tensors.

    Then defaults have no say, and what has other ones is found by its origin's name.
    """
    formula = _nameable(formula)
    if formula not in _names:
        call = Call(formula, (None,) * len(formula.parameters))
        _names[formula] = _name(call)
        _calls[_names[formula]] = call
    return _names[formula]


@constant_while_compiling
def _smallest() -> int:
    return SMALLEST_SHARE * torch.get_num_threads()


def is_costly(formula: Formula) -> bool:
    """Whether it has kernels, and Inductor's loops take long for it."""
    from zeta.codegen import graph, trace

    try:
        program = trace.value_program(formula, {})
        trace.gradient_program(formula, {}, (*formula.inputs, *formula.scalars))
    except NoKernelError:
        return False
    cost = sum(_COST.get(node.op, 0) for node in graph.ordered(program.stores))
    return cost >= _SMALLEST_COST


def _name(call: Call) -> str:
    """Differs where anything does; of what cannot be told, from process to process."""
    function = call.formula.function
    content = fingerprint(call.formula)
    digest = content.hex() if content else uuid.uuid4().hex
    where = f"{function.__module__}:{function.__qualname__}"
    defaults = dict(call.formula.parameters) if call.formula._origin else {}
    return f"{where} {digest} {json.dumps([call.numbers, defaults])}"


# ---- While a graph runs -------------------------------------------------------------------------


def found(name: str) -> Call:
    """The call of that name; in a process that has not traced it, by importing the formula.

    Raises:
        RuntimeError: the formula is not there any more, or is another one.
    """
    if name not in _calls:
        where, _, told = name.split(" ", 2)
        module, _, path = where.partition(":")
        numbers, defaults = json.loads(told)
        try:
            formula = operator.attrgetter(path)(importlib.import_module(module))
            formula = formula.with_defaults(**defaults) if defaults else formula
            call = Call(formula, tuple(tuple(n) if isinstance(n, list) else n for n in numbers))
            is_same = _name(call) == name
        except (ImportError, AttributeError):
            is_same = False
        if not is_same:
            raise RuntimeError(
                f"this graph was compiled with the formula {where}, which is not there any more or "
                "has been changed: compile the model again"
            )
        _calls[name] = call
    return _calls[name]


def _value(tensors: Sequence[Tensor], name: str) -> Tensor:
    call = found(name)
    kernels = prepared(call.formula, *call.arguments(tensors))
    if kernels:
        y, _ = kernels[0].forward(kernels[1])
        return y
    return _lying_as(tensors[0], call.plain(*tensors))


def _value_fake(tensors: Sequence[Tensor], _: str) -> Tensor:
    return torch.empty_like(tensors[0])


def _gradients(
    upstream: Tensor, tensors: Sequence[Tensor], name: str, wanted: Sequence[bool]
) -> list[Tensor]:
    call = found(name)
    kernels = prepared(call.formula, *call.arguments(tensors)) if is_plain(upstream) else None
    needed = for_prepared(wanted, call.numbers, len(call.formula.inputs))
    gradients = kernels and kernels[0].backward(kernels[1], (), upstream, needed)
    gradients = gradients or _plain_gradients(call, upstream, tensors, wanted)
    count = sum(wanted[: len(call.formula.inputs)])
    # A kernel's sums are one tensor, of which an operator may not return parts.
    sums = [total.clone(memory_format=torch.contiguous_format) for total in gradients[count:]]
    return [*(_lying_as(tensors[0], slope) for slope in gradients[:count]), *sums]


def _gradients_fake(
    _: Tensor, tensors: Sequence[Tensor], name: str, wanted: Sequence[bool]
) -> list[Tensor]:
    count = len(found(name).formula.inputs)
    stores = [torch.empty_like(tensors[0]) for want in wanted[:count] if want]
    learned = zip(tensors[count:], wanted[count:], strict=True)
    return [*stores, *(tensor.new_empty(tensor.shape) for tensor, want in learned if want)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors, ctx.name = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, upstream: Tensor | None) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    wanted, _ = ctx.needs_input_grad
    if upstream is None or not any(wanted):
        return [None] * len(tensors), None
    if torch.is_grad_enabled():
        gradients = _plain_gradients(found(ctx.name), upstream, tensors, wanted)
    else:
        gradients = torch.ops.zeta.activation_gradients(upstream, [*tensors], ctx.name, [*wanted])
    rest = iter(gradients)
    return [next(rest) if want else None for want in wanted], None


def _plain_gradients(
    call: Call, upstream: Tensor, tensors: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """By plain operations, which may be differentiated again."""
    pull_back = torch.func.vjp(call.plain, *tensors)[1]
    pairs = zip(pull_back(upstream), wanted, strict=True)
    return [gradient for gradient, want in pairs if want]


def _lying_as(x: Tensor, y: Tensor) -> Tensor:
    """In memory as the compiler was told that it lies."""
    strides = torch.empty_like(x, device="meta").stride()
    return y if y.stride() == strides else torch.empty_like(x).copy_(y)


impl(_VALUE, "cpu", _value)
impl(_GRADIENTS, "cpu", _gradients)
register_fake(_VALUE, _value_fake)
register_fake(_GRADIENTS, _gradients_fake)
register_autograd(_VALUE, _backward, setup_context=_setup)
