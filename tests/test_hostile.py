"""The `zeta` command with hostile arguments: one clean line, no crash."""

import json
from pathlib import Path

import pytest

from command import here, in_a_process

FORMULA = "from zeta import formula\n@formula(a=1.0)\ndef f(x, a):\n    return {}\n"
TASK = b"""
import numpy as np
from zeta.evaluate import Budget, Task

def load():
    x = np.random.default_rng(0).normal(size=(160, 4))
    return x, (x.sum(axis=1) > 0).astype(int)

evil = Task("[/red]<script>alert(2)</script>", "<b>a</b>\\x1b[31m", "classification", load,
            Budget(1, 32, 8))
"""
# Two of a name, so that they are shown with their paths.
FILES = {
    "binary.py": bytes(range(256)),
    "escapes.py": rb'raise ValueError("\x1b[31mred\x1b]0;title\x07\nline 2\r\x9b")',
    "exits.py": b"raise SystemExit(0)",
    "nested.py": b"x = " + b"(" * 5000 + b")" * 5000,
    "endless.py": FORMULA.format("f(x)").encode(),
    "huge.py": FORMULA.replace("1.0", "1e308").format("x * a * a").encode(),
    "text.py": FORMULA.format("'x'").encode(),
    "[red]<script>alert(1)<.py": FORMULA.format("a * x * abs(x)").encode(),
    "same.py": FORMULA.format("a * x * abs(x)").encode(),
    "[/red]task.py": TASK,
    "task.py": TASK,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "folder.py").mkdir()
    return folder


def plot(name: str) -> list[str]:
    return ["plot", name, "-o", "f.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["\x1b[31mfoo\nbar"],
        ["list", "\x1b[31m\n"],
        ["doctor", "--\x9b"],
        plot("\x1b[31mexo\n"),
        plot("folder.py:f"),
        plot("binary.py:f"),
        plot("escapes.py:f"),
        plot("exits.py:f"),
        plot("nested.py:f"),
        plot("endless.py:f"),
        plot("text.py:f"),
        plot("a" * 5000 + ".py:f"),
        plot("huge.py:" + "f" * 5000),
        plot("\udcff.py:f"),
        ["plot", "exo", "-o", "folder.py"],
        ["plot", "exo", "-o", "/proc/f.png"],
        ["plot", "exo", "-o", ""],
        ["evaluate", "--seeds", "nan"],
        ["evaluate", "--seeds", "9" * 30],
        ["evaluate", "--seeds", "-1"],
        ["evaluate", "--task", "\x1b[31m"],
        ["evaluate", "--task", "exits.py:t"],
        ["evaluate", "--out", "binary.py"],
        ["evaluate", "--out", "/proc/report"],
        ["bench", "binary.py:f"],
        ["bench", "--threads", "9" * 30],
        ["bench", "--json", "folder.py"],
        ["bench", "--plot", "none/f.png"],
    ],
    ids=lambda arguments: " ".join(arguments).encode("unicode_escape").decode()[:40],
)
def test_one_printable_line(folder: Path, arguments: list[str]) -> None:
    run = here(*arguments, cwd=folder)
    assert run.returncode in (1, 2)
    line = run.stderr
    assert line.startswith("zeta: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "ZETA_DEBUG" not in line, "nobody thought of this"
    assert not run.stdout.strip()


def test_numbers_that_overflow_are_drawn(folder: Path) -> None:
    run = here(*plot("huge.py:f"), cwd=folder)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_report_escapes_every_name(folder: Path) -> None:
    """Names that are markup for a browser, and for the library that writes to terminals."""
    formulas = ["[red]<script>alert(1)<.py:f", "same.py:f"]
    tasks = ["--task", "[/red]task.py:evil", "--task", "task.py:evil"]
    options = ["--seeds", "2", "--quick", "--out", "out"]
    run = in_a_process("evaluate", *formulas, *tasks, *options, cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "[red]<script>alert(1)<.py:f" in run.stdout
    assert "[/red]task.py:evil" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
    report = (folder / "out" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;" in report
    assert "<script>alert" not in report
    assert "<b>a</b>" not in report
    assert json.loads((folder / "out" / "results.json").read_text())


@pytest.mark.parametrize("command", ["plot", "evaluate"])
def test_help_says_that_a_file_is_run(folder: Path, command: str) -> None:
    text = " ".join(here(command, "--help", cwd=folder).stdout.split())
    assert "path/to/file.py:name, which runs that file's code" in text


def test_nothing_unpickles() -> None:
    """No file's content is ever run but that of a formula or a task, which is asked for."""
    import zeta

    loads = ("pickle.load", "allow_pickle=True", "weights_only=False", "joblib", "import dill")
    root = Path(zeta.__file__).parent
    sources = {path: path.read_text() for path in root.rglob("*.py")}
    assert not [(path, word) for path, text in sources.items() for word in loads if word in text]
    unsafe = [path for path, text in sources.items() if "torch.load(" in text]
    assert all("weights_only=True" in sources[path] for path in unsafe)
