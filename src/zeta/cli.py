"""The `zeta` command. Heavy imports happen inside the commands that need them."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import click

from zeta._errors import UserError


class _Path(click.Path):
    """A file or a folder; not the empty name, which would be the current folder."""

    def convert(self, value: Any, *context: Any) -> Path:
        path = os.fsdecode(super().convert(value, *context))
        if not path:
            self.fail("It is empty; give the name of a file or folder.", *context)
        return Path(path)


class _NewFile(_Path):
    """A file to be written, where that is possible: found out before what it is to hold is."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True)

    def convert(self, value: Any, *context: Any) -> Path:
        path = super().convert(value, *context)
        if not path.parent.is_dir():
            self.fail(f"Folder {str(path.parent)!r} does not exist.", *context)
        if not path.exists():
            self._try_to_write(path.parent, *context)
        return path

    def _try_to_write(self, folder: Path, *context: Any) -> None:
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self.fail(f"Cannot write to folder {str(folder)!r}: {error.strerror}.", *context)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeta-nn", message="zeta %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Activation functions, written once as formulas, and what they are worth."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command("list")
@click.option(
    "--family",
    type=click.Choice(["elementwise", "learnable", "gated", "logits"]),
    help="One of four; all if left out.",
)
def list_command(family: str | None) -> None:
    """List the catalogue by family: limits, range, shape, moments, cost, year, who uses it."""
    from rich.console import Console

    from zeta import _listing
    from zeta.activations import FAMILIES, load_entry_points

    load_entry_points()
    console = Console()
    # Narrower, Rich would cut the numbers off.
    console = Console(width=max(console.width, _listing.WIDTH))
    for one in [family] if family else FAMILIES:
        console.print(_listing.table(one), "")
    console.print(_listing.NOTE, markup=False)


@cli.command("plot")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option(
    "-o", "--output", required=True, type=_Path(), metavar="FILE", help="The picture: png, svg, …"
)
def plot_command(names: tuple[str, ...], output: Path) -> None:
    """Plot activations and gates with their derivatives, each parameter varied.

    NAME is a name of the catalogue or path/to/file.py:name, which runs that file's code; FILE's
    suffix decides the format.
    """
    from zeta.load_formula import load_formula

    formulas = [load_formula(name, inputs=None) for name in names]
    from zeta.plot import plot

    plot(formulas, output)
    click.echo(f"wrote {output}")


def _where_trials_train(command: Callable[..., None]) -> Callable[..., None]:
    """The options of commands that train."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="This machine's cores, or a Ray cluster.",
        ),
        click.option(
            "--address", metavar="HOST:PORT", help="Of the Ray cluster; default: the one here."
        ),
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            metavar="NAME",
            help="Where trials train: cpu, cuda, cuda:1, …",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@cli.command("evaluate")
@click.argument("activations", nargs=-1, metavar="[ACTIVATION]…")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="A task; may be repeated.")
@click.option("--learn", is_flag=True, help="Have every activation train its parameters.")
@click.option(
    "--baselines",
    metavar="NAME,…",
    default="relu,gelu,silu",
    show_default=True,
    help="The rivals; the best of them on validation data stands beside each verdict.",
)
@click.option(
    "--seeds", type=int, metavar="N", help="Final trials each; default 20, or 10 on slow tasks."
)
@click.option(
    "--reference",
    default="silu",
    show_default=True,
    metavar="NAME",
    help="The activation that verdicts compare with.",
)
@click.option(
    "--rope",
    type=float,
    metavar="W",
    help="Differences within ±W count as none; default 0.01 of accuracy, 0.02 of R² and nats.",
)
@click.option(
    "--init",
    default="default",
    show_default=True,
    metavar="NAME,…",
    help="default,matched: also run each task with variance-preserving initialisation.",
)
@click.option(
    "--budget",
    default="1",
    show_default=True,
    metavar="N,…",
    help="1,4: also run each task with four times the epochs and validation stopping.",
)
@click.option("--quick", is_flag=True, help="A look of some seconds, too small to conclude from.")
@click.option(
    "--out",
    type=_Path(),
    default=Path("zeta-report"),
    show_default=True,
    metavar="DIR",
    help="Folder of the report and the finished trials.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what it would take, and stop.")
@_where_trials_train
@click.option(
    "--tensorboard",
    type=_Path(),
    metavar="DIR",
    help="Folder for TensorBoard's event files.",
)
def evaluate_command(
    activations: tuple[str, ...],
    tasks: tuple[str, ...],
    learn: bool,
    baselines: str,
    seeds: int | None,
    reference: str,
    rope: float | None,
    init: str,
    budget: str,
    quick: bool,
    out: Path,
    plan_only: bool,
    engine: Literal["local", "ray"],
    address: str | None,
    device: str,
    tensorboard: Path | None,
) -> None:
    """Compare activations with the usual ones on real data, and write a report.

    ACTIVATION is a name of the catalogue or path/to/file.py:name, which runs that file's code; by
    default exo, learnable_selu_variation and laplace. Parameters that a formula marks as learnable
    are trained, and compared with a twin that keeps them; --learn trains those of any formula. The
    same command again resumes after an interruption.
    """
    # SIGTERM ends a run as Ctrl-C does: without a handler it would skip all tidying up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from zeta.evaluate import evaluate, plan
    from zeta.evaluate.terminal import TerminalProgress, print_plan, print_results

    asked: dict[str, Any] = {
        "learn": learn,
        "baselines": _listed(baselines),
        "num_seeds": seeds,
        "reference": reference,
        "rope": rope,
        "init": _listed(init),
        "budget": _listed(budget),
        "quick": quick,
        "out": out,
        "device": device,
    }
    if plan_only:
        with TerminalProgress() as progress:
            found = plan(activations, tasks, **asked, progress=progress)
        print_plan(found)
        return
    with TerminalProgress() as progress:
        results = evaluate(
            activations,
            tasks,
            **asked,
            engine=engine,
            address=address,
            tensorboard=tensorboard,
            progress=progress,
        )
    print_results(results)


@cli.command("leaderboard")
@click.argument("activations", nargs=-1, metavar="[ACTIVATION]…")
@click.option(
    "--out",
    type=_Path(),
    default=Path("zeta-leaderboard"),
    show_default=True,
    metavar="DIR",
    help="Folder of the page and the finished trials.",
)
@_where_trials_train
def leaderboard_command(
    activations: tuple[str, ...],
    out: Path,
    engine: Literal["local", "ray"],
    address: str | None,
    device: str,
) -> None:
    """Rank the whole catalogue on real data, and write a page.

    All meet on a few cheap tasks, the best on more, and the best of those are confirmed on fresh
    splits: hours on two cores, in as many pieces as it takes, since the same command again resumes
    and trains new entries alone. ACTIVATION is a further entry, path/to/file.py:name, which runs
    that file's code.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from zeta.evaluate.terminal import TerminalProgress
    from zeta.leaderboard import make_leaderboard
    from zeta.leaderboard.page import PAGE, headline

    with TerminalProgress() as progress:
        board = make_leaderboard(
            activations,
            out=out,
            engine=engine,
            address=address,
            device=device,
            progress=progress,
        )
    click.echo(f"{headline(board)}.\nOpen it in a browser: {out / PAGE}")


def _listed(names: str) -> list[str]:
    """The parts of "a,b"."""
    return [name.strip() for name in names.split(",") if name.strip()]


@cli.command("report")
@click.argument("folders", nargs=-1, required=True, metavar="DIR…", type=_Path())
@click.option(
    "--out",
    type=_Path(),
    metavar="DIR",
    help="Folder to write to; may be left out with a single DIR, which is then written to.",
)
@click.option(
    "--figures",
    type=_Path(),
    metavar="DIR",
    help="Folder for each figure as SVG and PDF, and each table as LaTeX and CSV.",
)
def report_command(folders: tuple[Path, ...], out: Path | None, figures: Path | None) -> None:
    """Build the report of finished trials again; merge several runs into one.

    Each DIR is the folder of a `zeta evaluate`. Of several runs, candidates and tasks are united
    and seeds intersected; a task that some activation was not run on is left out, and named. Their
    protocol, settings, data and formulas must agree.
    """
    if out is None and len(folders) > 1:
        raise click.UsageError("several runs need --out DIR, the folder for their common report")
    from zeta.evaluate.report import write_report
    from zeta.evaluate.runs import rebuild

    results = rebuild(folders, out or folders[0])
    write_report(results)
    click.echo(f"Report: {results.report}")
    if figures is not None:
        from zeta.evaluate.figures import write_figures

        drawn, tables = write_figures(results, figures)
        click.echo(f"wrote {drawn} figures and {tables} tables to {figures}")


@cli.command("compare")
@click.argument("a")
@click.argument("b")
@click.option(
    "--out",
    type=_Path(),
    default=Path("zeta-report"),
    show_default=True,
    metavar="DIR",
    help="Folder of the finished trials.",
)
def compare_command(a: str, b: str, out: Path) -> None:
    """Compare two activations of finished trials, seed by seed, on each task and over all.

    A and B may also be two tasks of the same data and metric, compared for each activation.
    """
    from zeta.evaluate.runs import rebuild
    from zeta.evaluate.terminal import print_versus
    from zeta.evaluate.versus import versus

    results = rebuild([out], out)
    print_versus(versus(results, a, b), results.names)


@cli.command("export")
@click.argument("folder", type=_Path(), metavar="DIR")
@click.argument("output", type=_Path(), metavar="FILE")
def export_command(folder: Path, output: Path) -> None:
    """Write the finished trials of the report in DIR as a table, a row for each.

    FILE ends in .parquet or .csv. An evaluation that still runs can be exported too.
    """
    from zeta.evaluate.store import export, read_trials

    if not folder.is_dir():
        raise UserError(f"there are no finished trials to export: no folder {str(folder)!r}")
    trials = read_trials(folder)
    export(trials, output)
    click.echo(f"wrote {output}: {len(trials)} trials")


@cli.command("bench")
@click.argument("activations", nargs=-1, metavar="[ACTIVATION]…")
@click.option("--quick", is_flag=True, help="float32 alone, to 2^20 elements, fewer rounds.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="PyTorch's threads.")
@click.option(
    "--json", "json_path", type=_NewFile(), metavar="FILE", help="Write every time and ratio here."
)
@click.option(
    "--plot", "plot_path", type=_NewFile(), metavar="FILE", help="Draw the ratios: png, svg, …"
)
def bench_command(
    activations: tuple[str, ...],
    quick: bool,
    threads: int | None,
    json_path: Path | None,
    plot_path: Path | None,
) -> None:
    """Time activations against F.gelu, F.silu, a copy, the eager formula and torch.compile.

    ACTIVATION is a name of the catalogue; by default exo, learnable_selu_variation and laplace.
    Everything is timed in turn in one run; a ratio is the median over rounds.
    """
    from rich.console import Console
    from rich.progress import Progress

    from zeta import bench

    if plot_path:
        from zeta.plot import check_format

        check_format(plot_path)  # now, not after minutes of measuring
    names = activations or bench.DEFAULT
    sizes = bench.SIZES[:-1] if quick else bench.SIZES
    dtypes = bench.DTYPES[:1] if quick else bench.DTYPES
    console = Console()
    with Progress(console=console, transient=True) as progress:
        total = len(names) * len(sizes) * len(dtypes) * len(bench.MODES)
        task = progress.add_task("", total=total)
        results = bench.run(
            names,
            sizes,
            dtypes,
            rounds=7 if quick else 20,
            threads=threads,
            progress=lambda cell: progress.update(task, advance=1, description=cell),
        )
    # Narrower, Rich would cut the numbers off.
    Console(width=max(console.width, bench.TABLE_WIDTH)).print(bench.table(results))
    for s in bench.summarise(results):
        console.print(
            f"{s.mode}, {s.dtype}, from 2^16 elements up: {s.mean:.2f}× {bench.RIVAL} in the "
            f"geometric mean, {s.worst:.2f}× at worst"
        )
    if json_path:
        json_path.write_text(results.to_json(), encoding="utf-8")
    if plot_path:
        bench.plot(results, plot_path)


@cli.command("doctor")
@click.argument("formula", required=False)
def doctor_command(formula: str | None) -> None:
    """Show versions, devices, the compiler, fused kernels, and which extras are installed.

    With FORMULA, a name of the catalogue or path/to/file.py:name: what runs where, and why not.
    """
    from zeta.doctor import diagnose

    if formula:
        from zeta.load_formula import load_formula

        load_formula(formula, inputs=None).explain()
        return
    for section, findings in diagnose().items():
        click.secho(section, bold=True)
        width = max(map(len, findings), default=0)
        for label, finding in findings.items():
            click.echo(f"  {label:<{width}}  {finding}")


def main() -> None:
    """The entry point: every failure is one line on standard error and a non-zero status."""
    if isinstance(sys.stdout, TextIOWrapper):
        # An output in Latin-1 or ASCII has no ± and no ×: better a question mark than no result.
        sys.stdout.reconfigure(errors="replace")
    try:
        status = cli.main(prog_name="zeta", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "zeta"
        status = _fail(f"{error.format_message()} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        status = _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        # Click turns Ctrl-C into an Abort; its cause may say what is kept.
        status = _fail(str(error.__cause__ or error) or "interrupted", 130)
    except (UserError, ImportError, OSError) as error:
        status = _fail(str(error), 1, error)
    except SystemExit as error:
        # Click and Rich exit with 1 where nobody reads on, as of `zeta list | head -1`.
        status = 1 if error.code == 1 else _unexpected(error)
    except BaseException as error:  # a user's file may derive its own
        status = _unexpected(error)
    sys.exit(status)


def _unexpected(error: BaseException) -> int:
    text = f"unexpected {type(error).__name__}: {error} (ZETA_DEBUG=1 shows the traceback)"
    return _fail(text, 1, error)


def _fail(text: str, status: int, error: BaseException | None = None) -> int:
    if error and os.environ.get("ZETA_DEBUG"):
        raise error
    line = " ".join(text.split())
    # What a user's file says may hold a terminal's commands.
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    click.echo(f"zeta: {shown}", err=True)
    return status


if __name__ == "__main__":
    main()
