"""The `zeta` command. Heavy imports happen inside the commands that need them."""

import os
import sys
from pathlib import Path

import click

from zeta._errors import UserError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zeta-nn", message="zeta %(version)s")
def cli() -> None:
    """Activation functions, written once as formulas, and what they are worth."""


@cli.command("list")
def list_command() -> None:
    """List the activations of the catalogue, with their parameters."""
    from zeta.activations import CATALOGUE

    signatures = {name: repr(formula) for name, formula in CATALOGUE.items()}
    width = min(40, max(map(len, signatures.values())))
    for name, signature in signatures.items():
        summary = (CATALOGUE[name].__doc__ or "").strip().partition("\n")[0]
        click.echo(f"{signature:<{width}}  {summary}")


@cli.command("plot")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE")
def plot_command(names: tuple[str, ...], output: Path) -> None:
    """Plot activations with their derivatives, each parameter varied.

    NAME is a name of the catalogue or path/to/file.py:name; FILE's suffix decides the format.
    """
    from zeta.load_formula import load_formula

    formulas = [load_formula(name) for name in names]
    from zeta.plot import plot

    plot(formulas, output)
    click.echo(f"wrote {output}")


@cli.command("evaluate")
@click.argument("activations", nargs=-1, metavar="[ACTIVATION]…")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="A task; may be repeated.")
@click.option("--seeds", type=int, metavar="N", help="Final trials each, 2 or more; default 10.")
@click.option("--quick", is_flag=True, help="A look of some seconds, too small to conclude from.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("zeta-report"),
    show_default=True,
    metavar="DIR",
    help="Folder of the report and the finished trials.",
)
def evaluate_command(
    activations: tuple[str, ...], tasks: tuple[str, ...], seeds: int | None, quick: bool, out: Path
) -> None:
    """Compare activations with relu, gelu and silu on real data, and write a report.

    ACTIVATION is a name of the catalogue or path/to/file.py:name; by default exo,
    learnable_selu_variation and laplace. The same command again resumes after an interruption.
    """
    from zeta.evaluate import evaluate
    from zeta.evaluate.terminal import TerminalProgress, print_results

    with TerminalProgress() as progress:
        results = evaluate(
            activations, tasks, num_seeds=seeds, quick=quick, out=out, progress=progress
        )
    print_results(results)


@cli.command("doctor")
def doctor_command() -> None:
    """Show versions, devices, the compiler, and which extras are installed."""
    from zeta.doctor import diagnose

    for section, findings in diagnose().items():
        click.secho(section, bold=True)
        width = max(map(len, findings), default=0)
        for label, finding in findings.items():
            click.echo(f"  {label:<{width}}  {finding}")


def main() -> None:
    """The entry point: every failure is one line on standard error and a non-zero status."""
    try:
        status = cli.main(prog_name="zeta", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # Click turns Ctrl-C into an Abort; its cause may say what is kept.
        status = _fail(str(error.__cause__ or error) or "interrupted", 130)
    except (UserError, ImportError, OSError) as error:
        status = _fail(str(error), 1, error)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error} (ZETA_DEBUG=1 shows the traceback)"
        status = _fail(text, 1, error)
    sys.exit(status)


def _fail(text: str, status: int, error: Exception | None = None) -> int:
    if error and os.environ.get("ZETA_DEBUG"):
        raise error
    click.echo(f"zeta: {' '.join(text.split())}", err=True)
    return status


if __name__ == "__main__":
    main()
