"""What is run: the settings of an evaluation, and the trial, its smallest part."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from zeta._formula import Formula
from zeta._modules import CLASSES
from zeta.activations import learnable
from zeta.evaluate.tasks import METRICS, Budget
from zeta.evaluate.tasks.condition import split_condition

Phase = Literal["tuning", "final"]
Status = Literal["ok", "diverged"]

# Part of every key: raise it with any change to training, splits or scores, so that trials of
# the old protocol are not taken for new ones.
PROTOCOL_VERSION = 4

DEFAULT_CANDIDATES = tuple(CLASSES)
# Rivals of every candidate unless others are asked for. PReLU and swish, which learn, would be fair
# ones too; each costs one more activation on every task, a seventh of a default run, and the more
# rivals there are, the more the best of them owes to luck.
BASELINES = ("relu", "gelu", "silu")
DEFAULT_REFERENCE = "silu"
# An activation's name says whether it trains its parameters, since reports are rebuilt, and merged,
# where its formula is not at hand. The catalogue's learnable family does so by its plain name.
_LEARNED = " (learned)"
# What trains its parameters has a frozen twin in every evaluation, which shows what that is worth.
_FROZEN = " (frozen)"
# The reference once more, tuned with other seeds: a control, whose true difference is 0.
_RETUNED = " (retuned)"

TUNING_SEEDS = (0, 1, 2, 3, 4, 5)
_RETUNING = 50  # added to them for the control
FIRST_FINAL_SEED = 100  # never a tuning seed
# Far beyond any use: a digit too many is found before the list of trials fills the memory.
MOST_SEEDS = 1000
# How often a trial is scored while it trains, its last epoch included.
_MOST_SCORED = 10
# Metric -> w: a difference within [-w, w] is of no practical importance. An accuracy's is that of
# Benavoli et al. (2017), "Time for a change: a tutorial for comparing multiple classifiers through
# Bayesian analysis". Of R², 2 % of the variance; of a log-likelihood, 2 % of the perplexity.
ROPES = {"accuracy": 0.01, "R²": 0.02, "log-likelihood": 0.02}


def frozen_twin(activation: str) -> str:
    """The name of a learnable activation with its parameters fixed.

    Example:
        >>> from zeta.evaluate.protocol import frozen_twin
        >>> frozen_twin("learnable_selu_variation")
        'learnable_selu_variation (frozen)'
    """
    return formula_source(activation) + _FROZEN


def learned_name(source: str) -> str:
    """The name under which an activation trains its parameters.

    Example:
        >>> from zeta.evaluate.protocol import learned_name
        >>> learned_name("exo"), learned_name("mine.py:swish"), learned_name("prelu")
        ('exo (learned)', 'mine.py:swish (learned)', 'prelu')
    """
    return source if is_trained(source) else source + _LEARNED


def is_trained(activation: str) -> bool:
    """Whether an activation of :attr:`Settings.activations` trains its parameters."""
    # Not `activations.get`: what a user registered another process may not know.
    own = vars(learnable).get(activation)
    return activation.endswith(_LEARNED) or (isinstance(own, Formula) and bool(own.learnable))


def trained_parameters(activation: str, formula: Formula) -> tuple[str, ...]:
    """The parameters that an activation trains: those that its formula marks, or else all.

    Args:
        activation: one of :attr:`Settings.activations`.
        formula: what it stands for.

    Example:
        >>> from zeta.activations import exo, smu
        >>> from zeta.evaluate.protocol import trained_parameters
        >>> trained_parameters("exo", exo), trained_parameters("exo (learned)", exo)
        ((), ('alpha',))
        >>> trained_parameters("smu", smu)
        ('mu',)
    """
    return formula.learnable or tuple(formula.parameters) if is_trained(activation) else ()


def formula_source(activation: str) -> str:
    """Where the formula of an activation of :attr:`Settings.activations` is found."""
    return as_trained(activation).removesuffix(_FROZEN).removesuffix(_LEARNED)


def as_trained(activation: str) -> str:
    """What an activation of :attr:`Settings.activations` trains as: the control as the reference.

    Example:
        >>> from zeta.evaluate.protocol import as_trained
        >>> as_trained("silu (retuned)")
        'silu'
    """
    return activation.removesuffix(_RETUNED)


def scored_epochs(epochs: int) -> tuple[int, ...]:
    """The epochs after which a trial is scored: all, or ten at even distances, with the last.

    Example:
        >>> from zeta.evaluate.protocol import scored_epochs
        >>> scored_epochs(3), scored_epochs(25)
        ((1, 2, 3), (3, 5, 8, 10, 13, 15, 18, 20, 23, 25))
    """
    number = min(epochs, _MOST_SCORED)
    return tuple(-(-epochs * part // number) for part in range(1, number + 1))


def half_decade(step: int) -> float:
    """The learning rate 10^(step/2), rounded as it is written: 0.001, 0.003, 0.01, …"""
    return float(f"{10 ** (step / 2):.0e}")


@dataclass(frozen=True)
class Settings:
    """Everything that decides an evaluation's result.

    Attributes:
        candidates, tasks: as they are named on the command line; with "(learned)" after it, a
            candidate trains its parameters, as those of the learnable family do without. With
            "(matched)" or "(4x)" after it, a task is run under that condition.
        num_seeds: final trials per activation and task; None for each task's usual number.
        reference: what candidates are compared with.
        rope: w, half the width of the region of practical equivalence [-w, w]; None for the
            metric's of ``ROPES``.
        tuning_seeds: seeds of the tuning trials.
        grid_steps: the learning rates, in half decades: -6 is 0.001, -5 is 0.003.
        max_extensions: how often a winner on the grid's edge extends it, on each side.
        epoch_divisor: divides every task's epochs.
        baselines: the rivals; the best of them stands beside each verdict.
        controlled: tasks on which the reference is tuned once more, with other seeds.
        ablated: whether candidates that train their parameters have frozen twins.
        first_seed: of the final trials; with others, they are of splits that no earlier ones saw.
    """

    candidates: tuple[str, ...]
    tasks: tuple[str, ...]
    num_seeds: int | None = None
    reference: str = DEFAULT_REFERENCE
    rope: float | None = None
    tuning_seeds: tuple[int, ...] = TUNING_SEEDS
    grid_steps: tuple[int, ...] = (-7, -6, -5, -4, -3)
    max_extensions: int = 2
    epoch_divisor: int = 1
    controlled: tuple[str, ...] = ()
    quick: bool = False
    baselines: tuple[str, ...] = BASELINES
    ablated: bool = True
    first_seed: int = FIRST_FINAL_SEED

    @property
    def activations(self) -> tuple[str, ...]:
        """Candidates, baselines, the reference, the frozen twins, the control if there is one."""
        usual = (*self.candidates, *self.baselines, self.reference)
        control = (self.control,) if self.controlled else ()
        return tuple(dict.fromkeys((*usual, *self.ablations.values(), *control)))

    @property
    def variants(self) -> dict[str, str]:
        """Each task under a condition -> the task itself, where that is run too.

        They say whether its verdicts hold, and are no votes of their own.
        """
        bases = {task: split_condition(task)[0] for task in self.tasks}
        return {task: base for task, base in bases.items() if base != task and base in bases}

    @property
    def own_tasks(self) -> tuple[str, ...]:
        """The tasks that are no variants of others."""
        variants = self.variants
        return tuple(task for task in self.tasks if task not in variants)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every task with every activation that is run on it; on variants no twin, no control."""
        variants, usual = self.variants, {*self.candidates, *self.baselines, self.reference}
        return [
            (task, name)
            for task in self.tasks
            for name in self.activations
            if name in usual or (task in self.controlled if name == self.control
                                 else task not in variants)
        ]  # fmt: skip

    @property
    def control(self) -> str:
        """The name of the reference when it is tuned once more."""
        return self.reference + _RETUNED

    def final_seeds(self, number: int) -> tuple[int, ...]:
        """So many fresh seeds, none of which tuned a learning rate."""
        return tuple(range(self.first_seed, self.first_seed + number))

    def tuning_seeds_of(self, activation: str) -> tuple[int, ...]:
        """The control's are others than everybody's."""
        shift = _RETUNING if activation == self.control else 0
        return tuple(seed + shift for seed in self.tuning_seeds)

    @property
    def ablations(self) -> dict[str, str]:
        """Each candidate that trains its parameters -> its twin that does not."""
        learned = filter(is_trained, self.candidates) if self.ablated else ()
        return {name: frozen_twin(name) for name in learned}

    def reference_of(self, candidate: str) -> str:
        """The reference; its own is the first other baseline."""
        rivals = (self.reference, *self.baselines)
        return next(name for name in rivals if name != candidate)

    def rope_of(self, metric: str) -> float:
        """Half the width of the region of practical equivalence."""
        return ROPES[metric] if self.rope is None else self.rope

    def budget(self, budget: Budget) -> Budget:
        """A task's budget under these settings."""
        epochs = max(1, budget.epochs // self.epoch_divisor)
        return Budget(epochs, budget.batch_size, budget.width)


@dataclass(frozen=True)
class TrialKey:
    """Everything a trial depends on; equal keys give equal results.

    Attributes:
        task: as it is named on the command line.
        data: the data's fingerprint.
        activation: one of :attr:`Settings.activations`.
        formula: the activation's fingerprint, see :func:`formula_fingerprint`.
        learning_rate: of Adam.
        seed: of the split, the weights and the batch order.
        phase: "tuning" or "final".
        budget: epochs, batch size, width.
        protocol: ``PROTOCOL_VERSION``.
    """

    task: str
    data: str
    activation: str
    formula: str
    learning_rate: float
    seed: int
    phase: Phase
    budget: Budget
    protocol: int = PROTOCOL_VERSION

    def hex(self) -> str:
        """The key as 32 hexadecimal digits, which name the trial's file."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        key: what was run.
        metric: the score's name; higher is better.
        status: "diverged" if a loss or an output was not finite.
        value: the score; None if diverged.
        constant: the score of a constant prediction on the same rows.
        parameters: how many numbers were trained, the activations' own included.
        curve: the mean training loss of each epoch, up to divergence.
        learned: the final parameters of each of the network's activations, first layer first;
            empty if they are not learnable.
        score_curve: the metric on the rows that score, of tuning trials validation rows and of
            final ones test rows, after each of ``scored_epochs``, up to divergence; it decides
            nothing. Empty for streams, and for trials that an older Zeta stored.
        timing: all that may differ between two runs. ``seconds``: wall time of the trial, its
            share where several were trained together; ``step_ms``: of one optimiser step.
    """

    key: TrialKey
    metric: str
    status: Status
    value: float | None
    parameters: int
    curve: tuple[float, ...] = ()
    learned: tuple[dict[str, float], ...] = ()
    timing: dict[str, float] = field(default_factory=dict, compare=False)
    constant: float = 0.0
    score_curve: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """The value; if diverged, that of a constant prediction."""
        return self.constant if self.value is None else self.value

    def to_json(self) -> dict[str, Any]:
        """The trial as it is stored and reported: the key's fields beside the result's."""
        fields = asdict(self)
        return {"key": self.key.hex(), **fields.pop("key"), **fields}

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Trial":
        """The trial that :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the fields are not a trial's.
        """
        fields = dict(fields)
        name = fields.pop("key")
        budget = Budget(**fields.pop("budget"))
        results = {n: fields.pop(n) for n in _RESULTS}
        curve, learned = tuple(fields.pop("curve")), tuple(fields.pop("learned"))
        score_curve = tuple(fields.pop("score_curve", ()))
        key = TrialKey(**fields, budget=budget)
        if key.hex() != name:
            raise ValueError("the fields do not hash to the key")
        trial = Trial(key, curve=curve, learned=learned, score_curve=score_curve, **results)
        _check(trial)
        return trial


_RESULTS = ("metric", "status", "value", "parameters", "timing", "constant")
_TIMING = ("seconds", "step_ms")


def _check(trial: Trial) -> None:
    """Refuse what no run gives: a report could not be made of it.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: a field is not as documented.
    """
    if trial.status not in get_args(Status) or trial.metric not in METRICS.values():
        raise ValueError("unknown status or metric")
    if not (_is_number(trial.value) if trial.status == "ok" else trial.value is None):
        raise ValueError("status and value contradict each other")
    if not _is_number(trial.constant):
        raise ValueError("constant is no finite number")
    epochs = trial.key.budget.epochs
    if len(trial.curve) > epochs or (trial.status == "ok" and len(trial.curve) < epochs):
        raise ValueError(f"the curve has {len(trial.curve)} of {epochs} epochs")
    parameters = [value for layer in trial.learned for value in layer.values()]
    if len(trial.score_curve) > len(scored_epochs(epochs)):
        raise ValueError("the curve of scores has more epochs than are scored")
    if not all(map(_is_number, (*trial.curve, *trial.score_curve, *parameters))):
        raise ValueError("a curve or what was learned has a value that is no finite number")
    if type(trial.parameters) is not int or trial.parameters < 0:
        raise ValueError("parameters is no count")
    if set(trial.timing) != set(_TIMING) or not all(map(_is_number, trial.timing.values())):
        raise ValueError(f"timing must be {' and '.join(_TIMING)}")


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def formula_fingerprint(activation: str, formula: Formula) -> str:
    """A hash of the maths, the default parameters, and which of those are trained.

    Args:
        activation: one of :attr:`Settings.activations`.
        formula: what it stands for.

    Example:
        >>> from zeta.activations import relu, silu, swish
        >>> from zeta.evaluate.protocol import formula_fingerprint
        >>> formula_fingerprint("f", silu) == formula_fingerprint("g", silu)
        True
        >>> formula_fingerprint("f", silu) == formula_fingerprint("f", relu)
        False
        >>> formula_fingerprint("swish", swish) == formula_fingerprint("swish (frozen)", swish)
        False
    """
    import sympy

    trained = trained_parameters(as_trained(activation), formula)
    parts = [sympy.srepr(formula.symbolic()), dict(formula.parameters), trained]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
