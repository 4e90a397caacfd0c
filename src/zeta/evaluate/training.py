"""`run_trial`: train one network and score it. A pure function of the trial's key."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zeta.nn
from zeta._errors import UserError
from zeta._formula import Formula
from zeta.evaluate import tasks
from zeta.evaluate.protocol import (
    LEARNABLE,
    Status,
    Trial,
    TrialKey,
    formula_fingerprint,
    formula_source,
)
from zeta.evaluate.tasks import Split, Task
from zeta.load_formula import load_formula

_MODULES: dict[str, type[nn.Module]] = {
    "exo": zeta.nn.Exo,
    "learnable_selu_variation": zeta.nn.LearnableSELUVariation,
    "laplace": zeta.nn.LaplaceActivation,
}


def run_trials(keys: Sequence[TrialKey]) -> list[Trial]:
    """Train and score the networks that ``keys`` describe, see :func:`run_trial`."""
    return [run_trial(key) for key in keys]


def run_trial(key: TrialKey) -> Trial:
    """Train and score the network that ``key`` describes.

    Equal keys give equal trials, up to ``timing``, on one kind of machine. It computes with one
    thread, since sums depend on their number in the last bit; every core has a worker. Trials
    that differ in the activation alone start from the same weights and see the same batches in
    the same order.

    Raises:
        UserError: the formula or the data are no longer those of the key.

    Example:
        >>> from zeta import activations
        >>> from zeta.evaluate import Budget, TrialKey, formula_fingerprint, run_trial, tasks
        >>> formula, data = formula_fingerprint("relu", activations.relu), tasks.get("digits")
        >>> budget = Budget(epochs=2, batch_size=64, width=32)
        >>> trial = run_trial(
        ...     TrialKey("digits", data.fingerprint(), "relu", formula, 0.01, 7, "final", budget)
        ... )
        >>> trial.status, trial.value > 0.8
        ('ok', True)
    """
    task, formula = tasks.get(key.task), load_formula(formula_source(key.activation))
    if formula_fingerprint(key.activation, formula) != key.formula:
        raise UserError(f"activation {key.activation!r} changed while it was being evaluated")
    if task.fingerprint() != key.data:
        raise UserError(f"the data of task {key.task!r} changed while it was being evaluated")
    started = time.perf_counter()
    split = task.split(key.phase, key.seed)
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(key.seed)
        network = build_network(task, split, key, formula)
        curve = _train(network, task, split, key)
        value = _score(network, task, split) if len(curve) == key.budget.epochs else None
    status: Status = "diverged" if value is None else "ok"
    seconds = time.perf_counter() - started
    steps = max(1, len(curve)) * -(-len(split.train_x) // key.budget.batch_size)
    timing = {"seconds": round(seconds, 4), "step_ms": round(1000 * seconds / steps, 4)}
    parameters = sum(p.numel() for p in network.parameters())
    learned = _learned(network)
    return Trial(key, task.metric, status, value, parameters, tuple(curve), learned, timing)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_network(task: Task, split: Split, key: TrialKey, formula: Formula) -> nn.Sequential:
    """Two hidden layers with PyTorch's default initialisation, the same for every activation."""
    inputs, width = split.train_x.shape[1], key.budget.width
    outputs = int(split.train_y.max()) + 1 if task.kind == "classification" else 1

    def activation() -> nn.Module:
        if module := _MODULES.get(key.activation):
            return module()
        return formula.module(learnable=key.activation in LEARNABLE)

    return nn.Sequential(
        nn.Linear(inputs, width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, outputs),
    )


def _train(network: nn.Module, task: Task, split: Split, key: TrialKey) -> list[float]:
    """The mean loss of each epoch; ends early where one is not finite."""
    optimizer = torch.optim.Adam(network.parameters(), lr=key.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(key.seed)
    x, y = torch.from_numpy(split.train_x), torch.from_numpy(split.train_y)
    curve: list[float] = []
    for _ in range(key.budget.epochs):
        total = torch.zeros(())
        for rows in _batches(len(x), key.budget.batch_size, generator):
            optimizer.zero_grad()
            loss = _loss(task, network(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        mean = float(total) / len(x)
        if not math.isfinite(mean):
            break
        curve.append(mean)
    return curve


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    yield from torch.randperm(rows, generator=generator).split(size)


def _loss(task: Task, output: Tensor, target: Tensor) -> Tensor:
    if task.kind == "classification":
        return F.cross_entropy(output, target)
    return F.mse_loss(output.squeeze(1), target)


@torch.no_grad()
def _score(network: nn.Module, task: Task, split: Split) -> float | None:
    """The metric on the scoring rows; None if an output is not finite."""
    output = network(torch.from_numpy(split.score_x))
    if not bool(output.isfinite().all()):
        return None
    predictions = output if task.kind == "classification" else output.squeeze(1)
    value = task.score(predictions.numpy(), split.score_y)
    return value if math.isfinite(value) else None


def _learned(network: nn.Module) -> tuple[dict[str, float], ...]:
    """The parameters of each learnable activation, rounded to float32's digits."""
    layers = [m for m in network.modules() if isinstance(m, zeta.nn.FormulaModule) and m.learnable]
    values = ({name: p.item() for name, p in m.named_parameters()} for m in layers)
    return tuple(layer for layer in values if all(map(math.isfinite, layer.values())))
