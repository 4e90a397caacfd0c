"""Kernels under DistributedDataParallel and FSDP2: two real gloo processes, equal to one."""

import subprocess
import sys
from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")


@pytest.mark.usefixtures("launched_by_native")
def test_gradients_equal_the_single_process(tmp_path, clean_env):
    ranks = [
        subprocess.Popen(
            [sys.executable, RANKS, str(rank), tmp_path / "store"],
            env=clean_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=120)
            assert rank.returncode == 0, err
            # By C++ two activations, a product of a replaced gate and two before linear maps; by
            # Python two per channel, and what is formed again: forward and backward each.
            for kind in ("ddp", "fsdp2"):
                assert f"{kind}: launched 5 by C++, 8 by Python" in out
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
