"""The `zeta` command: in a process of its own, or here, where its words and status alone count."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

from zeta.cli import main

# A task is skipped, as on a machine without Debian's Fashion-MNIST.
BARE = {"ZETA_DATASETS": os.devnull}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "zeta.cli", *map(str, arguments)]


def in_a_process(
    *arguments: str | Path, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=os.environ | BARE,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def here(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same without the second that a process takes to import PyTorch."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    sigterm = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(sys, "argv", ["zeta", *map(str, arguments)]),
        mock.patch.dict(os.environ, BARE),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code or 0
        finally:
            signal.signal(signal.SIGTERM, sigterm)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return subprocess.CompletedProcess(arguments, status, *texts)
