"""What the terminal shows while an evaluation runs."""

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from answering import AnsweringEngine, noise
from zeta.evaluate import Budget, TrialKey
from zeta.evaluate.plan import Plan, TaskPlan
from zeta.evaluate.progress import Onward
from zeta.evaluate.terminal import TerminalProgress, print_plan

KEYS = [TrialKey("digits", "d", "relu", "f", 0.01, s, "final", Budget(2, 4, 8)) for s in range(6)]
((TRIALS),) = AnsweringEngine(noise).run([KEYS])


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    with io.StringIO() as output:
        yield output


def progress(output: io.StringIO, terminal: bool) -> TerminalProgress:
    return TerminalProgress(Console(file=output, force_terminal=terminal, width=120))


def test_a_bar_for_each_task(output: io.StringIO) -> None:
    with progress(output, terminal=True) as shown:
        shown.phase("tuning", {"digits": 10, "a/my.py:task": 20})
        shown.finished(TRIALS[:2], resumed=True)
        shown.phase("final", {"digits": 12, "a/my.py:task": 20})
        shown.finished(TRIALS[2:], resumed=False)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).splitlines()[-2:]
    assert re.search(r"digits: final trials, fresh seeds .*6/12 .*left:", last[0])
    assert re.search(r"task: final trials, fresh seeds .*0/20 .*left: -:--:--", last[1])


def test_without_a_terminal_a_line_now_and_then(
    output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 30.0, 31.0])
    monkeypatch.setattr("zeta.evaluate.terminal.time.monotonic", lambda: next(clock))
    with progress(output, terminal=False) as shown:
        shown.phase("tuning", {"digits": 10, "diabetes": 20})
        shown.finished(TRIALS[:2], resumed=True)  # too early for a line
        shown.finished(TRIALS[2:5], resumed=False)
        shown.phase("tuning", {"digits": 10, "diabetes": 22})
        shown.finished(TRIALS[5:], resumed=False)  # too soon after the last
        shown.note("something [to] read")
    assert output.getvalue().splitlines() == [
        "tuning learning rates",
        "5/30 trials, 30 s, about 4.2 min left",
        "something [to] read",
    ]


def test_the_plan_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = (
        TaskPlan("digits", 40, 40, 30, 16, 2.0, 400_000_000, measured=True, detectable=2.64),
        TaskPlan("a/my.py:task", 40, 40, 80, 16, None, None, measured=False, detectable=4.9),
    )
    plan = Plan(tasks, most_extensions=32, workers=2, comparisons=6)
    assert plan.seconds == pytest.approx((50 + 3.2) * 2.0 / 2), "a tenth of what may be added"
    assert plan.memory == 800_000_000
    print_plan(plan)
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"digits +40 +40 +30 +2 +400 +2\.6 sd$", lines[3].rstrip())
    assert re.search(r"task +40 +40 +80 +4\.9 sd$", lines[4].rstrip())
    assert "standard deviations of the paired differences, if it is the only one of 6" in lines[6]
    assert "50 trials to run, and up to 32 more" in lines[7]
    assert "About 53 s on 2 cores, going by a short probe." in lines[8]
    assert "About 800 MB" in lines[9]


def test_a_last_long_group_decides_the_time() -> None:
    one = TaskPlan("digits", 0, 16, 0, 16, 2.0, None, measured=True, detectable=3.0)
    assert Plan((one,), 0, workers=8, comparisons=1).seconds == 32.0


def test_sweeps_in_turn_add_up(output: io.StringIO) -> None:
    with progress(output, terminal=False) as shown:
        onward = Onward(shown)
        onward.phase("tuning", {"digits": 6})
        onward.finished(TRIALS, resumed=False)
        onward.next()
        onward.phase("tuning", {"digits": 8})
        onward.finished(TRIALS, resumed=True)
        shown._last_line -= 60
        onward.finished(TRIALS[:1], resumed=False)
    assert output.getvalue().splitlines()[-1].startswith("13/14 trials")
