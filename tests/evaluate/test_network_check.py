"""Networks that cannot be trained or compared: one line each, which says what to change."""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zeta import activations
from zeta._errors import UserError
from zeta.evaluate import Budget, Task, TrialKey, formula_fingerprint, tasks
from zeta.evaluate.engines.worker import work
from zeta.evaluate.tasks import Shape
from zeta.evaluate.training import run_trials

MakeActivation = Callable[[], nn.Module]
Forward = Callable[["Own", Tensor], object]


def load() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(40, 5))
    return x, (x.sum(axis=1) > 0).astype(int)


class Own(nn.Module):
    """A network whose forward pass is given."""

    def __init__(self, make_activation: MakeActivation, forward: Forward) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 4), make_activation(), nn.Linear(4, 2))
        self.drawn = torch.randn(2)  # not registered
        self.register_buffer("count", torch.zeros(()))
        self._forward = forward

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def own(forward: Forward) -> Callable[[Shape, MakeActivation], nn.Module]:
    return lambda shape, make_activation: Own(make_activation, forward)


def keys_of(task: Task, monkeypatch: pytest.MonkeyPatch, trials: int) -> list[TrialKey]:
    monkeypatch.setitem(tasks.TASKS, task.name, task)
    formula = formula_fingerprint("exo", activations.exo)
    key = TrialKey(task.name, task.fingerprint(), "exo", formula, 0.01, 0, "final", task.budget)
    return [replace(key, seed=seed) for seed in range(trials)]


TASK = Task("mine", "", "classification", load, Budget(1, 8, 4))


@pytest.mark.parametrize("trials", [1, 3])
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda shape, make: nn.Linear(5, 2), "its network holds no activation"),
        (lambda shape, make: make, "network must give an nn.Module, got function"),
        (lambda shape, make: make(), "its network has no parameters to train"),
        (own(lambda net, x: (net.layers(x), 1)), "tensor of floating-point numbers, got tuple"),
        (own(lambda net, x: net.layers(x).argmax(-1)), "floating-point numbers, got torch.int64"),
        (own(lambda net, x: net.layers(x)[:, 0]), r"for 8 rows .* must give \(8, 2\), got \(8,\)"),
        (own(lambda net, x: net.layers(x)[:1]), r"must give \(8, 2\), got \(1, 2\)"),
    ],
)
def test_unusable_networks(
    network: Callable[[Shape, MakeActivation], nn.Module],
    message: str,
    trials: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = keys_of(replace(TASK, network=network), monkeypatch, trials)
    with pytest.raises(UserError, match=f"task 'mine': .*{message}"):
        run_trials(keys)


def test_regression_needs_a_value_for_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(TASK, kind="regression", network=own(lambda net, x: net.layers(x)))
    with pytest.raises(UserError, match=r"must give \(8, 1\), got \(8, 2\)"):
        run_trials(keys_of(task, monkeypatch, 1))


def test_likelihood_needs_log_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(TASK, kind="likelihood", network=own(lambda net, x: net.layers(x)))
    with pytest.raises(UserError, match=r"must give log-probabilities.*nn\.LogSoftmax"):
        run_trials(keys_of(task, monkeypatch, 1))


def counted(net: Own, x: Tensor) -> Tensor:
    net.count = net.count + 1
    return net.layers(x) * net.count


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda net, x: net.layers(x if x.sum() > 0 else -x), "data-dependent control flow"),
        (
            lambda net, x: net.layers(-x if net.training and x.sum() > 0 else x),
            "data-dependent control flow",
        ),
        (lambda net, x: net.layers(x) * net.drawn, "its networks give other outputs then"),
        (counted, "its buffer 'count' must be updated in place"),
    ],
)
def test_networks_that_cannot_be_stacked(
    forward: Forward, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(replace(TASK, network=own(forward)), monkeypatch, 2)
    with pytest.raises(UserError, match=rf"cannot train together \(.*{reason}.*give .* together=1"):
        run_trials(keys)
    assert [run_trials([key])[0].status for key in keys] == ["ok", "ok"], "as advised"


def test_a_network_that_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_of(replace(TASK, network=own(lambda net, x: sys.exit("bye"))), monkeypatch, 1)
    assert work(keys) == "'exo' failed on task 'mine': SystemExit: bye"
