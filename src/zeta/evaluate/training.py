"""`run_trials`: train networks and score them. A pure function of the trials' keys.

Shape suffixes: S trials, B rows of a batch, N rows in all.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zeta.nn
from zeta._errors import UserError
from zeta._formula import Formula
from zeta._modules import CLASSES
from zeta.evaluate import tasks
from zeta.evaluate.candidates import is_gate, load_candidate
from zeta.evaluate.device import CPU, check_device
from zeta.evaluate.initialisation import match_variance, matched_gain
from zeta.evaluate.network_check import check_networks
from zeta.evaluate.protocol import (
    Trial,
    TrialKey,
    as_trained,
    formula_fingerprint,
    scored_epochs,
    trained_parameters,
)
from zeta.evaluate.stack import Networks, Parameters, networks_of
from zeta.evaluate.tasks import Split, Task
from zeta.evaluate.tasks.task import Array, MakeActivation

# Rows that are scored at once: the outputs of a hidden layer would else be the most of the memory.
_SCORED_ROWS = 4096
# Enough for layers that look at a whole batch.
_CHECKED_ROWS = 8


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
    return run_trials([key])[0]


def run_trials(keys: Sequence[TrialKey], device: str = CPU) -> list[Trial]:
    """Train the networks that ``keys`` describe together, and score them.

    Each trial's numbers are those of :func:`run_trial` up to rounding: other shapes of the same
    sums. They are the same bits whenever the same keys are trained together.

    Args:
        keys: trials that differ in seed and learning rate alone; equal rates side by side train
            fastest.
        device: where they train. It is no part of a key: weights and batches are drawn on the CPU,
            so that another device gives the same trials up to rounding (dropout draws other
            numbers).

    Raises:
        UserError: the formula or the data are no longer those of the keys, or the device cannot be
            used.
        ValueError: the keys differ in more.
    """
    first = keys[0]
    if any(replace(k, seed=first.seed, learning_rate=first.learning_rate) != first for k in keys):
        raise ValueError("trials that train together may differ in seed and learning rate alone")
    check_device(device)
    task, formula = tasks.get(first.task), load_candidate(first.activation)
    if formula_fingerprint(first.activation, formula) != first.formula:
        raise UserError(f"activation {first.activation!r} changed while it was being evaluated")
    if task.fingerprint() != first.data:
        raise UserError(
            f"the data of task {first.task!r} changed while it was being evaluated; its load must "
            "give the same each time: seed its random numbers, and leave its files as they are"
        )
    with torch.random.fork_rng(devices=[]), _one_thread():
        return _Training(task, formula, keys, device).run()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_network(task: Task, formula: Formula, key: TrialKey) -> nn.Module:
    """The network of one trial, its weights drawn by the seed.

    Raises:
        UserError: it is no network, or does not hold the activation.
    """
    make_activation, made = _activation_of(key.activation, formula), list[nn.Module]()

    def make_and_note() -> nn.Module:
        made.append(make_activation())
        return made[-1]

    network = task.build(task.shape(key.budget.width), make_and_note, key.seed)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"task {task.name!r}: network must give an nn.Module, got {type(network).__name__}"
        )
    if not any(module is one for module in network.modules() for one in made):
        raise UserError(
            f"task {task.name!r}: its network holds no activation, so there is nothing to compare; "
            "call make_activation() and keep the module it gives as part of the network"
        )
    if task.matched:
        match_variance(network, made, matched_gain(key.activation, formula), key.seed)
    return network


def _activation_of(activation: str, formula: Formula) -> MakeActivation:
    name = as_trained(activation)
    if name in CLASSES:
        return getattr(zeta.nn, CLASSES[name])
    learned = trained_parameters(name, formula)
    module = zeta.nn.GatedUnit if is_gate(formula) else zeta.nn.FormulaModule
    return lambda: module(formula, learnable=learned)


class _Training:
    """Trials that train together, from their keys to their results."""

    def __init__(self, task: Task, formula: Formula, keys: Sequence[TrialKey], device: str) -> None:
        self._started = time.perf_counter()
        self._task, self._keys, self._device = task, keys, device
        self._scores = list[list[float | None]]()  # by epoch
        self._scoring = 0.0  # seconds
        self._data = _Rows(task, keys, device)
        tried = [make_network(task, formula, key).to(device) for key in keys[:2]]
        check_networks(task, tried, *self._data.first(_CHECKED_ROWS))
        self._network = make_network(task, formula, keys[0])
        by_seed = {key.seed: make_network(task, formula, key).to(device) for key in keys}
        self._networks = networks_of(
            [by_seed[key.seed] for key in keys], [key.learning_rate for key in keys]
        )

    def run(self) -> list[Trial]:
        """Train, score, and tell."""
        started = time.perf_counter()
        curves, outputs = self._train()
        seconds = time.perf_counter() - started - self._scoring
        values = self._score_stream(outputs) if self._task.stream else self._final_scores()
        score_curves = [_up_to_divergence(curve) for curve in zip(*self._scores, strict=True)]
        parameters = {name: p.detach() for name, p in self._networks.parameters.items()}
        learned = _learned(self._network, parameters)
        count = sum(p[0].numel() for p in parameters.values())
        trials = len(self._keys)
        steps = trials * self._keys[0].budget.epochs * self._data.steps
        timing = {
            "seconds": round((time.perf_counter() - self._started) / trials, 4),
            "step_ms": round(1000 * seconds / steps, 4),
        }
        constants = [self._task.constant_score(split) for split in self._data.splits]
        score_curves = score_curves or [[]] * trials
        both = zip(curves, score_curves, strict=True)
        results = zip(self._keys, both, values, constants, learned, strict=True)
        return [self._trial(*result, count, timing) for result in results]

    def _trial(
        self,
        key: TrialKey,
        curves: tuple[Sequence[float], Sequence[float]],
        value: float | None,
        constant: float,
        learned: tuple[dict[str, float], ...],
        parameters: int,
        timing: dict[str, float],
    ) -> Trial:
        curve, score_curve = curves
        diverged = len(curve) < key.budget.epochs or value is None
        sound = sum(epoch <= len(curve) for epoch in scored_epochs(key.budget.epochs))
        return Trial(
            key=key,
            metric=self._task.metric,
            status="diverged" if diverged else "ok",
            value=None if diverged else value,
            parameters=parameters,
            curve=tuple(curve),
            learned=learned,
            timing=timing,
            constant=constant,
            score_curve=tuple(score_curve[:sound]),
        )

    def _train(self) -> tuple[list[list[float]], list[Tensor]]:
        """Each trial's mean loss by epoch, up to divergence; a stream's outputs."""
        losses, outputs, shares = [], [], self._shares()
        best = _BestEpoch(self._networks) if self._task.stopping else None
        epochs = self._keys[0].budget.epochs
        scored = () if self._task.stream else scored_epochs(epochs)
        for epoch in range(1, epochs + 1):
            total_S, rows = torch.zeros(len(self._keys), device=self._device), 0
            for x_SB, y_SB in self._data.epoch():
                output_SB = self._networks(x_SB)
                loss_S = _mean_losses(self._task, output_SB, y_SB)
                loss_S.sum().backward()  # no trial's weights depend on another's loss
                self._networks.step(next(shares))
                total_S += loss_S.detach() * y_SB.shape[1]
                rows += y_SB.shape[1]
                if self._task.stream:
                    outputs.append(output_SB.detach())
            losses.append(total_S / rows)
            if not losses[-1].isfinite().any():
                break
            if best:
                best.note(self._score(self._data.stop))
            if epoch in scored:
                self._scores.append(self._score(self._data.score))
        if best:
            best.restore()
        curves_S = torch.stack(losses, 1).tolist()
        return [_up_to_divergence(curve) for curve in curves_S], outputs

    def _shares(self) -> Iterator[float]:
        """Of the learning rate, step by step: all of it, or falling by a cosine to 0.

        Source: Loshchilov and Hutter (2017), "SGDR".
        """
        if not self._task.stopping:
            return itertools.repeat(1.0)
        steps = self._keys[0].budget.epochs * self._data.steps
        return ((1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps))

    def _final_scores(self) -> list[float | None]:
        """Those of the last epoch; with validation stopping those of the best."""
        if self._task.stopping:
            return self._score(self._data.score)
        return self._scores[-1] if self._scores else [None] * len(self._keys)

    def _score(self, rows: "_Scored") -> list[float | None]:
        """Each network's score on rows of its own; training can go on as if nothing was."""
        started = time.perf_counter()
        self._networks.train(False)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = [self._networks(x_SB.to(self._device)) for x_SB in rows.batches()]
        self._networks.train(True)
        values = [
            self._value(torch.cat(parts), y)
            for parts, y in zip(zip(*outputs, strict=True), rows.y_S, strict=True)
        ]
        self._scoring += time.perf_counter() - started
        return values

    def _score_stream(self, outputs: Sequence[Tensor]) -> list[float | None]:
        """Of predictions that were made before their row was trained on."""
        seen = sum(output_SB.shape[1] for output_SB in outputs)
        return [
            self._value(torch.cat([output_SB[s] for output_SB in outputs]), y[:seen])
            for s, y in enumerate(self._data.score.y_S)
        ]

    def _value(self, predictions: Tensor, targets: Tensor) -> float | None:
        """The metric; None if an output is not finite."""
        if not bool(predictions.isfinite().all()):
            return None
        value = self._task.score(predictions.cpu().numpy(), targets.numpy())
        return value if math.isfinite(value) else None


class _BestEpoch:
    """The weights and buffers of each network after the epoch that scored best.

    Prechelt (1998), "Early stopping – but when?", without an early end: all epochs are run, as the
    learning rate is planned for them.
    """

    def __init__(self, networks: Networks) -> None:
        self._state = {**networks.parameters, **networks.buffers}
        self._kept = {name: now.detach().clone() for name, now in self._state.items()}
        self._best = [-math.inf] * len(next(iter(self._kept.values())))

    def note(self, scores: Sequence[float | None]) -> None:
        """Keep what is better than before; of equal epochs the first is kept."""
        found = [-math.inf if score is None else score for score in scores]
        better = [new > old for new, old in zip(found, self._best, strict=True)]
        self._best = [max(pair) for pair in zip(found, self._best, strict=True)]
        for name, now in self._state.items():
            self._kept[name] = _where(better, now.detach(), self._kept[name])

    @torch.no_grad()
    def restore(self) -> None:
        """Give the networks what was kept; one that never had a score stays, as diverged."""
        scored = [best > -math.inf for best in self._best]
        for name, now in self._state.items():
            now.copy_(_where(scored, self._kept[name], now))


def _where(chosen: Sequence[bool], ours_S: Tensor, others_S: Tensor) -> Tensor:
    """Of each network the one or the other."""
    chosen_S = torch.tensor(chosen, device=ours_S.device)
    return torch.where(chosen_S.view(-1, *[1] * (ours_S.dim() - 1)), ours_S, others_S)


class _Scored:
    """Rows that score trials which train together, each trial's own.

    Attributes:
        y_S: each trial's targets.
    """

    def __init__(self, x_S: Sequence[Array], y_S: Sequence[Array]) -> None:
        self._x_S = [torch.from_numpy(x) for x in x_S]
        self.y_S = [torch.from_numpy(y) for y in y_S]

    def batches(self) -> Iterator[Tensor]:
        """(S, B, …), so many rows at once as memory has room for."""
        for parts in zip(*(x.split(_SCORED_ROWS) for x in self._x_S), strict=True):
            yield torch.stack(parts)


class _Rows:
    """The rows of trials that train together, each with its own split and order of batches.

    Attributes:
        splits: each trial's.
        score, stop: the rows that score, and those that say which epoch was best.
        steps: batches of an epoch.
    """

    def __init__(self, task: Task, keys: Sequence[TrialKey], device: str) -> None:
        seeds = [key.seed for key in keys]  # those of equal seeds have equal rows, held once
        splits = {seed: task.split(keys[0].phase, seed) for seed in dict.fromkeys(seeds)}
        self._device = device
        self._x = torch.cat([torch.from_numpy(s.train_x) for s in splits.values()]).to(device)
        self._y = torch.cat([torch.from_numpy(s.train_y) for s in splits.values()]).to(device)
        which = torch.tensor([list(splits).index(seed) for seed in seeds])
        self._rows = len(self._x) // len(splits)
        self._first_S = which * self._rows
        self._seeds = seeds
        self._orders = {s: torch.Generator().manual_seed(s) for s in dict.fromkeys(seeds)}
        self.splits: list[Split] = [splits[seed] for seed in seeds]
        self.score = _Scored([s.score_x for s in self.splits], [s.score_y for s in self.splits])
        self.stop = _Scored([s.stop_x for s in self.splits], [s.stop_y for s in self.splits])
        self._budget, self._stream = keys[0].budget, task.stream
        self._parts = iter(torch.arange(self._rows).tensor_split(self._budget.epochs))
        longest = -(-self._rows // self._budget.epochs) if task.stream else self._rows
        self.steps = -(-longest // self._budget.batch_size)

    def first(self, rows: int) -> tuple[Tensor, Tensor]:
        """So many training rows of the first trial, or all there are."""
        rows = min(rows, self._rows)
        return self._x[:rows], self._y[:rows]

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (S, B, …): all rows in an order drawn by each seed, or a stream's next part."""
        if self._stream:
            order_SN = next(self._parts).expand(len(self._seeds), -1)
        else:
            drawn = {s: torch.randperm(self._rows, generator=g) for s, g in self._orders.items()}
            order_SN = torch.stack([drawn[seed] for seed in self._seeds])
        order_SN = (order_SN + self._first_S[:, None]).to(self._device)
        for rows_SB in order_SN.split(self._budget.batch_size, dim=1):
            yield self._x[rows_SB], self._y[rows_SB]


def _mean_losses(task: Task, output_SB: Tensor, target_SB: Tensor) -> Tensor:
    """Each trial's mean loss over its batch, (S,)."""
    output, target = output_SB.flatten(0, 1), target_SB.flatten(0, 1)
    if task.kind == "classification":
        losses = F.cross_entropy(output, target, reduction="none")
    elif task.kind == "likelihood":
        losses = F.nll_loss(output, target, reduction="none")
    else:
        losses = F.mse_loss(output.view_as(target), target, reduction="none")
    return losses.view(len(target_SB), -1).mean(1)


def _up_to_divergence(curve: Sequence[float | None]) -> list[float]:
    finite = [value is not None and math.isfinite(value) for value in curve]
    end = finite.index(False) if False in finite else len(curve)
    return [value for value in curve[:end] if value is not None]


def _learned(network: nn.Module, parameters: Parameters) -> list[tuple[dict[str, float], ...]]:
    """Of every trial, the parameters of each learnable activation, first layer first."""
    modules = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, zeta.nn.FormulaModule) and not module._counts
    }
    layers = [dict(_scalars(module, path, parameters)) for path, module in modules.items()]
    found = [
        [{name: float(of_all[s]) for name, of_all in layer.items()} for layer in layers if layer]
        for s in range(len(next(iter(parameters.values()))))
    ]
    return [tuple(v for v in of_one if all(map(math.isfinite, v.values()))) for of_one in found]


def _scalars(
    module: zeta.nn.FormulaModule, path: str, parameters: Parameters
) -> Iterator[tuple[str, Tensor]]:
    """The name of each number that an activation has learned, and it in every trial."""
    for name in module.initial_values:
        learned = parameters.get(f"{path}.{name}")
        if learned is not None:
            columns = learned.reshape(len(learned), -1).unbind(1)
            yield from zip(module.formula.scalars_of(name), columns, strict=True)
