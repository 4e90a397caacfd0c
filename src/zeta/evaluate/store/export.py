"""Trials as a table: a row for each, in Parquet or CSV."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zeta._errors import UserError, missing_extra
from zeta.evaluate.protocol import Trial


def export(trials: Sequence[Trial], path: Path) -> None:
    """Write the trials as a table; the suffix, ``.parquet`` or ``.csv``, decides the format.

    The columns are the fields of ``results.json``'s trials, those of ``budget`` and ``timing``
    (seconds; milliseconds per step) among them. ``learned`` is JSON, and in CSV so are ``curve``
    and ``score_curve``.

    Raises:
        UserError: another suffix, no trials, or a file that cannot be written.
        ImportError: Parquet without PyArrow.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from zeta.evaluate import Budget, Trial, TrialKey
        >>> from zeta.evaluate.store import export
        >>> key = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
        >>> path = Path(tempfile.mkdtemp()) / "trials.csv"
        >>> export([Trial(key, "accuracy", "ok", 0.5, 7)], path)
        >>> path.read_text().splitlines()[0][:30]
        'key,task,data,activation,formu'
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise UserError(f"cannot tell a format from {path.name!r}: end it in .parquet or .csv")
    if not trials:
        raise UserError("there are no finished trials to export")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        writers[path.suffix]([_row(trial) for trial in trials], temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _row(trial: Trial) -> dict[str, Any]:
    fields = trial.to_json()
    budget, timing = fields.pop("budget"), fields.pop("timing")
    return fields | {"learned": json.dumps(fields["learned"])} | budget | timing


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            row | {name: json.dumps(row[name]) for name in ("curve", "score_curve")} for row in rows
        )


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_extra("Parquet", "PyArrow", extra="parquet") from None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
