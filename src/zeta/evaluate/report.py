"""Write the results: `report.html`, self-contained, and `results.json`."""

import json

import jinja2

from zeta._errors import UserError
from zeta.evaluate import charts
from zeta.evaluate.results import Results, short_names
from zeta.evaluate.store import write_atomically
from zeta.evaluate.wording import listing, signed


def write_report(results: Results) -> None:
    """Write both files into the results' folder, each whole or not at all.

    Raises:
        UserError: the folder cannot be written to.
    """
    page = render(results)
    data = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        write_atomically(results.folder / "results.json", data)
        write_atomically(results.report, page)
    except OSError as error:
        raise UserError(f"cannot write to {str(results.folder)!r}: {error.strerror}") from error


def render(results: Results) -> str:
    """The report as one HTML page that loads nothing from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zeta.evaluate"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = signed
    names = short_names((*results.settings.activations, *results.settings.tasks))
    return environment.get_template("report.html.j2").render(
        results=results,
        names=names,
        candidates=listing([names[candidate] for candidate in results.settings.candidates]),
        final_trials=[trial for trial in results.trials if trial.key.phase == "final"],
        legend=charts.legend(results),
        difference_charts=charts.difference_charts(results),
        sensitivity_charts=charts.sensitivity_charts(results),
        training_charts=charts.training_charts(results),
        shape_charts=charts.shape_charts(results),
    )
