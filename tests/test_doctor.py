"""What `zeta doctor` finds, with parts of the machine taken away."""

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

from zeta import doctor
from zeta.kernels.compiler import _machine_key, disabled, find_compiler


def test_everything_is_reported() -> None:
    found = doctor.diagnose()
    machine = found["Versions and machine"]
    assert machine["torch"] == metadata.version("torch")
    assert machine["Zeta"] == metadata.version("zeta-nn")
    assert machine["CPU"]
    assert "cpu" in found["Devices"]
    assert found["Extras"]["torch"] == "installed"


def test_the_same_on_every_call() -> None:
    assert doctor.environment() == doctor.environment()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version
    monkeypatch.setattr(
        doctor, "version", lambda name: None if name in ("jinja2", "torch") else real(name)
    )
    found = doctor.diagnose()
    assert found["Versions and machine"]["torch"] == "not installed"
    assert sorted(doctor.extras()["evaluate"]) == ["jinja2", "torch"]
    assert found["Extras"]["torch"] == "lacks torch"
    assert found["Extras"]["plot"] == "installed"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing cached about compilers, before or after."""
    monkeypatch.setenv("ZETA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("zeta.kernels.compiler._problems", [])
    caches = (find_compiler, disabled, _machine_key)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def fake_compiler(folder: Path, content: bytes) -> Path:
    path = folder / "fake-c++"
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.compiler() is None
    assert doctor.environment()["C++ compiler"] == "none found"
    found = doctor.kernels()
    assert found["compiler"] == "none found"
    assert found["CPU"].startswith("plain operations: no C++ compiler was found: install")


def test_a_file_that_cannot_be_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None
) -> None:
    path = fake_compiler(tmp_path, b"no shebang\n")
    monkeypatch.setenv("CXX", str(path))
    assert str(doctor.compiler()).startswith(f"{path}: cannot be run ([Errno 8]")
    assert "could not be run" in doctor.kernels()["CPU"]


def test_a_compiler_that_hangs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None
) -> None:
    monkeypatch.setattr(doctor, "_VERSION_TIMEOUT", 0.2)
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, b"#!/bin/sh\nexec sleep 60\n")))
    assert "cannot be run" in str(doctor.compiler())
    assert "timed out" in str(doctor.compiler())


def test_a_compiler_that_speaks_no_utf8(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None
) -> None:
    path = fake_compiler(tmp_path, b"#!/bin/sh\nprintf '\\377 1.0\\nmore\\n'\n")
    monkeypatch.setenv("CXX", str(path))
    assert doctor.compiler() == f"{path}: \N{REPLACEMENT CHARACTER} 1.0"


def test_kernels_run(fresh: None, tmp_path: Path) -> None:
    found = doctor.kernels()
    assert found["CPU"] == "fused kernels run"
    assert found["compiler"] == find_compiler()
    assert found["cache folder"] == str(tmp_path / "cache" / "kernels")
    assert (found["GPU"] == doctor.RUN) <= torch.cuda.is_available()


def test_kernels_switched_off(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setenv("ZETA_KERNELS", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = doctor.kernels()
    assert found["CPU"] == found["GPU"] == "plain operations: switched off by ZETA_KERNELS=0"
