"""The examples of the use cases run as their heads say and print what they promise."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example, in this process, and says what it prints."""

    def call(example, *arguments):
        monkeypatch.setattr(sys, "argv", [example, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        return capsys.readouterr().out

    return call


def numbers(output):
    """Of every line, by the line's beginning."""
    lines = (re.split(r"  +| (?=accuracy)", line, maxsplit=1) for line in output.splitlines())
    return {name: [float(x) for x in re.findall(r"\d+\.\d+", rest)] for name, rest in lines}


def test_classify_selu_softmax(run):
    results = numbers(run("classify_selu_softmax.py"))
    accuracy, loss = results["negative_log_likelihood"]
    assert accuracy > 0.95
    assert loss < results["cross_entropy_of_probabilities"][1]


def test_transfer_learning(run):
    results = numbers(run("transfer_learning.py"))
    assert results["ReLU kept"][0] == 0
    assert 0 < results["replaced and matched"][0] < results["replaced"][0]
    assert min(accuracy for _, accuracy in results.values()) > 0.7


def test_mega_attention(run):
    results = numbers(run("mega_attention.py"))
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


def test_image_folder(folder, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert float(run("image_folder.py", folder).removeprefix("accuracy ")) > 0.9


def test_image_folder_without_images(tmp_path, run):
    with pytest.raises(SystemExit, match=r"^image_folder: no images in folders of.*$"):
        run("image_folder.py", tmp_path)
