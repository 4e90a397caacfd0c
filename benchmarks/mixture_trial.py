"""Does a mixture of softmaxes help where one softmax is too narrow? A small, paired trial.

    python benchmarks/mixture_trial.py --out DIR [--part teacher] [--part language] [--quick]

**teacher**: a network of known form, p(v | x) = Σ_k π_k(x) softmax(W h_k(x))_v with V 2000 classes,
d 16, four components, is learnt from its own probabilities by students that differ in their head
alone; exact KL(teacher ‖ student) on contexts not trained on.

**language**: a word-level model with a head of 16 features learns the State of the Union addresses
at a constant rate until its validation loss is flat. From this one checkpoint every contender goes
on, its rate falling to nothing: at as many steps, and at as much time as one softmax, that is with
fewer steps by the ratio of the CPU times of a step, measured once and kept in costs.json.

Each contender has the learning rate of the grid that did best in validation in a third of the
steps, on a teacher of its own, or on the first seed's checkpoint with batches of its own.
Three seeds are paired: teacher or checkpoint, batches and dropout are the same for all contenders.
The test years are read after a run's last step.

A run is a checkpoint in DIR, then a file of JSON. Stopped in whatever way, the same command goes
on, and ends with the same numbers, CPU times apart, on the same machine.

Shape suffixes: N tokens, B texts, L words of each, K mixtures, D features, V classes.
"""

from __future__ import annotations

import argparse
import copy
import io
import itertools
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich.progress import track
from scipy.stats import bootstrap
from torch import Tensor, nn

from language_model import digest, load_text, write_atomically
from zeta.activations import sigsoftmax
from zeta.doctor import cpu_model
from zeta.nn import MixtureOfSoftmaxes, SoftmaxHead

SEEDS, TUNING_SEED = (0, 1, 2), 100


class Contender(NamedTuple):
    """A head: a mixture of K or, K = 0, one softmax, of `wide` · D + `more` features."""

    name: str
    K: int = 0
    wide: int = 1
    more: int = 0
    sig: bool = False
    scaled: bool = False  # rates as `from_head` scaled the weights, so that a step is one softmax's


ONE = Contender("one softmax")
WIDER = (Contender("one softmax, D + 1", more=1), Contender("one softmax, 4·D", wide=4))
SIG = Contender("sigsoftmax", sig=True)
TEACHER = (ONE, *(Contender(f"mixture of {K}", K) for K in (1, 2, 4, 8)), *WIDER, SIG)
MIXED = (*(Contender(f"mixture of {K}", K) for K in (1, 4)),)
LANGUAGE = (ONE, *MIXED, Contender("mixture of 4, rates scaled", 4, scaled=True), *WIDER, SIG)


@dataclass(frozen=True)
class Sizes:
    """What a result depends on, beside contender and seed."""

    classes: int
    features: int
    hidden: int
    batch: int
    steps: int
    every: int  # steps between validations
    rates: tuple[float, ...]
    embedding: int = 32
    length: int = 32
    base_rate: float = 4e-3
    base_steps: int = 10_000  # at most
    flat: float = 0.01  # less than this gained by three validations ends the first training
    addresses: int = 1  # 5: every fifth is read


FULL = {
    "teacher": Sizes(2000, 16, 128, 64, 2000, 400, (1e-2, 3e-2, 1e-1)),
    "language": Sizes(4000, 16, 128, 16, 1200, 200, (1e-3, 4e-3)),
}
_SHORT = {"batch": 4, "steps": 6, "every": 3, "hidden": 8}
_FEW = {"embedding": 4, "addresses": 5, "base_steps": 9}
QUICK = {
    "teacher": replace(FULL["teacher"], classes=40, features=3, **_SHORT),
    "language": replace(FULL["language"], classes=60, features=4, **_SHORT, **_FEW),
}


# ---- A run --------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A model on its way; batches and dropout follow from the seed and the step alone."""

    file: Path  # without suffix
    seed: int
    groups: list[dict[str, Any]]  # the optimiser's, with the "peak" of their learning rate
    loss: Callable[[], Tensor]  # of a batch that it draws
    validate: Callable[[], float]
    steps: int
    every: int


Curve = list[tuple[int, float, float]]  # step, CPU seconds of the steps so far, validation loss


def train(run: Run, model: nn.Module, schedule: Callable[[float], float], flat: float = 0) -> Curve:
    """Take a model from its checkpoint, or from nothing, to its last step."""
    optimizer, checkpoint = torch.optim.Adam(run.groups), run.file.with_suffix(".pt")
    step, seconds = 0, 0.0
    if checkpoint.exists():
        *states, step, seconds, curve = torch.load(checkpoint, weights_only=True)
        for part, state in zip((model, optimizer), states, strict=True):
            part.load_state_dict(state)
    else:
        curve = [(0, 0.0, run.validate())]
    while step < run.steps and not (step % run.every == 0 and is_flat(curve, flat)):
        started = time.process_time()
        torch.manual_seed(1_000_003 * run.seed + step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule((step + 1) / (run.steps + 1))
        optimizer.zero_grad()
        run.loss().backward()
        optimizer.step()
        step, seconds = step + 1, seconds + time.process_time() - started
        if step % run.every == 0 or step == run.steps:
            curve.append((step, seconds, run.validate()))
            kept = [model.state_dict(), optimizer.state_dict(), step, seconds, curve]
            torch.save(kept, buffer := io.BytesIO())
            write_atomically(checkpoint, buffer.getvalue())
    return curve


def is_flat(curve: Curve, gain: float) -> bool:
    """Whether the last three validations were better than the best before by less than that."""
    losses = [loss for _, _, loss in curve]
    return gain > 0 and len(losses) > 4 and min(losses[:-3]) - min(losses[-3:]) < gain


def falling(done: float) -> float:
    """A twentieth to warm up, then linearly down."""
    return min(20 * done, 1 - done)


def finish(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A run's result: kept for good once it is there."""
    result = file.with_suffix(".json")
    if not result.exists():
        write_atomically(result, json.dumps(make()).encode())
        file.with_suffix(".pt").unlink()
    return dict(json.loads(result.read_bytes()))


def groups(model: nn.Module, rate: float, scaled: nn.Module | None = None) -> list[dict[str, Any]]:
    """All parameters at one rate; those of this head that `from_head` scaled at theirs."""
    factors: dict[Tensor, float] = {}
    if isinstance(scaled, MixtureOfSoftmaxes) and scaled.latent is not None:
        epsilon = scaled.latent.weight.norm().item() / scaled.latent.out_features**0.5
        factors = {scaled.weight: 1 / epsilon, scaled.latent.weight: epsilon}
    return [{"params": [p], "peak": rate * factors.get(p, 1.0)} for p in model.parameters()]


@torch.no_grad()
def usage(head: nn.Module, x_ND: Tensor, target_N: Tensor) -> dict[str, Any]:
    """How much each component of a mixture is used, and how far they differ."""
    if not isinstance(head, MixtureOfSoftmaxes) or head.latent is None:
        return {}
    p_NV, prior_NK = head(x_ND, need_weights=True)
    hidden_NKD = head.latent(x_ND).tanh().unflatten(-1, (head.num_mixtures, -1))
    log_p_NKV = F.linear(hidden_NKD, head.weight, head.bias).log_softmax(-1)
    joint_NK = prior_NK * log_p_NKV[torch.arange(len(x_ND)), :, target_N].exp()
    inner_N = (prior_NK * -(log_p_NKV.exp() * log_p_NKV).sum(-1)).sum(-1)
    return {
        "prior": prior_NK.mean(0).tolist(),
        "responsibility": (joint_NK / joint_NK.sum(-1, keepdim=True)).mean(0).tolist(),
        "entropy": torch.special.entr(prior_NK).sum(-1).mean().item(),  # of π(x), log K at most
        "divergence": (torch.special.entr(p_NV).sum(-1) - inner_N).mean().item(),  # Jensen-Shannon
    }


def best_rate(tried: Sequence[dict[str, Any]]) -> float:
    """Of the run whose last validation loss is lowest; one that diverged has none."""
    last = {r["rate"]: r["curve"][-1][2] for r in tried}
    return min(last, key=lambda rate: last[rate] if math.isfinite(last[rate]) else math.inf)


# ---- (a) A teacher of known form ----------------------------------------------------------------


def teacher_of(sizes: Sizes, seed: int) -> MixtureOfSoftmaxes:
    """Four components, about as peaked as words are; each is used."""
    torch.manual_seed(1_000 + seed)
    teacher = MixtureOfSoftmaxes(4, sizes.features, sizes.classes, decoder="shared", bias=False)
    assert teacher.latent is not None
    for layer, scale in ((teacher.prior, 2.0), (teacher.latent, 1.5)):
        nn.init.normal_(layer.weight, std=scale / sizes.features**0.5)
    nn.init.normal_(teacher.weight, std=1.0)
    return teacher.requires_grad_(False)


@torch.no_grad()
def ranks(sizes: Sizes, seed: int) -> dict[str, float]:
    """Of the teacher's log p, in float64: its numerical rank, and what rank D + 2 leaves of it."""
    teacher = teacher_of(sizes, seed).double()
    N = min(4000, 2 * sizes.classes)
    singular = torch.linalg.svdvals(teacher.log_prob(torch.randn(N, sizes.features).double()))
    variance = singular**2 / (singular**2).sum()
    noise = singular[0] * N * torch.finfo(torch.float64).eps
    left = variance[sizes.features + 2 :].sum().sqrt() / variance[1:].sum().sqrt()
    return {"rank": int((singular > noise).sum()), "left": left.item()}


class Body(nn.Module):
    """x itself, what a hidden layer adds to it, and room for D features."""

    def __init__(self, sizes: Sizes, D: int) -> None:
        super().__init__()
        self.rise, self.fall = nn.Linear(sizes.features, sizes.hidden), nn.Linear(sizes.hidden, D)

    def forward(self, x_ND: Tensor) -> Tensor:
        """What the head is given."""
        added_ND = self.fall(F.gelu(self.rise(x_ND)))
        return added_ND + F.pad(x_ND, (0, added_ND.shape[1] - x_ND.shape[1]))


def learn(sizes: Sizes, c: Contender, seed: int, rate: float, steps: int, out: Path) -> Any:
    """A student's training; what comes before the head is the same for all, but for D."""
    teacher = teacher_of(sizes, seed)
    D, V = c.wide * sizes.features + c.more, sizes.classes
    held_out_ND = torch.randn(2048, sizes.features)
    held_out_NV = teacher.log_prob(held_out_ND)
    head = (
        MixtureOfSoftmaxes(c.K, D, V, decoder="shared")
        if c.K
        else SoftmaxHead(D, V, logits=sigsoftmax if c.sig else None)
    )
    body = Body(sizes, D)
    model = nn.ModuleList([body, head])

    def loss() -> Tensor:
        x_ND = torch.randn(sizes.batch, sizes.features)
        p_NV = teacher.log_prob(x_ND).exp()
        return -(p_NV * head.log_prob(body(x_ND))).sum(-1).mean()

    @torch.no_grad()
    def divergence() -> float:
        log_q_NV = head.log_prob(body(held_out_ND))
        return (held_out_NV.exp() * (held_out_NV - log_q_NV)).sum(-1).mean().item()

    file = out / f"teacher-{digest(sizes.__dict__, c, seed, rate, steps)}"
    run = Run(file, seed, groups(model, rate), loss, divergence, steps, sizes.every)

    def make() -> dict[str, Any]:
        curve = train(run, model, falling)
        target_N = held_out_NV[:512].exp().multinomial(1).squeeze(-1)
        used = usage(head, body(held_out_ND[:512]), target_N)
        return {"rate": rate, "parameters": count(model), "curve": curve, "usage": used}

    return finish(file, make)


def count(model: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in model.parameters())


# ---- (b) A trained language model ---------------------------------------------------------------


class LanguageModel(nn.Module):
    """Embedding, LSTM, a projection to the head's D features, a head of its own weight."""

    def __init__(self, sizes: Sizes, D: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.classes, sizes.embedding)
        self.dropout = nn.Dropout(0.1)
        self.lstm = nn.LSTM(sizes.embedding, sizes.hidden, batch_first=True)
        self.projection = nn.Linear(sizes.hidden, D)
        self.head: SoftmaxHead | MixtureOfSoftmaxes = SoftmaxHead(D, sizes.classes)

    def forward(self, words_BL: Tensor) -> Tensor:
        """What the head is given, (B, L, D); each text starts from an empty state."""
        lstm_BLH, _ = self.lstm(self.dropout(self.embedding(words_BL)))
        return self.projection(self.dropout(lstm_BLH))

    def mean_loss(self, text_N: Tensor, L: int) -> float:
        """-log p(next word) over a text, without dropout."""
        texts_BL = text_N[: (len(text_N) - 1) // L * L + 1].unfold(0, L + 1, L)
        self.eval()
        with torch.no_grad():
            losses = [
                self.head.loss(self(b[:, :-1]), b[:, 1:], reduction="sum").item()
                for b in texts_BL.split(64)
            ]
        self.train()
        return sum(losses) / (len(texts_BL) * L)


def branch(sizes: Sizes, base: LanguageModel, c: Contender, seed: int) -> LanguageModel:
    """The trained model with this contender's head, starting where it was, but for sigsoftmax."""
    torch.manual_seed(2_000 + seed)
    D = c.wide * sizes.features + c.more
    if sizes.features == D:
        model = copy.deepcopy(base)
        if c.K:
            model.head = MixtureOfSoftmaxes.from_head(base.head, c.K)
        model.head.logits = sigsoftmax if c.sig else None
        return model
    model = LanguageModel(sizes, D)  # new features are as nn.Linear starts them, and not yet read
    with torch.no_grad():
        model.head.weight.zero_()
        for new, old in zip(model.parameters(), base.parameters(), strict=True):
            new[tuple(map(slice, old.shape))] = old
    return model


class Language:
    """The text and its sizes."""

    def __init__(self, sizes: Sizes, out: Path) -> None:
        self.sizes, self.out = sizes, out
        self.text = load_text(sizes.classes, sizes.addresses)

    def run(
        self, c: Contender | None, model: LanguageModel, seed: int, rate: float, steps: int
    ) -> Run:
        """A training of this model; None: the first."""
        sizes, train_N = self.sizes, self.text["train"]

        def loss() -> Tensor:
            start_B1 = torch.randint(len(train_N) - sizes.length, (sizes.batch, 1))
            words_BL = train_N[start_B1 + torch.arange(sizes.length + 1)]
            return model.head.loss(model(words_BL[:, :-1]), words_BL[:, 1:])

        file = self.out / f"language-{digest(sizes.__dict__, c or 'base', seed, rate, steps)}"
        return Run(
            file, seed, groups(model, rate, model.head if c and c.scaled else None), loss,
            lambda: model.mean_loss(self.text["validation"], sizes.length), steps, sizes.every,
        )  # fmt: skip

    def base(self, seed: int) -> tuple[LanguageModel, Curve]:
        """One softmax, until its validation loss is flat; its last checkpoint is kept."""
        torch.manual_seed(seed)
        model = LanguageModel(self.sizes, self.sizes.features)
        counts_V = self.text["train"].bincount(minlength=self.sizes.classes).clamp(min=1)
        model.head.bias.data.copy_(counts_V.log())  # the first guess is the words' frequencies
        run = self.run(None, model, seed, self.sizes.base_rate, self.sizes.base_steps)
        return model, train(run, model, lambda done: min(1.0, 200 * done), self.sizes.flat)

    def go_on(self, base: LanguageModel, c: Contender, seed: int, rate: float, steps: int) -> Any:
        """A contender's training from the checkpoint; batches are new to all."""
        model = branch(self.sizes, base, c, seed)
        run = self.run(c, model, 10_000 + seed, rate, steps)

        def make() -> dict[str, Any]:
            curve = train(run, model, falling)
            L = self.sizes.length
            words_BL = self.text["validation"][: 32 * L + 1].unfold(0, L + 1, L)
            x_ND = model.eval()(words_BL[:, :-1]).flatten(0, 1)
            return {
                "rate": rate, "parameters": count(model), "curve": curve,
                "test": model.mean_loss(self.text["test"], L),
                "usage": usage(model.head, x_ND, words_BL[:, 1:].flatten()),
            }  # fmt: skip

        return finish(run.file, make)

    def costs(self, base: LanguageModel) -> dict[str, float]:
        """CPU seconds of a step, over one softmax's; measured in turn, once."""
        file, found = self.out / "costs.json", {}
        if not file.exists():
            models = {c.name: branch(self.sizes, base, c, 0) for c in LANGUAGE}
            losses = {name: self.run(None, m, 0, 0, 0).loss for name, m in models.items()}
            found = {name: [] for name in models}
            for _ in range(12):
                for name, loss in losses.items():
                    started = time.process_time()
                    loss().backward()
                    found[name].append(time.process_time() - started)
            of_one = found[ONE.name]
            ratios = {
                name: statistics.median(a / b for a, b in zip(times[2:], of_one[2:], strict=True))
                for name, times in found.items()
            }
            write_atomically(file, json.dumps(ratios).encode())
        return dict(json.loads(file.read_bytes()))


# ---- Both parts ---------------------------------------------------------------------------------

Results = dict[str, list[dict[str, Any]]]  # by contender, one for each seed


def teacher_part(sizes: Sizes, out: Path) -> tuple[str, dict[str, Results]]:
    """Every student on every seed."""
    found: Results = {}
    for c in track(TEACHER, "teacher"):
        tried = [learn(sizes, c, TUNING_SEED, r, sizes.steps // 3, out) for r in sizes.rates]
        found[c.name] = [learn(sizes, c, s, best_rate(tried), sizes.steps, out) for s in SEEDS]
    bound = [ranks(sizes, seed) for seed in SEEDS]
    note = (
        f"Numerical rank of the teacher's log p: {', '.join(str(r['rank']) for r in bound)}. What "
        f"rank D + 2 leaves of its norm, the first direction apart: "
        f"{', '.join(format(r['left'], '.0%') for r in bound)}. Loss is KL in nats."
    )
    return note, {"teacher": found}


def language_part(sizes: Sizes, out: Path) -> tuple[str, dict[str, Results]]:
    """Every contender from every checkpoint, twice."""
    language = Language(sizes, out)
    bases = {seed: language.base(seed) for seed in track(SEEDS, "language, first training")}
    first, costs, rates = bases[SEEDS[0]][0], language.costs(bases[SEEDS[0]][0]), {}
    for c in track(LANGUAGE, "language, learning rates"):
        short = sizes.steps // 3
        rates[c] = best_rate([language.go_on(first, c, TUNING_SEED, r, short) for r in sizes.rates])
    steps: Results = {c.name: [] for c in LANGUAGE}
    seconds = copy.deepcopy(steps)
    for seed, c in track(list(itertools.product(SEEDS, LANGUAGE)), "language"):
        base, most = bases[seed][0], sizes.steps
        less = round(most / max(1.0, costs[c.name]))
        steps[c.name].append(language.go_on(base, c, seed, rates[c], most))
        seconds[c.name].append(language.go_on(base, c, seed, rates[c], less))
    trained = ", ".join(f"{c[-1][0]} steps to {c[-1][2]:.3f}" for _, c in bases.values())
    over = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
    note = (
        f"First training, to the validation loss: {trained}. CPU time of a step over one "
        f"softmax's: {over}. Loss is of the test years, nats a word; at the start, of validation."
    )
    return note, {"language, equal steps": steps, "language, equal time": seconds}


# ---- What came out ------------------------------------------------------------------------------


def score(result: dict[str, Any]) -> float:
    """The test loss, or where contexts never run out that of the last validation."""
    return float(result.get("test", result["curve"][-1][2]))


def differences(runs: Results, name: str, reference: str) -> list[float]:
    """Of a contender's scores from another's, seed by seed."""
    return [score(a) - score(b) for a, b in zip(runs[name], runs[reference], strict=True)]


def minus(runs: Results, name: str, reference: str) -> str:
    """The mean of paired differences with its 95 % bootstrap interval."""
    if name == reference:
        return ""
    found = differences(runs, name, reference)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BCa answers NaN where it is undefined
            drawn = bootstrap((found,), np.mean, method=method, random_state=0)
        low, high = drawn.confidence_interval
        if math.isfinite(low + high):
            break
    return f"{statistics.mean(found):+.3f} [{low:+.3f}, {high:+.3f}]"


def table(head: str, rows: Sequence[Sequence[object]]) -> list[str]:
    """In Markdown, with an empty line after it."""
    ruler = "|---" * (head.count("|") - 1) + "|"
    return [head, ruler, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def score_table(runs: Results) -> list[str]:
    """A line for each contender."""
    rows = []
    for name, results in runs.items():
        first, mean = results[0], statistics.mean(map(score, results))
        start = statistics.mean(r["curve"][0][2] for r in results)
        to_others = (minus(runs, name, other) for other in (ONE.name, "mixture of 1"))
        sizes = f"{first['parameters']:,}", first["rate"], first["curve"][-1][0]
        rows.append((name, *sizes, f"{start:.3f}", f"{mean:.3f}", *to_others))
    columns = "head | parameters | rate | steps | at start | loss | minus one softmax | minus K = 1"
    return table(f"| {columns} |", rows)


def usage_table(runs: Results) -> list[str]:
    """A line for each mixture of several and seed; components by falling share."""
    rows = []
    for name, results in runs.items():
        for seed, used in enumerate(r["usage"] for r in results):
            if len(used.get("prior", ())) > 1:
                both = (sorted(used[kind], reverse=True) for kind in ("prior", "responsibility"))
                shares = (" ".join(f"{100 * x:.0f}" for x in share) for share in both)
                effective = f"{math.exp(used['entropy']):.2f}"
                rows.append((name, seed, *shares, effective, f"{used['divergence']:.3f}"))
    columns = "head | seed | mean π, % | mean responsibility, % | exp H(π) | divergence, nats"
    return table(f"| {columns} |", rows)


def draw(kinds: dict[str, Results], file: Path) -> None:
    """Each contender's differences from one softmax, a dot for each seed."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axis, (kind, runs) in zip(
        figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True
    ):
        for row, name in enumerate(runs):
            axis.plot(differences(runs, name, ONE.name), [row] * len(SEEDS), "o", ms=4, color="C0")
        axis.axvline(0, color="0.8", zorder=0)
        axis.set_yticks(range(len(runs)), list(runs))
        axis.invert_yaxis()
        axis.set(title=kind, xlabel="loss minus one softmax's, nats")
    figure.savefig(file, metadata={"Date": None})


PARTS = {"teacher": teacher_part, "language": language_part}


def main() -> None:
    """Run what is asked for and not there yet; write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--part", choices=PARTS, action="append", help="one alone; else both")
    parser.add_argument("--quick", action="store_true", help="seconds, to no conclusion")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # CPU time is what a step costs then
    kinds: dict[str, Results] = {}
    lines = [
        "# Does a mixture help?",
        "",
        f"`python benchmarks/mixture_trial.py{' --quick' * options.quick} --out DIR`, "
        f"{cpu_model()}, one thread, torch {torch.__version__}. Seeds "
        f"{', '.join(map(str, SEEDS))}; differences are paired, with 95 % bootstrap intervals.",
    ]
    for part in options.part or PARTS:
        note, found = PARTS[part]((QUICK if options.quick else FULL)[part], options.out)
        lines += ["", f"## {part.capitalize()}", "", note, ""]
        for kind, runs in found.items():
            seconds = sum(r["curve"][-1][1] for results in runs.values() for r in results)
            lines += [f"{kind.capitalize()}: {seconds / 60:.0f} CPU minutes.", ""]
            lines += score_table(runs)
        lines += usage_table(next(iter(found.values())))[:-1]
        kinds |= found
    draw(kinds, options.out / "mixture_trial.svg")
    write_atomically(options.out / "results.json", json.dumps(kinds).encode())
    write_atomically(options.out / "results.md", "\n".join([*lines, ""]).encode())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
