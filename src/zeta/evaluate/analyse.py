"""From what was run to results: scores, comparisons, the tasks together, the verdict in words."""

from pathlib import Path

from zeta.evaluate.across import look_across
from zeta.evaluate.compare import compare, control, score_trials
from zeta.evaluate.dependence import dependences
from zeta.evaluate.results import Results, Run
from zeta.evaluate.wording import conclude, describe_protocol


def analyse(run: Run, folder: Path) -> Results:
    """The results of a run, fresh or read from disk.

    Args:
        folder: where the report is to lie.
    """
    tasks = {task.source: task for task in run.tasks}
    scores = tuple(
        score_trials(tasks[t.task], t, run.final_trials(t.task, t.activation)) for t in run.tunings
    )
    comparisons = compare(run.settings, run.tasks, run.tunings, scores)
    controls = control(run.settings, run.tasks, scores)
    under_conditions = dependences(run.settings, run.tasks, comparisons)
    across = look_across(run.settings, run.tasks, run.tunings, scores, comparisons)
    return Results(
        **vars(run),
        folder=folder,
        scores=scores,
        comparisons=comparisons,
        controls=controls,
        dependences=under_conditions,
        across=across,
        conclusion=conclude(
            run.settings, run.tasks, comparisons, controls, under_conditions, across
        ),
        protocol=describe_protocol(run.settings, run.tasks),
    )
