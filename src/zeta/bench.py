"""`zeta bench`: what an activation costs, as ratios to `F.gelu`, interleaved in one run.

Each provider is timed in turn, round after round, so that a machine that changes its speed changes
it for all; a ratio is the median over rounds of the two times of one round.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from zeta._errors import UserError, missing_extra
from zeta._formula import Formula
from zeta._modules import CLASSES
from zeta.doctor import environment
from zeta.load_formula import is_file_source, load_formula

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
except ModuleNotFoundError as error:
    raise missing_extra("zeta.bench", "PyTorch", extra="torch") from error

from zeta._backends.torch_plain import evaluate_plain
from zeta.kernels import native

MODES = ("forward", "backward", "both")
SIZES = (2**10, 2**16, 2**20, 2**24)
DTYPES = ("float32", "bfloat16")
OURS, RIVAL = "zeta", "F.gelu"
DEFAULT = tuple(CLASSES)
TABLE_WIDTH = 120

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Setting:
    """One cell of the benchmark."""

    activation: str
    elements: int
    dtype: str
    mode: str


@dataclass(frozen=True)
class Row:
    """One provider in one cell.

    Attributes:
        p20, p50, p80: percentiles of the time of a call, in microseconds.
        ratio: median over rounds of the time over the rival's, `F.gelu`.
        saved: bytes per element that autograd keeps for backward.
    """

    setting: Setting
    provider: str
    p20: float
    p50: float
    p80: float
    ratio: float
    saved: float


@dataclass(frozen=True)
class Results:
    """All rows and where they were measured."""

    rows: list[Row]
    environment: dict[str, Any]

    def to_json(self) -> str:
        """The results as JSON."""
        return json.dumps(asdict(self), indent=1)


def providers(formula: Formula) -> dict[str, tuple[Function, bool]]:
    """Name -> (function of x and parameters, whether it takes the parameters)."""

    def plain(x: Tensor, *parameters: Tensor) -> Tensor:
        return evaluate_plain(formula, x, formula.bind(*parameters))

    return {
        OURS: (formula, True),
        "eager": (plain, True),
        "torch.compile": (torch.compile(plain, dynamic=False, options=_inductor_options()), True),
        RIVAL: (F.gelu, False),
        "F.silu": (F.silu, False),
        "copy": (torch.clone, False),
    }


def _inductor_options() -> dict[str, Any]:
    """PyTorch's own, but on a machine without the program that it hashes headers with."""
    return {} if shutil.which("openssl") else {"cpp_cache_precompile_headers": False}


def run(
    names: Sequence[str] = DEFAULT,
    sizes: Sequence[int] = SIZES,
    dtypes: Sequence[str] = DTYPES,
    modes: Sequence[str] = MODES,
    rounds: int = 20,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Results:
    """Time every provider in every cell.

    Args:
        names: catalogue names.
        sizes: elements of the input.
        dtypes: names of PyTorch dtypes.
        modes: of "forward" (no gradient wanted), "backward" and "both".
        rounds: how often each provider is timed in a cell.
        threads: PyTorch's threads; None leaves them as they are.
        progress: told the name of each cell before it is measured.

    Raises:
        UserError: a name that is not in the catalogue.
    """
    formulas = [_in_catalogue(name) for name in names]
    if threads:
        torch.set_num_threads(threads)
    native.build()
    rows: list[Row] = []
    for formula in formulas:
        for setting in cells(formula, sizes, dtypes, modes):
            progress(f"{formula.name} {setting.mode} {setting.elements} {setting.dtype}")
            torch._dynamo.reset()
            rows += measure(formula, setting, rounds)
    return Results(rows, environment() | {"PyTorch threads": str(torch.get_num_threads())})


def _in_catalogue(name: str) -> Formula:
    if is_file_source(name):
        raise UserError(f"zeta bench takes names of the catalogue only, got {name!r}")
    return load_formula(name)


def cells(
    formula: Formula, sizes: Sequence[int], dtypes: Sequence[str], modes: Sequence[str]
) -> Iterator[Setting]:
    """Every cell of one formula, large ones last."""
    for elements in sizes:
        for dtype in dtypes:
            for mode in modes:
                yield Setting(formula.name, elements, dtype, mode)


def measure(formula: Formula, setting: Setting, rounds: int) -> list[Row]:
    """One cell: every provider in turn, ``rounds`` times."""
    calls, saved = {}, {}
    for name, (function, takes_parameters) in providers(formula).items():
        inputs = make_inputs(formula if takes_parameters else None, setting)
        saved[name] = saved_bytes(function, inputs)
        calls[name] = make_call(function, inputs, setting.mode)
        calls[name]()  # compiles
    repeats = {name: repeats_for(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds_per_call(call, repeats[name]))
    return [
        Row(
            setting,
            name,
            p20=1e6 * percentile(of_name, 20),
            p50=1e6 * percentile(of_name, 50),
            p80=1e6 * percentile(of_name, 80),
            ratio=statistics.median(a / b for a, b in zip(of_name, times[RIVAL], strict=True)),
            saved=saved[name],
        )
        for name, of_name in times.items()
    ]


def make_inputs(formula: Formula | None, setting: Setting) -> list[Tensor]:
    """x, and the formula's parameters: learnable where the documents learn them."""
    gradient = setting.mode != "forward"
    dtype = getattr(torch, setting.dtype)
    x = torch.randn(setting.elements).to(dtype).requires_grad_(gradient)
    values = formula.parameters.values() if formula and formula.learnable else ()
    return [x, *(torch.tensor(value, requires_grad=gradient) for value in values)]


def make_call(function: Function, inputs: list[Tensor], mode: str) -> Callable[[], object]:
    """What is timed: the function, its gradient by all inputs, or both."""
    if mode == "forward":
        return lambda: function(*inputs)
    upstream = torch.randn_like(inputs[0])
    if mode == "both":
        return lambda: torch.autograd.grad(function(*inputs), inputs, upstream)
    y = function(*inputs)
    return lambda: torch.autograd.grad(y, inputs, upstream, retain_graph=True)


def saved_bytes(function: Function, inputs: list[Tensor]) -> float:
    """Bytes per element of the input that autograd keeps, each storage counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(*inputs)
    return sum(kept.values()) / inputs[0].numel()


def repeats_for(call: Callable[[], object], at_least: float = 2e-4) -> int:
    """How many calls make a time that the clock resolves well."""
    once = min(seconds_per_call(call, 1) for _ in range(3))
    return max(1, round(at_least / once))


def seconds_per_call(call: Callable[[], object], repeats: int) -> float:
    """Mean time of ``repeats`` calls."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile, interpolated."""
    return float(np.percentile(values, percent))


@dataclass(frozen=True)
class Summary:
    """Zeta's cost over F.gelu's in one mode and dtype, over activations and sizes."""

    mode: str
    dtype: str
    mean: float  # geometric
    worst: float


def summarise(results: Results, at_least: int = 2**16) -> list[Summary]:
    """The geometric mean and the worst of the ratios at sizes from ``at_least`` up."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in results.rows:
        if row.provider == OURS and row.setting.elements >= at_least:
            key = (row.setting.mode, row.setting.dtype)
            ratios.setdefault(key, []).append(row.ratio)
    return [
        Summary(*key, mean=statistics.geometric_mean(values), worst=max(values))
        for key, values in ratios.items()
    ]


def table(results: Results) -> Table:
    """Every provider's ratio to the rival, after our own median time and saved bytes."""
    names = list(dict.fromkeys(row.provider for row in results.rows))
    by_cell: dict[Setting, dict[str, Row]] = {}
    for row in results.rows:
        by_cell.setdefault(row.setting, {})[row.provider] = row
    columns = ("activation", "mode", "dtype", "size", "µs", "saved B", *names)
    title = f"{OURS}'s time, and times relative to {RIVAL}"
    grid = Table(*columns, title=title, box=SIMPLE_HEAD, pad_edge=False)
    for setting, rows in by_cell.items():
        ours = rows[OURS]
        size = f"2^{setting.elements.bit_length() - 1}"
        about = (setting.activation, setting.mode, setting.dtype, size)
        ratios = (f"{rows[name].ratio:.2f}" for name in names)
        grid.add_row(*about, f"{ours.p50:,.0f}", f"{ours.saved:.0f}", *ratios)
    return grid


def plot(results: Results, path: Path) -> None:
    """Each provider's ratio to the rival over the size, a panel per activation and mode.

    Raises:
        UserError: the suffix names no format.
        ImportError: Matplotlib is missing; the message names the extra.
    """
    from zeta.plot import check_format  # before Matplotlib, which it may find missing

    check_format(path)
    from matplotlib.figure import Figure

    dtype = results.rows[0].setting.dtype
    rows = [row for row in results.rows if row.setting.dtype == dtype]
    names = list(dict.fromkeys(row.setting.activation for row in rows))
    modes = list(dict.fromkeys(row.setting.mode for row in rows))
    figure = Figure(figsize=(3.6 * len(names), 2.8 * len(modes)), layout="constrained")
    panels = figure.subplots(len(modes), len(names), sharex=True, sharey=True, squeeze=False)
    for panel_row, mode in zip(panels, modes, strict=True):
        for axis, name in zip(panel_row, names, strict=True):
            for provider in dict.fromkeys(row.provider for row in rows):
                line = [
                    (row.setting.elements, row.ratio)
                    for row in rows
                    if (row.setting.activation, row.setting.mode, row.provider)
                    == (name, mode, provider)
                ]
                axis.loglog(*zip(*line, strict=True), "o-", ms=3, label=provider)
            axis.set_title(f"{name}: {mode}", fontsize="small")
            axis.grid(alpha=0.3)
    for axis in panels[-1]:
        axis.set_xlabel(f"elements, {dtype}")
    for panel_row in panels:
        panel_row[0].set_ylabel(f"time / {RIVAL}")
    panels[0][0].legend(fontsize="x-small")
    figure.savefig(path)
