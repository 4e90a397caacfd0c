"""The `zeta` command as users run it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from answering import noise, study
from command import command, here, in_a_process as zeta
from zeta.evaluate import Settings

# Small enough that a run is mostly imports.
TASK = """
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

blobs = Task("blobs", "the sign of a sum", "classification", load, Budget(EPOCHS, 32, 8))
"""
FORMULA = """
from zeta import formula
from zeta.math import sigmoid

@formula(beta=1.5)
def swish(x, beta):
    return x * sigmoid(beta * x)
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(TASK.replace("EPOCHS", "3"))
    (tmp_path / "mine.py").write_text(FORMULA)
    return tmp_path


def test_help_version_and_list_are_fast_and_import_no_framework() -> None:
    code = (
        "import sys\nfrom zeta.cli import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "tables = {'rich'} - ({'rich'} if 'list' in sys.argv else set())\n"
        "bad = ({'torch', 'sklearn', 'matplotlib'} | tables) & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    for arguments in (["--help"], ["list"], ["--version"], ["evaluate", "--help"]):
        run = subprocess.run([sys.executable, "-c", code, *arguments],
                             capture_output=True, text=True)  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout
    broken = code.replace("import sys", "import sys, torch", 1)
    run = subprocess.run([sys.executable, "-c", broken, "list"], capture_output=True, text=True)
    assert "AssertionError: {'torch'}" in run.stderr, "the check above can fail"


def test_list_names_every_formula_with_its_facts() -> None:
    from zeta.activations import CATALOGUE, GATES, LOGITS

    lines = zeta("list").stdout.splitlines()
    first = [line.split()[0] for line in lines if line.strip()]
    assert [name for name in first if name in CATALOGUE | GATES | LOGITS] == [
        *(*CATALOGUE, *GATES, *LOGITS)
    ]
    assert "[−1.1, ∞)" in next(line for line in lines if line.startswith(" exo "))
    gates = zeta("list", "--family", "gated").stdout
    assert "Llama" in gates
    assert "mish" not in gates


def test_console_script() -> None:
    script = Path(sys.executable).with_name("zeta")
    run = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert re.fullmatch(r"zeta \d+\.\d+\.\d+\n", run.stdout)


def test_plot_and_doctor(files: Path) -> None:
    run = here("plot", "exo", "mine.py:swish", "swiglu", "-o", "f.svg", cwd=files)
    assert run.stdout == "wrote f.svg\n"
    assert "<svg" in (files / "f.svg").read_text()
    report = here("doctor", cwd=files).stdout
    for label in ("Python", "torch", "C++ compiler", "vector features", "evaluate"):
        assert label in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "exoo"], "unknown activation 'exoo'; did you mean 'exo'?"),
        (["evaluate", "--task", "digit"], "unknown task 'digit'; did you mean 'digits'?"),
        (["evaluate", "--seeds", "1"], "seeds must be at least 2"),
        (["evaluate", "--rope", "-1"], "rope must be a number from 0 up, got -1"),
        (["evaluate", "--reference", "silo"], "unknown activation 'silo'; did you mean 'silu'?"),
        (["evaluate", "--init", "he"], "init must be of default and matched, got 'he'"),
        (["evaluate", "--budget", "4"], "budget must have 1 among its values, with which the"),
        (
            ["evaluate", "--task", "shuttle_stream", "--budget", "1,4"],
            "task 'shuttle_stream (4x)': a stream is seen in one pass, so that no",
        ),
        (["evaluate", "new\nline.py:f"], "'new\\nline.py:f' has control characters in its name"),
        (["evaluate", "--seeds", "1000000000"], "seeds must be at most 1000, got 1000000000"),
        (["evaluate", "exo", "relu", "--learn"], "'relu' has no parameters to learn; evaluate it"),
        (["evaluate", "relu (learned)"], "'relu' has no parameters to learn"),
        (["evaluate", "none.py:f"], "cannot read 'none.py': No such file"),
        (["evaluate", "broken.py:f"], "cannot import 'broken.py': line 2: NameError: name 'y'"),
        (["evaluate", "mine.py:swash"], "did you mean 'swish'?"),
        (["evaluate", "--out", "mine.py/out"], "cannot write to 'mine.py/out': Not a directory"),
        (["report", "none"], "'none' holds no results.json; `zeta evaluate --out none` writes one"),
        (["compare", "exo", "relu", "--out", "none"], "'none' holds no results.json"),
        (["evaluate", "--address", "h:1"], "an address is a Ray cluster's; add --engine ray"),
        (["export", ".", "t.csv"], "there are no finished trials to export"),
        (["export", "none", "t.csv"], "no finished trials to export: no folder 'none'"),
        (["export", ".", "t.txt"], "cannot tell a format from 't.txt'"),
        (
            ["evaluate", "swiglu"],
            "'swiglu' is a gate of two inputs, and task 'digits' has no gated units;",
        ),
        (["bench", "geglu"], "'geglu' takes 2 inputs (gate, value), and an activation takes 1;"),
        (["bench", "mine.py:swish"], "takes names of the catalogue only, got 'mine.py:swish'"),
        (["bench", "--plot", "b.xyz"], "cannot plot to 'b.xyz': the suffix must be one of"),
        (["plot", "gellu", "-o", "f.png"], "unknown activation 'gellu'; did you mean 'gelu'?"),
        (["plot", "gelu", "-o", "none/f.png"], "cannot write 'none/f.png'"),
        (["plot", "const.py:const", "-o", "f.png"], "'const.py:const' is constant"),
        (["plot", "raises.py:f", "-o", "f.png"], "cannot import 'raises.py': line 2: E: a b"),
        (["plot", "three.py:f", "-o", "f.png"], "f(a, b, c) takes 3 inputs, and a plot shows one"),
        (["plot", "fatal.py:f", "-o", "f.png"], "unexpected E: a b (ZETA_DEBUG=1"),
    ],
)
def test_bad_input_is_one_line_and_a_nonzero_exit(
    files: Path, arguments: list[str], message: str
) -> None:
    (files / "broken.py").write_text("x = 1\nx = y\n")
    (files / "const.py").write_text(
        "from zeta import formula\n@formula\ndef const(x):\n    return 1.0\n"
    )
    (files / "three.py").write_text(
        "from zeta import formula\n@formula\ndef f(a, b, c):\n    return a * b + c\n"
    )
    (files / "raises.py").write_text("class E(BaseException): pass\nraise E('a\\nb')\n")
    (files / "fatal.py").write_text(
        "from zeta import formula\nclass E(BaseException): pass\n"
        "@formula\ndef f(x):\n    raise E('a\\nb')\n"
    )
    run = here(*arguments, cwd=files)
    assert run.returncode == 1
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (files / "zeta-report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bogus"], "No such command 'bogus'. (see zeta --help)"),
        (["plot", "exo"], "Missing option '-o' / '--output'. (see zeta plot --help)"),
        (["list", "extra"], "Got unexpected extra argument (extra) (see zeta list --help)"),
        (["report", "a", "b"], "several runs need --out DIR, the folder for their common report"),
        (["evaluate", "--engine", "x"], "'x' is not one of 'local', 'ray'. (see zeta evaluate"),
        (["evaluate", "--seeds", "x"], "'x' is not a valid integer. (see zeta evaluate --help)"),
        (["evaluate", "--out", ""], "Invalid value for '--out': It is empty; give the name"),
        (["bench", "--json", "/proc/self/b.json"], "Cannot write to folder '/proc/self'"),
    ],
)
def test_usage_errors_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    run = here(*arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_without_a_command_it_shows_the_help() -> None:
    run = zeta()
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == zeta("--help").stdout


@pytest.mark.parametrize("arguments", [["list"], ["compare", "exo", "mish", "--out", "out"]])
def test_a_reader_that_leaves_is_no_failure(files: Path, arguments: list[str]) -> None:
    finished_study(files)
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(command(*arguments), cwd=files, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (run.returncode, run.stderr) == (1, b"")


def test_an_output_without_unicode_is_no_failure(files: Path) -> None:
    finished_study(files)
    run = subprocess.run(command("compare", "exo", "mish", "--out", "out"), cwd=files,
                         env={**os.environ, "PYTHONIOENCODING": "ascii"},
                         capture_output=True)  # fmt: skip
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"blobs: undecided between exo and mish" in run.stdout


def test_evaluate_says_which_parameters_are_trained() -> None:
    text = " ".join(zeta("evaluate", "--help").stdout.split())
    assert "Parameters that a formula marks as learnable are trained" in text


@pytest.mark.parametrize(
    ("blocked", "arguments", "extra"),
    [
        ("torch", ["evaluate"], "evaluate"),
        ("jinja2", ["evaluate"], "evaluate"),
        ("filelock", ["export", ".", "t.csv"], "evaluate"),
        ("matplotlib", ["plot", "exo", "-o", "f.png"], "plot"),
    ],
)
def test_missing_extra_is_named(
    tmp_path: Path, blocked: str, arguments: list[str], extra: str
) -> None:
    code = f"import sys\nsys.modules[{blocked!r}] = None\nfrom zeta.cli import main\nmain()\n"
    run = subprocess.run([sys.executable, "-c", code, *arguments],
                         cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.endswith(f"pip install 'zeta-nn[{extra}]'\n")
    assert len(run.stderr.splitlines()) == 1


def test_unexpected_exceptions_are_one_line_unless_debugging(files: Path) -> None:
    code = "import zeta.cli, zeta.activations\ndel zeta.activations.FAMILIES\nzeta.cli.main()\n"
    for debug in ("", "1"):
        run = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True,
                             env={**os.environ, "ZETA_DEBUG": debug})  # fmt: skip
        assert run.returncode == 1
        assert ("Traceback" in run.stderr) == bool(debug)
    assert "ImportError" in run.stderr


def test_evaluate_a_users_formula_then_resume(files: Path) -> None:
    arguments = ["evaluate", "mine.py:swish", "--task", "task.py:blobs", "--seeds", "3", "--quick"]
    first = zeta(*arguments, "--out", "out", cwd=files)
    assert first.returncode == 0, first.stderr
    assert "tuning learning rates" in first.stderr
    assert "Too few seeds to tell" in first.stdout
    assert "too small to conclude from" in " ".join(first.stdout.split())
    assert "Report: out/report.html" in first.stdout
    data = json.loads((files / "out" / "results.json").read_text())
    fields = {"key", "task", "activation", "learning_rate", "seed", "phase", "metric", "value",
              "status", "timing"}  # fmt: skip
    assert all(fields <= set(trial) for trial in data["trials"])
    final = [t for t in data["trials"] if t["phase"] == "final"]
    activations = {"mine.py:swish", "relu", "gelu", "silu"}
    assert {t["activation"] for t in final} == activations
    assert len(final) == len(activations) * 3
    stored = sorted((files / "out" / "trials").glob("*.json"))
    assert len(stored) == len(data["trials"]) == data["timing"]["run"]

    arguments[0:4] = ["evaluate", f"{files}/mine.py:swish", "--task", "./task.py:blobs"]
    plan = zeta(*arguments, "--plan", "--out", "out", cwd=files)
    assert "\n0 trials to run" in plan.stdout
    compared = here("compare", "./mine.py:swish", "gelu", "--out", "out", cwd=files)
    assert compared.returncode == 0, compared.stderr
    exported = here("export", "out", "trials.csv", cwd=files)
    assert exported.stdout == f"wrote trials.csv: {len(stored)} trials\n"
    assert len((files / "trials.csv").read_text().splitlines()) == len(stored) + 1

    # Again, with a damaged file and another formula: just these trials are run.
    other = next(t for t in data["trials"] if t["activation"] == "relu")
    damaged = files / "out" / "trials" / f"{other['key']}.json"
    damaged.write_text("{ half a fi")
    (files / "mine.py").write_text(FORMULA.replace("1.5", "2.5"))
    again = zeta(*arguments, "--out", "out", cwd=files)
    assert again.returncode == 0
    assert again.stderr.count("set aside as") == 1
    assert damaged.with_suffix(".corrupt").read_text() == "{ half a fi"
    resumed = json.loads((files / "out" / "results.json").read_text())
    ours = [t for t in resumed["trials"] if t["activation"] == "mine.py:swish"]
    assert resumed["timing"]["run"] == len(ours) + 1
    kept = {t["key"]: t["value"] for t in resumed["trials"] if t not in ours}
    assert kept == {t["key"]: t["value"] for t in data["trials"] if t["key"] in kept}
    assert not {t["key"] for t in ours} & {t["key"] for t in data["trials"]}


def finished_study(files: Path) -> Path:
    """The folder of an evaluation of exo and mish."""
    with contextlib.chdir(files):
        settings = Settings(("exo", "mish"), ("task.py:blobs",), 10, tuning_seeds=(0, 1))
        study(files / "out", noise, settings)
    return files / "out"


def test_report_and_compare_read_finished_trials(files: Path) -> None:
    folder = finished_study(files)
    (folder / "report.html").unlink()
    (files / "task.py").unlink()
    run = here("report", "out", "out", "--out", "merged", cwd=files)
    assert (run.stdout, run.stderr) == ("Report: merged/report.html\n", "")
    assert "<h2>Differences" in (files / "merged" / "report.html").read_text()
    run = here("compare", "exo", "mish", "--out", "merged", cwd=files)
    assert run.returncode == 0, run.stderr
    assert "blobs: undecided between exo and mish" in run.stdout
    run = here("compare", "exo", "mush", "--out", "out", cwd=files)
    assert run.stderr == "zeta: unknown activation or task 'mush'; did you mean 'mish'?\n"


@pytest.fixture
def running(files: Path) -> Iterator[subprocess.Popen[str]]:
    """An evaluation with many trials to go, three of which are finished."""
    (files / "task.py").write_text(TASK.replace("EPOCHS", "60"))
    arguments = ["evaluate", "exo", "--task", "task.py:blobs", "--out", "out", "--seeds", "100"]
    process = subprocess.Popen(
        command(*arguments), cwd=files, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(files.glob("out/trials/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    yield process
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_interruption_keeps_the_finished_trials(
    files: Path, running: subprocess.Popen[str], how: str
) -> None:
    if how == "Ctrl-C":
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    else:
        running.terminate()
    # It ends with the last process that holds standard error: no worker is left.
    _, stderr = running.communicate(timeout=30)
    kept = {path: path.read_bytes() for path in files.glob("out/trials/*.json")}
    assert running.returncode == 130, stderr
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert f"interrupted: {len(kept)} trials are finished and kept in out/trials" in last
    assert "the same command resumes" in last
    assert len(kept) >= 3
    assert all(json.loads(content)["status"] == "ok" for content in kept.values())
    assert not list(files.glob("out/trials/*.tmp"))


def test_two_runs_on_one_folder(files: Path, running: subprocess.Popen[str]) -> None:
    second = zeta("evaluate", "exo", "--task", "task.py:blobs", "--out", "out", cwd=files)
    assert second.returncode == 1
    assert "zeta: another evaluation is writing to 'out': wait" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert running.poll() is None


def test_no_worker_outlives_a_killed_parent(running: subprocess.Popen[str]) -> None:
    running.kill()
    running.communicate(timeout=30)  # ends with the last process that holds standard error
    assert running.returncode == -signal.SIGKILL
