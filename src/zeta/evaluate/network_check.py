"""`check_networks`: networks are tried on a few rows before time goes into training them.

Shape suffixes: S networks, B rows of a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zeta._errors import UserError, one_line
from zeta.evaluate.stack import Parameters, Stack
from zeta.evaluate.tasks import Task

# Of a sum of probabilities in float32 over a large vocabulary: far above its rounding.
_SUM_TOLERANCE = 1e-2
# Of the largest output: far above rounding, far below what another network would give.
_STACK_TOLERANCE = 1e-3


@torch.no_grad()
def check_networks(task: Task, networks: Sequence[nn.Module], x_B: Tensor, y_B: Tensor) -> None:
    """Refuse networks whose outputs cannot be scored, or that a stack would not stand for.

    Args:
        task: whose networks they are.
        networks: one that trains alone, or two of those that train together. They are used up.
        x_B, y_B: a few training rows.

    Raises:
        UserError: what to change.
    """
    if not any(p.requires_grad for p in networks[0].parameters()):
        raise _error(task, "its network has no parameters to train")
    stack = None if len(networks) == 1 else _stacked(task, networks)
    outputs = [network.eval()(x_B.clone()) for network in networks]
    _check_output(task, outputs[0], y_B)
    if stack:
        _check_stack(task, stack, networks, x_B, torch.stack(outputs))


def _check_output(task: Task, output: object, y_B: Tensor) -> None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise _error(task, f"its network must give a tensor of floating-point numbers, got {kind}")
    rows, shape = len(y_B), tuple(output.shape)
    if task.kind == "regression":
        if shape[:1] != (rows,) or output.numel() != y_B.numel():
            wanted = (rows, *y_B.shape[1:]) if y_B.dim() > 1 else (rows, 1)
            raise _error(task, f"for {rows} rows its network must give {wanted}, got {shape}")
        return
    classes = task.shape(task.budget.width).outputs
    if len(shape) != 2 or shape[0] != rows or shape[1] < classes:
        raise _error(task, f"for {rows} rows its network must give {(rows, classes)}, got {shape}")
    sums = output.exp().sum(-1)
    if task.kind == "likelihood" and bool(((sums - 1).abs() > _SUM_TOLERANCE).any()):
        raise _error(
            task,
            "its network must give log-probabilities, but the probabilities of a row sum to "
            f"{float(sums[0]):.3g}; end it with nn.LogSoftmax(-1)",
        )


def _stacked(task: Task, networks: Sequence[nn.Module]) -> Stack:
    try:
        return Stack(networks, [1.0] * len(networks))
    except Exception as error:
        raise _cannot_stack(task, one_line(error)) from error


def _check_stack(
    task: Task, stack: Stack, networks: Sequence[nn.Module], x_B: Tensor, outputs_SB: Tensor
) -> None:
    """The stack predicts what its networks do, and trains without leaving a buffer behind."""
    x_SB = torch.stack([x_B] * len(networks))
    before_S = {name: buffer.clone() for name, buffer in stack.buffers.items()}
    before = {name: buffer.clone() for name, buffer in networks[0].named_buffers()}
    try:
        stack.train(False)
        predicted_SB = stack(x_SB.clone())
        stack.train(True)
        stack(x_SB.clone())
    except Exception as error:
        raise _cannot_stack(task, one_line(error)) from error
    size = float(outputs_SB.nan_to_num(posinf=0, neginf=0).abs().max())
    if not predicted_SB.allclose(outputs_SB, rtol=0, atol=_STACK_TOLERANCE * size, equal_nan=True):
        raise _cannot_stack(task, "its networks give other outputs then")
    networks[0].train()(x_B.clone())
    left = _changed(before, dict(networks[0].named_buffers())) - _changed(before_S, stack.buffers)
    if left:
        raise _cannot_stack(task, f"its buffer {min(left)!r} must be updated in place for that")


def _changed(before: Parameters, after: Parameters) -> set[str]:
    return {name for name in before if not before[name].equal(after[name])}


def _cannot_stack(task: Task, reason: str) -> UserError:
    return _error(
        task,
        f"its networks cannot train together ({reason}); give the Task together=1, which trains "
        "them one by one",
    )


def _error(task: Task, problem: str) -> UserError:
    return UserError(f"task {task.name!r}: {problem}")
