"""Activations that a PyTorch model calls as functions, where surgery has nothing to replace."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from zeta.integrations.names import activation_name, named
from zeta.integrations.report import FunctionCall
from zeta.integrations.surgery import call_arguments

# A call's line is the nearest one that is in neither of these folders.
_PASSED_OVER = (str(Path(torch.__file__).parent), str(Path(__file__).parent))

Selected = Callable[[nn.Module], bool]


def traced_calls(model: nn.Module, selected: Selected) -> list[FunctionCall]:
    """By symbolic tracing, without running the model.

    Raises:
        Exception: of any type, where the model cannot be traced.
    """
    tracer = _Tracer(selected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tracer.trace(model)
    nodes = (node for node in graph.nodes if node.op in ("call_function", "call_method"))
    return [_of_node(node, name) for node in nodes if (name := _function_name(node.target))]


class _Tracer(fx.Tracer):
    """Looks into all modules except activations and PyTorch's indivisible ones."""

    record_stack_traces = True

    def __init__(self, selected: Selected) -> None:
        super().__init__()
        self.selected = selected

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if _is_opaque(m, self.selected):
            return True
        # Its own rule takes all of torch.nn, and with it layers that call F.relu.
        whole = super().is_leaf_module(m, module_qualified_name)
        return whole and not any(True for _ in m.children())


def _of_node(node: fx.Node, name: str) -> FunctionCall:
    stack = node.meta.get("nn_module_stack") or {"": None}
    frames = re.findall(r'File "(.+?)", line (\d+)', node.stack_trace or "")
    outside = [f"{Path(f).name}:{line}" for f, line in frames if not f.startswith(_PASSED_OVER)]
    return FunctionCall(name, list(stack)[-1], outside[-1] if outside else "")


@contextmanager
def listening(model: nn.Module, selected: Selected) -> Iterator[list[FunctionCall]]:
    """Collects, while the model runs, every activation function that is called.

    Calls inside activation modules do not count: those are modules, which surgery can replace.
    """
    stack: list[tuple[str, bool]] = []
    with ExitStack() as undo:
        for name, module in model.named_modules():
            entry = name, _is_opaque(module, selected)
            enter = module.register_forward_pre_hook(
                lambda *_, entry=entry: stack.append(entry), prepend=True
            )
            leave = module.register_forward_hook(lambda *_: _pop(stack), always_call=True)
            undo.callback(enter.remove)
            undo.callback(leave.remove)
        listener = undo.enter_context(_Listener(stack))
        yield listener.calls


def _pop(stack: list[tuple[str, bool]]) -> None:
    stack.pop()


class _Listener(TorchFunctionMode):
    """Notes activation functions under the innermost module that runs."""

    def __init__(self, stack: list[tuple[str, bool]]) -> None:
        super().__init__()
        self.stack = stack
        self.calls: list[FunctionCall] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = _function_name(func)
        if name and not any(opaque for _, opaque in self.stack):
            where = self.stack[-1][0] if self.stack else ""
            self.calls.append(FunctionCall(name, where, _caller()))
        return func(*args, **(kwargs or {}))


def _is_opaque(module: nn.Module, selected: Selected) -> bool:
    in_torch = type(module).__module__ == "torch.nn.modules.activation"
    return in_torch or selected(module) or activation_name(module) is not None


def _function_name(target: Any) -> str | None:
    """``relu`` for ``F.relu``, ``torch.relu_`` and the method's name ``"relu"``."""
    return named(target if isinstance(target, str) else getattr(target, "__name__", ""))


def _caller() -> str:
    """The nearest line on the way to the current call that is the user's or a library's."""
    frame = sys._getframe(2)
    while frame and frame.f_code.co_filename.startswith(_PASSED_OVER):
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def run(model: nn.Module, example_inputs: Any) -> None:
    """One call in evaluation mode, without gradients; every module's mode is put back after it.

    PyTorch's transformers run the code that they train with, whose activations are called.
    """
    args, kwargs = call_arguments(example_inputs)
    flags = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in flags.items():
            module.training = training
