"""Pages of measurements: a file of ``benchmarks/results`` each, as it was written there."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from pages import write_pages

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

INDEX = """\
# Measurements

What the benchmarks wrote, unabridged. Machines and versions stand on each page; other work shared
some of these machines, so take ratios.

```{{toctree}}
:maxdepth: 1

{names}
```
"""


def markdown_page(path: Path) -> str:
    """A benchmark's own Markdown, under a title."""
    text = path.read_text(encoding="utf-8")
    return text if text.startswith("# ") else f"# {path.stem}\n\n{text}"


def bench_page(path: Path) -> str:
    """The rows of ``zeta bench --json`` as a table for each activation."""
    results = json.loads(path.read_text(encoding="utf-8"))
    where = "\n".join(f"- {name}: {value}" for name, value in results["environment"].items())
    lines = [f"# {path.stem}", "", "`zeta bench`: time relative to `F.gelu`, medians.", "", where]
    for activation, rows in groupby(results["rows"], lambda row: row["setting"]["activation"]):
        lines += ["", f"## {activation}", "", *_table(list(rows))]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    lines = [
        f"| elements | dtype | mode | {' | '.join(providers)} |",
        "|" + "---|" * (3 + len(providers)),
    ]
    for setting, cells in groupby(rows, lambda row: row["setting"]):
        ratios = {row["provider"]: f"{row['ratio']:.2f}" for row in cells}
        values = " | ".join(ratios.get(provider, "") for provider in providers)
        lines.append(
            f"| {setting['elements']:,} | {setting['dtype']} | {setting['mode']} | {values} |"
        )
    return lines


def _write(app: Sphinx) -> None:
    readers = {".md": markdown_page, ".json": bench_page}
    files = [path for path in sorted(RESULTS.iterdir()) if path.suffix in readers]
    pages = {f"{path.stem}.md": readers[path.suffix](path) for path in files}
    pages["index.md"] = INDEX.format(names="\n".join(path.stem for path in files))
    write_pages(Path(app.srcdir) / "results", pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for sources."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
