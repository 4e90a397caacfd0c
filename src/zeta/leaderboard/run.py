"""`make_leaderboard`: rounds of trials, from the catalogue to a ranked page."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zeta._errors import UserError
from zeta._formula import Formula
from zeta.doctor import environment
from zeta.evaluate import tasks as task_registry
from zeta.evaluate.candidates import candidate_name, is_gate, load_candidate
from zeta.evaluate.device import CPU
from zeta.evaluate.engines import Engine, EngineName, make_engine
from zeta.evaluate.initialisation import matched_gain
from zeta.evaluate.progress import Onward, Progress, Silent
from zeta.evaluate.run import Interrupted
from zeta.evaluate.runner import Runner
from zeta.evaluate.shapes import sample_shapes
from zeta.evaluate.store import TrialStore
from zeta.evaluate.sweep import Sweep
from zeta.leaderboard.board import FILE, Board, Played, Standings, play, read_board
from zeta.leaderboard.costs import measure_costs
from zeta.leaderboard.page import write_page
from zeta.leaderboard.rounds import DIVISIONS, Division, Round


def make_leaderboard(
    activations: Iterable[str] = (),
    *,
    out: str | Path = "zeta-leaderboard",
    engine: EngineName = "local",
    address: str | None = None,
    device: str = CPU,
    divisions: Sequence[Division] = DIVISIONS,
    progress: Progress | None = None,
) -> Board:
    """Rank the whole catalogue on real data, in rounds; write ``out/leaderboard.html``.

    All entries meet on a few cheap tasks; the best go on to more of them, and the best of those
    are confirmed on splits that nobody saw before. Finished trials are kept in ``out/trials``: the
    same call again resumes, and with further activations it trains those alone. The page is
    written after each round. Worker processes are spawned, so a script needs the usual
    ``if __name__ == "__main__":``.

    Args:
        activations: entries besides the catalogue, by the name of a registered formula or
            ``"path/to/file.py:name"``.
        out: the folder for the page, ``leaderboard.json`` and ``trials/``.
        engine, address, device: as of :func:`zeta.evaluate.evaluate`.
        divisions: what is run; by default activations, then gates.
        progress: told of every finished trial.

    Raises:
        UserError: an unknown name, an unusable file, a formula without a matched initialisation,
            a folder of another version's leaderboard, or one that cannot be written to or is in
            use, a division without any task's data, or one whose reference nowhere does better
            than a constant prediction.
        Interrupted: Ctrl-C.
    """
    folder, progress = Path(out), progress or Silent()
    own = {name: load_candidate(name) for name in map(candidate_name, activations)}
    for name, formula in own.items():
        matched_gain(name, formula)  # now, and not in the round that asks for it
    for division in divisions:
        _check_data(division)
    try:
        before = read_board(folder / FILE)
    except FileNotFoundError:
        before = Board((), {}, {}, 0.0)
    with make_engine(engine, address, device) as workers, TrialStore(folder, progress.note) as kept:
        table = _Table(folder, kept, workers, progress, before, own)
        try:
            for division in divisions:
                table.run(_with(division, own))
        except KeyboardInterrupt:
            table.keep_time()
            raise Interrupted(
                f"interrupted: finished trials are kept in {folder / 'trials'}; the same command "
                "resumes"
            ) from None
    return table.board


def _with(division: Division, own: Mapping[str, Formula]) -> Division:
    """The division with the entries of one's own that belong to it."""
    gates = is_gate(division.formulas[division.reference])
    belonging = {name: f for name, f in own.items() if is_gate(f) == gates}
    return replace(division, formulas={**division.formulas, **belonging})


def _check_data(division: Division) -> None:
    """Raise a UserError if the data of all its tasks are missing."""
    names = [name for of in division.rounds for name in of.tasks]
    reasons = [task_registry.get(name).missing() for name in names]
    if all(reasons):
        why = "; ".join(dict.fromkeys(filter(None, reasons)))
        raise UserError(f"no task can be run for {division.name}: {why}")


class _Table:
    """The board while it is made, written after each round."""

    def __init__(
        self,
        folder: Path,
        store: TrialStore,
        engine: Engine,
        progress: Progress,
        before: Board,
        own: Collection[str],
    ) -> None:
        self._folder, self._store, self._engine = folder, store, engine
        self._progress, self._before, self._own = Onward(progress), before, own
        self._started = time.perf_counter()
        self.board = replace(before, environment=dict(environment()), skipped={})

    def run(self, division: Division) -> None:
        """All rounds of a division, then what its entries cost."""
        played: list[Played] = []
        for of in division.rounds:
            if not self._available(of):
                self._progress.note(f"{division.name}, {of.name}: left out, no task can be run")
                continue
            entries = entrants(division, of, played)
            self._progress.note(f"{division.name}, {of.name}: {of.title}; {len(entries)} entries")
            played.append(self._play(division, of, entries))
            self._put(division, played)
        if not any(p.entries for p in played):
            raise UserError(
                f"no entry can be ranked: {division.reference}, with which all are compared, is "
                "not clearly better than a constant prediction on any task"
            )
        self._measure(division)

    def _play(self, division: Division, of: Round, entries: Sequence[str]) -> Played:
        sweep = Sweep(of.settings(entries, self._available(of), division.reference))
        self._progress.next()
        runner = Runner(sweep, self._engine, self._progress)
        tunings = runner.run(self._store)
        trials = list(runner.trials.values())
        return play(of, division.reference, list(sweep.infos.values()), tunings, trials)

    def _available(self, of: Round) -> list[str]:
        missing = {name: task_registry.get(name).missing() for name in of.tasks}
        self.board.skipped.update({n: reason for n, reason in missing.items() if reason})
        return [name for name, reason in missing.items() if not reason]

    def _put(self, division: Division, played: Sequence[Played]) -> None:
        """Have the page show the rounds so far."""
        before = next((d for d in self._before.divisions if d.name == division.name), None)
        shown = Standings(
            name=division.name,
            reference=division.reference,
            kept=division.kept,
            rounds=tuple(played),
            costs=dict(before.costs) if before else {},
            shapes=_shapes(division),
        )
        self._write(shown)

    def _measure(self, division: Division) -> None:
        """The costs that are not known yet, and the page with them.

        Formulas of one's own may have been edited since the last time.
        """
        shown = next(d for d in self.board.divisions if d.name == division.name)
        missing = {
            n: f for n, f in division.formulas.items() if n not in shown.costs or n in self._own
        }
        if missing:
            self._progress.note(f"{division.name}: measuring what {len(missing)} entries cost")
        found = measure_costs(missing, division.formulas[division.reference])
        self._write(replace(shown, costs={**shown.costs, **found}))

    def _write(self, shown: Standings) -> None:
        divisions = {d.name: d for d in self.board.divisions} | {shown.name: shown}
        self.board = replace(self.board, divisions=tuple(divisions.values()))
        self.keep_time()
        write_page(self.board, self._folder)

    def keep_time(self) -> None:
        """Write the board with the time up to now, also of what was interrupted."""
        spent = self._before.seconds + time.perf_counter() - self._started
        self.board = replace(self.board, seconds=round(spent, 1))
        self.board.write(self._folder)


def entrants(division: Division, of: Round, played: Sequence[Played]) -> list[str]:
    """Who takes part in a round: the best of the last selecting one, and those always kept."""
    before = [p for p in played if p.selects]
    if not before:
        return list(division.formulas)
    best = [entry.activation for entry in before[-1].entries]
    if of.entries is None:
        return best
    ahead = [name for name in best if name not in division.kept][: of.entries]
    return [name for name in best if name in (*ahead, *division.kept)]


def _shapes(division: Division) -> dict[str, tuple[float | None, ...]]:
    of = division.rounds[0].settings(list(division.formulas), (), division.reference)
    return {shape.activation: shape.values for shape in sample_shapes(of, ())}
