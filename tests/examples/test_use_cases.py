"""The examples of the use cases run as their heads say and print what they promise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(env, example, *arguments):
    return subprocess.run(
        [sys.executable, EXAMPLES / example, *arguments], env=env, capture_output=True, text=True
    )


def printed(env, example, *arguments):
    """What an example prints: the numbers of every line, by the line's beginning."""
    done = run(env, example, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (re.split(r"  +| (?=accuracy)", line, maxsplit=1) for line in done.stdout.splitlines())
    return {name: [float(x) for x in re.findall(r"\d+\.\d+", rest)] for name, rest in lines}


def test_classify_selu_softmax(clean_env):
    results = printed(clean_env, "classify_selu_softmax.py")
    accuracy, loss = results["negative_log_likelihood"]
    assert accuracy > 0.95
    assert loss < results["cross_entropy_of_probabilities"][1]


def test_transfer_learning(clean_env):
    results = printed(clean_env, "transfer_learning.py")
    assert results["ReLU kept"][0] == 0
    assert 0 < results["replaced and matched"][0] < results["replaced"][0]
    assert min(accuracy for _, accuracy in results.values()) > 0.7


def test_mega_attention(clean_env):
    results = printed(clean_env, "mega_attention.py")
    assert results["laplace"][0] > 0.95
    assert results["softmax"][0] > 0.95


@pytest.fixture
def folder(tmp_path):
    """Two classes of images that differ in the direction of their stripes, and a stray file."""
    random = np.random.default_rng(0)
    stripes = np.broadcast_to(np.arange(40) // 4 % 2 * 200.0, (40, 40))
    for name, pattern in (("across", stripes), ("down", stripes.T)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").touch()
        for i in range(40):
            shifted = np.roll(pattern, random.integers(8), (0, 1)) + random.uniform(0, 55, (40, 40))
            Image.fromarray(shifted.astype("uint8")).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_image_folder(folder, clean_env):
    block = "import sys; sys.modules['torchvision'] = None; import runpy; sys.argv = sys.argv[1:]; "
    code = block + "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, EXAMPLES / "image_folder.py", folder],
        env=clean_env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout.removeprefix("accuracy ")) > 0.9


def test_image_folder_without_images(tmp_path, clean_env):
    done = run(clean_env, "image_folder.py", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("image_folder: no images in folders of")
    assert len(done.stderr.splitlines()) == 1
