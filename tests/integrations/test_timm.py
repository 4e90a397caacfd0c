"""timm's models, in a process of their own: timm needs torchvision, of which transformers must not
find half."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDER = Path(sys.prefix) / "timm"  # where `make` puts timm and torchvision, without dependencies


def test_on_timm(clean_env):
    if not (FOLDER.is_dir() or importlib.util.find_spec("timm")):
        pytest.skip(f"needs pip install --no-deps --target {FOLDER} timm torchvision==0.28.0")
    path = [clean_env.get("PYTHONPATH", ""), str(FOLDER)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "check_timm.py"],
        env=clean_env | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
