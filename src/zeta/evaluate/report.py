"""Write the results: `report.html`, self-contained, and `results.json`."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence

import jinja2
from markupsafe import Markup

from zeta._errors import UserError
from zeta.evaluate import charts
from zeta.evaluate.ranking import MIN_TASKS
from zeta.evaluate.results import AcrossTasks, Dependence, Results, Verdict
from zeta.evaluate.standings import standings
from zeta.evaluate.store import write_atomically
from zeta.evaluate.wording import count, listing, percent, signed

# With more candidates, a ranking stands on top and their sentences are folded.
_FEW_CANDIDATES = 5
# Up to so many tasks, plots and tables of each are shown unfolded.
_FEW_TASKS = 4


def write_report(results: Results) -> None:
    """Write both files into the results' folder, each whole or not at all.

    Raises:
        UserError: the folder cannot be written to.
    """
    page = render(results)
    data = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        results.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(results.folder / "results.json", data)
        write_atomically(results.report, page)
    except OSError as error:
        raise UserError(f"cannot write to {str(results.folder)!r}: {error.strerror}") from error


def render(results: Results) -> str:
    """The report as one HTML page that loads nothing from elsewhere.

    Its content security policy forbids it to: browsers run its own script alone, which they know
    by its hash.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zeta.evaluate"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "percent": percent, "sentence": _sentence}
    names = results.names
    asked = [names[candidate] for candidate in results.settings.candidates]
    ranking = standings(results) if len(results.settings.candidates) > _FEW_CANDIDATES else []
    aggregates = results.across.aggregates if results.across else ()
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        results=results,
        names=names,
        candidates=count(len(asked), "activation") if ranking else listing(asked),
        skipped=listing(list(results.skipped)),
        standings=ranking,
        left_out=_left_out(results.across, names) if results.across else [],
        ranked_on=len(results.telling or results.settings.own_tasks),
        verdicts=[v for v in Verdict if any(v in standing.verdicts for standing in ranking)],
        min_tasks=MIN_TASKS,
        few=len(results.tasks) <= _FEW_TASKS,
        constants={score.task: score.constant for score in results.scores},
        scores=list(zip(results.scores, results.tunings, strict=True)),
        final_trials=[trial for trial in results.trials if trial.key.phase == "final"],
        own=results.settings.own_tasks,
        conditions=list(dict.fromkeys(d.condition for d in results.dependences)),
        dependences=[(case, _what_holds(case)) for case in _by_case(results)],
        legend=charts.legend(results, results.settings.activations),
        ranked=charts.legend(results, [a.activation for a in aggregates]),
        difference_charts=charts.difference_charts(results),
        across_charts=charts.across_charts(results),
        sensitivity_charts=charts.sensitivity_charts(results),
        training_charts=charts.training_charts(results),
        shape_charts=charts.shape_charts(results),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _left_out(across: AcrossTasks, names: Mapping[str, str]) -> list[str]:
    """One sentence for each reason."""
    found = [(listing([names[t] for t in ts]), len(ts), why) for why, ts in across.reasons.items()]
    return [f"{tasks} {'is' if n == 1 else 'are'} left out: {why}." for tasks, n, why in found]


def _by_case(results: Results) -> list[list[Dependence]]:
    """Of each candidate on each task, what every condition makes of the verdict."""
    cases: dict[tuple[str, str], list[Dependence]] = {}
    for d in results.dependences:
        cases.setdefault((d.task, d.candidate), []).append(d)
    return list(cases.values())


def _what_holds(case: Sequence[Dependence]) -> str:
    """A verdict that holds under all conditions, or those that say something else."""
    others = [d for d in case if d.finding != "holds"]
    if not others:
        return f"{case[0].default} holds"
    return "; ".join(
        f"{d.finding} ({d.condition})" if d.finding == "not told apart" else d.finding
        for d in others
    )


def _sentence(words: str) -> str:
    """With a capital letter."""
    return words[:1].upper() + words[1:]
