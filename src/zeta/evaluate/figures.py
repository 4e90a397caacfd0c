"""The report's figures and tables as files, for a paper: SVG and PDF, LaTeX and CSV."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeta._errors import UserError
from zeta.evaluate import charts
from zeta.evaluate.results import Results
from zeta.evaluate.standings import standings

if TYPE_CHECKING:
    from pandas import DataFrame

# What names an activation or a task, and is shown by its short name.
_NAMES = ("task", "activation", "candidate", "reference", "source")
# Letters of a file's name, of the title's end, which says what is shown.
_LONGEST = 80


def write_figures(results: Results, folder: Path) -> tuple[int, int]:
    """Write every figure of the report as SVG and PDF, and every table as LaTeX and CSV.

    Numbers are written in full to CSV, and to four digits to LaTeX, whose tables need the package
    booktabs.

    Args:
        folder: made if it is not there; files of the same names are written over.

    Returns:
        How many figures and how many tables.

    Raises:
        UserError: the folder cannot be written to.
    """
    figures, frames = _figures(results), tables(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in figures.items():
            chart.save(folder / name)
        for name, frame in frames.items():
            frame.to_csv(folder / f"{name}.csv", index=False)
            (folder / f"{name}.tex").write_text(_latex(frame), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return len(figures), len(frames)


def tables(results: Results) -> "dict[str, DataFrame]":
    """The report's tables by name, those without rows left out.

    An estimate has three columns: the value, and its interval's ends.
    """
    across = results.across
    found = {
        "ranking": _rows(standings(results), results.names),
        "scores": _rows(results.scores, results.names),
        "comparisons": _rows(results.comparisons, results.names),
        "conditions": _rows(results.dependences, results.names),
        "together": _rows(across.overall if across else (), results.names),
        "aggregates": _rows(across.aggregates if across else (), results.names),
        "tasks": _rows(results.tasks, results.names),
    }
    from pandas import DataFrame  # late: it takes a second

    return {name: DataFrame(rows) for name, rows in found.items() if rows}


def _rows(records: Iterable[Any], names: Mapping[str, str]) -> list[dict[str, Any]]:
    return [dict(_cells(asdict(record), names)) for record in records]


def _cells(fields: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """A record's numbers and names; what each seed or threshold gave is no column."""
    for name, value in fields.items():
        if name in _NAMES:
            yield name, names.get(value, value)
        elif isinstance(value, dict):
            yield from (
                (f"{name}_{part}".removeprefix("verdicts_"), v) for part, v in value.items()
            )
        elif not isinstance(value, tuple):
            yield name, value


def _latex(frame: "DataFrame") -> str:
    text: str = frame.rename(columns=lambda name: name.replace("_", " ")).to_latex(
        index=False, escape=True, float_format="%.4g", na_rep="–"
    )
    return text


def _figures(results: Results) -> dict[str, charts.Chart]:
    """The report's figures by the names of their files."""
    found = [
        *charts.difference_charts(results),
        *charts.across_charts(results),
        *charts.sensitivity_charts(results),
        *charts.training_charts(results),
    ]
    shapes = charts.shape_charts(results)
    titles = [chart.title for chart in found] + [f"shape of {chart.title}" for chart in shapes]
    return dict(zip(_slugs(titles), [*found, *shapes], strict=True))


def _slugs(titles: Iterable[str]) -> list[str]:
    """Titles as names of files, still distinct."""
    slugs: list[str] = []
    for title in titles:
        slug = stem = re.sub(r"[^\w()]+", "-", title).strip("-")[-_LONGEST:]
        while slug in slugs:
            slug = f"{stem}-{len(slugs)}"
        slugs.append(slug)
    return slugs
