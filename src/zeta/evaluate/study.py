"""`Study`: one evaluation, from its first trial to the written report."""

import time
from collections.abc import Mapping
from pathlib import Path

from zeta.doctor import environment
from zeta.evaluate.engines import Engine
from zeta.evaluate.progress import Progress
from zeta.evaluate.protocol import Settings
from zeta.evaluate.results import Results, Run
from zeta.evaluate.runner import Runner
from zeta.evaluate.store import TrialStore
from zeta.evaluate.sweep import Sweep


class Study:
    """One evaluation from its first trial to the written report.

    Args:
        settings: what to compare.
        folder: for the report and the finished trials.
        engine: runs the others.
        progress: told of every finished trial.
        skipped: task -> why it is left out; noted once nothing can be wrong any more, and reported.

    Raises:
        UserError: an unknown name or an unusable file.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        engine: Engine,
        progress: Progress,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.folder = settings, folder
        self._progress = progress
        self._skipped = dict(skipped or {})
        self._sweep = Sweep(settings)
        if next((folder / "trials").glob("*.json"), None) is None:
            engine.start()  # the workers' imports take as long as loading the data here
        self._infos = self._sweep.infos
        self._runner = Runner(self._sweep, engine, progress)

    @property
    def finished(self) -> int:
        """The finished trials, resumed ones included."""
        return len(self._runner.trials)

    def run(self) -> Results:
        """Everything from tuning to the written report.

        Raises:
            UserError: the folder cannot be used, or a trial cannot be run.
        """
        started = time.perf_counter()
        machine = environment()  # first: if it fails, no training is lost
        with TrialStore(self.folder, self._progress.note) as store:
            for name, reason in self._skipped.items():
                self._progress.note(f"task {name} is skipped: {reason}")
            tunings = self._runner.run(store)
            # Imported late: SciPy and Matplotlib take a second that the workers are better given.
            from zeta.evaluate.analyse import analyse
            from zeta.evaluate.report import write_report
            from zeta.evaluate.shapes import sample_shapes

            trials = tuple(sorted(self._runner.trials.values(), key=self._sweep.report_order))
            run = Run(
                settings=self.settings,
                tasks=tuple(self._infos.values()),
                tunings=tuple(tunings),
                trials=trials,
                shapes=sample_shapes(self.settings, trials),
                environment=machine,
                skipped=self._skipped,
                timing={
                    "seconds": round(time.perf_counter() - started, 2),
                    "run": self._runner.trained,
                    "resumed": len(self._runner.trials) - self._runner.trained,
                },
            )
            results = analyse(run, self.folder)
            write_report(results)
        return results
