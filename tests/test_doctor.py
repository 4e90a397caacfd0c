"""What `zeta doctor` finds, with parts of the machine taken away."""

from importlib import metadata

import pytest

from zeta import doctor


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


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.compiler() is None
    assert doctor.environment()["C++ compiler"] == "none found"
