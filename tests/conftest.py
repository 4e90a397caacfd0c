"""Settings that every test shares."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    # Read when Triton is first imported: its kernels then run on CPU tensors.
    os.environ["TRITON_INTERPRET"] = "1"
if shutil.which("openssl") is None:
    # Read when Inductor is first imported: it hashes headers with that program.
    os.environ["TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"] = "0"
# Read when JAX first computes: a processor as eight devices, for sharded computations.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Read when Keras is first imported; its tests on the other backends have processes of their own.
os.environ.setdefault("KERAS_BACKEND", "jax")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background of a shell Ctrl-C is ignored, and would be by the processes of the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("zeta", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("zeta")


def pytest_sessionstart(session):
    """The launcher in C++ takes half a minute to compile: while the workers collect tests."""
    from zeta.kernels import native  # not before the settings above

    if not hasattr(session.config, "workerinput") and not native.is_cached():
        code = "from zeta.kernels import native; native.build()"
        session.launcher = subprocess.Popen([sys.executable, "-c", code])


@pytest.fixture(autouse=True, scope="session")
def _launcher():
    """From the first call on, and not from some call on."""
    from zeta.kernels import native

    native.build()


@pytest.fixture
def catalogue_as_before():
    """What a test registers is gone after it."""
    from zeta.activations import registry

    known = [*registry.FAMILIES.values(), registry.CATALOGUE]
    before = [dict(members) for members in known]
    yield
    for members, kept in zip(known, before, strict=True):
        members.clear()
        members.update(kept)


@pytest.fixture
def launched_by_native():
    """Calls of CPU kernels go through the launcher in C++."""
    from zeta.kernels import native

    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("the launcher in C++ needs Python's headers: install python3-dev")
    assert native.extension, native.problem


@pytest.fixture
def launched_by_python(monkeypatch):
    """Calls of CPU kernels go through `zeta.kernels.cpu.launch`, where they can be looked at."""
    from zeta.kernels import native

    monkeypatch.setattr(native, "extension", None)
    monkeypatch.setattr(native, "count", lambda: None)


@pytest.fixture
def xla_compiles_quickly():
    """XLA leaves out what makes programs fast: for those whose compilation takes all the time.

    Not where the numbers of what users run are looked at.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def clean_env():
    """The environment for a fresh Python process that must find the package under test."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
