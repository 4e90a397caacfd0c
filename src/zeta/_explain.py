"""What `Formula.explain` and ``zeta doctor FORMULA`` say of a formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zeta import doctor
from zeta._errors import NoKernelError
from zeta._formula import shown

if TYPE_CHECKING:
    from zeta._formula import Formula
    from zeta.codegen.trace import Program

_PLAIN = "plain operations"


def explain(formula: Formula) -> dict[str, str]:
    """Label -> finding: what runs where, and if it is no kernel, why; what is saved; the limits."""
    parameters = ", ".join(f"{name}={shown(value)}" for name, value in formula.parameters.items())
    cpu = _kernel(formula, doctor.cpu_kernels, _cpp)
    return {
        "formula": repr(formula),
        "inputs": ", ".join(formula.inputs),
        "parameters": parameters or "none",
        "limits": _limits(formula),
        "CPU": cpu,
        "GPU": _kernel(formula, doctor.gpu_kernels, _triton),
        "torch.compile": _compiled(formula),
        "saved for backward": _saved(formula, cpu.startswith("one kernel")),
    }


def _kernel(formula: Formula, machine: Callable[[], str], source: Callable[[Program], str]) -> str:
    """Whether there are kernels, of how many operations, and whether they run on this machine."""
    from zeta.codegen import trace
    from zeta.codegen.graph import ordered

    wanted = (*formula.inputs, *formula.scalars)
    programs = (
        lambda: trace.value_program(formula, {}),
        lambda: trace.gradient_program(formula, {}, wanted),
    )
    try:
        sizes = []
        for program in (make() for make in programs):
            source(program)
            nodes = ordered([*program.stores, *(s.term for s in program.sums)])
            sizes.append(sum(bool(node.args) for node in nodes))
    except NoKernelError as error:
        return f"{_PLAIN}: {error}"
    made = f"one kernel each way, of {sizes[0]} and {sizes[1]} operations an element"
    here = machine()
    return made if here == doctor.RUN else f"{made}; here {here}"


def _cpp(program: Program) -> str:
    from zeta.codegen import cpp

    return cpp.source(program, "float32", False)


def _triton(program: Program) -> str:
    from zeta.codegen import triton

    return triton.source(program)


def _compiled(formula: Formula) -> str:
    fuses = "its compiler fuses the plain operations"
    try:
        from zeta.kernels import operator
    except ImportError:
        return fuses
    if not operator.is_costly(formula):
        return fuses
    return f"CPU tensors of {operator.SMALLEST_SHARE:,} elements a thread: the kernel; else {fuses}"


def _limits(formula: Formula) -> str:
    import mpmath

    def at(name: str, end: str) -> str:
        try:
            value = formula.reference(*(end if name == other else 1 for other in formula.inputs))
        except (ArithmeticError, ValueError):
            return "none"
        return "none" if mpmath.isnan(value) else str(mpmath.nstr(value, 6))

    ends = {
        name: f"{at(name, '-inf')} at -inf, {at(name, 'inf')} at inf" for name in formula.inputs
    }
    if len(ends) == 1:
        return ends.popitem()[1]
    return "; ".join(f"by {name} {found}" for name, found in ends.items()) + ", any other being 1"


def _saved(formula: Formula, has_kernel: bool) -> str:
    """Memory that a call with gradients keeps, by the kernel and by plain operations."""
    try:
        import torch

        from zeta._backends.torch_plain import ARRAYS
    except ImportError:
        return "the inputs, 4 bytes an element in float32"
    size = 1 << 10
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs: list[Any] = [torch.linspace(-3, 3, size, requires_grad=True) for _ in formula.inputs]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _ = ARRAYS.evaluate(formula, inputs, formula.parameters)
    except Exception as error:  # the formula is anyone's
        return f"nothing: on tensors it raises {type(error).__name__}: {error}"
    plain = f"{sum(kept.values()) / size:.0f} bytes an element in float32 by {_PLAIN}"
    if not has_kernel:
        return plain
    return f"the inputs alone, {4 * len(inputs)} bytes an element in float32 ({plain})"
