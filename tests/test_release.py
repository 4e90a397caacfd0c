"""What a release needs before `make release-check`, which is too long for every change."""

import tomllib
from pathlib import Path

import pytest

from release_check import EXTRAS

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_extra_is_checked():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_every_extra_is_in_the_readme(extra):
    assert f"`{extra}`" in README
