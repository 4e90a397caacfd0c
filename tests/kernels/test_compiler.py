"""Faults of the machine: each keeps giving right numbers, with one warning that says what to do."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
import warnings

import pytest
import torch

from zeta import activations, formula
from zeta._backends.torch_plain import evaluate_plain
from zeta.kernels import compiler, cpu
from zeta.kernels.compiler import find_compiler
from zeta.math import sigmoid

SOURCE = 'extern "C" int zeta_kernel(const void*) { return 7; }'

# Run in a fresh process: prints the largest error, the number of warnings and their text.
CHECK = """
import torch, warnings
from zeta import activations
from zeta._backends.torch_plain import evaluate_plain
from zeta.kernels import compiler
x = torch.linspace(-5, 5, 1001, requires_grad=True)
alpha = torch.tensor(0.7, requires_grad=True)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    y = activations.exo(x, alpha)
    activations.silu(x).sum().backward()
    gradients = torch.autograd.grad(y.sum(), [x, alpha])
plain = evaluate_plain(activations.exo, x, {"alpha": alpha})
expected = torch.autograd.grad(plain.sum(), [x, alpha])
torch.testing.assert_close(y, plain)
torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
print("Fused" in y.grad_fn.name(), len(caught), *(str(w.message) for w in caught))
print(compiler.status())
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZETA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def problems(monkeypatch):
    """As in a fresh process: nothing has been warned of."""
    monkeypatch.setattr(compiler, "_problems", [])


def check(clean_env, **environment):
    """(fused?, number of warnings, the first warning), from a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env=clean_env | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    fused, count, *text = done.stdout.splitlines()[0].split(" ", 2)
    return fused == "True", int(count), "".join(text)


def libraries(folder):
    return sorted(folder.glob("*.so"))


def test_no_compiler(clean_env, tmp_path):
    found = check(clean_env, PATH=str(tmp_path), CXX="", ZETA_CACHE_DIR=str(tmp_path))
    assert found[:2] == (False, 1)
    assert "no C++ compiler was found: install g++" in found[2]


def test_a_compiler_that_fails(clean_env, tmp_path):
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: out of luck' >&2\nexit 1\n")
    broken.chmod(0o755)
    found = check(clean_env, CXX=str(broken), ZETA_CACHE_DIR=str(tmp_path / "cache"))
    assert found[:2] == (False, 1)
    assert "fatal error: out of luck" in found[2]
    assert "setting CXX" in found[2]


def test_a_compiler_that_refuses_flags(clean_env, tmp_path):
    """As one for another processor, or an older one."""
    picky = tmp_path / "picky-c++"
    refuse = '*native* | *-mprefer-vector-width*) echo "error: $@" >&2; exit 1'
    picky.write_text(f'#!/bin/sh\ncase "$*" in {refuse};; esac\nexec {find_compiler()} "$@"\n')
    picky.chmod(0o755)
    assert check(clean_env, CXX=str(picky), ZETA_CACHE_DIR=str(tmp_path)) == (True, 0, "")


def test_flags_by_processor():
    assert "-march=native" in compiler.flags("x86_64")
    for machine in ("aarch64", "arm64"):
        assert "-mcpu=native" in compiler.flags(machine)
        assert not any("march" in f or "vector-width" in f for f in compiler.flags(machine))


def test_switched_off(clean_env, tmp_path):
    assert check(clean_env, ZETA_KERNELS="0", ZETA_CACHE_DIR=str(tmp_path)) == (False, 0, "")
    assert not list(tmp_path.iterdir())


def test_a_cache_folder_that_cannot_be_used(clean_env, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    found = check(clean_env, ZETA_CACHE_DIR=str(in_the_way))
    assert found[:2] == (True, 1)
    assert "set ZETA_CACHE_DIR to a folder" in found[2]


def test_a_full_disk(cache, problems, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiler, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        library = compiler.load(b"key", lambda: SOURCE)
    assert library.zeta_kernel(None) == 7
    assert not libraries(cache)


def test_the_cache_is_private_and_used_again(cache):
    assert compiler.load(b"key", lambda: SOURCE).zeta_kernel(None) == 7
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    compiler.load(b"key", pytest.fail)  # no source is asked for
    assert len(libraries(cache)) == 1


@pytest.mark.parametrize("content", [b"", b"\x7fELF junk", None], ids=["empty", "foreign", "cut"])
def test_a_damaged_library_is_made_again(cache, content):
    compiler.load(b"key", lambda: SOURCE)
    (path,) = libraries(cache)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert compiler.load(b"key", lambda: SOURCE).zeta_kernel(None) == 7
    assert compiler.is_intact(path)


def test_a_library_of_another_key_is_not_taken(cache):
    other = 'extern "C" int zeta_kernel(const void*) { return 8; }'
    compiler.load(b"other", lambda: other)
    (foreign,) = libraries(cache)
    compiler.load(b"key", lambda: SOURCE)
    (own,) = set(libraries(cache)) - {foreign}
    shutil.copy(foreign, own)
    assert not compiler.is_intact(own)


def test_what_others_could_have_written_is_not_loaded(cache, problems):
    compiler.load(b"key", lambda: SOURCE)
    (path,) = libraries(cache)
    path.chmod(0o666)
    assert not compiler.is_intact(path)
    path.chmod(0o600)
    cache.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="others may write to it"):
        assert compiler.load(b"key", lambda: SOURCE).zeta_kernel(None) == 7


def test_someone_elses_folder_is_not_used(cache, problems, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.warns(RuntimeWarning, match="not this user's own"):
        assert compiler.load(b"key", lambda: SOURCE).zeta_kernel(None) == 7


def test_one_warning_however_many_problems(problems):
    with pytest.warns(RuntimeWarning, match="first"):
        compiler.warn_once("first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiler.warn_once("second")


def test_another_processor_has_another_library(cache, monkeypatch):
    compiler.load(b"key", lambda: SOURCE)
    monkeypatch.setattr(compiler, "cpu_features", lambda: "avx9000")
    compiler._machine_key.cache_clear()
    try:
        compiler.load(b"key", lambda: SOURCE)
    finally:
        compiler._machine_key.cache_clear()
    assert len(libraries(cache)) == 2


def test_sixteen_processes_compile_the_same_kernel(clean_env, tmp_path):
    script = f"""
    from zeta.kernels import compiler
    assert compiler.load(b"key", lambda: {SOURCE!r}).zeta_kernel(None) == 7
    """
    environment = clean_env | {"ZETA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    running = [subprocess.Popen(command, env=environment) for _ in range(16)]
    assert [process.wait(300) for process in running] == [0] * 16
    assert len(libraries(tmp_path / "kernels")) == 1
    assert not list((tmp_path / "kernels").glob("*.tmp"))


def test_fork_after_first_use():
    x = torch.randn(1 << 18)
    expected = activations.exo(x).numpy().tobytes()
    child = os.fork()
    if child == 0:  # no other PyTorch operation: those would wait for threads that are gone
        os._exit(activations.exo(x).numpy().tobytes() != expected)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the forked process hangs")
    assert status == 0


def test_data_loader_workers():
    activations.exo(torch.randn(1 << 18))
    data = torch.utils.data.TensorDataset(torch.randn(8, 1 << 16))
    loader = torch.utils.data.DataLoader(
        data, num_workers=2, collate_fn=lambda rows: activations.exo(rows[0][0])
    )
    for y, (x,) in zip(loader, data, strict=True):
        assert torch.equal(y, activations.exo(x))


def test_many_threads_at_first_use(cache):
    from concurrent.futures import ThreadPoolExecutor

    @formula(k=0.5)
    def fresh(x, k):
        return x * sigmoid(k * x) + 1

    x = torch.randn(50_000)
    expected = evaluate_plain(fresh, x, {"k": 0.5})
    with ThreadPoolExecutor(8) as pool:
        for y in pool.map(lambda _: fresh(x), range(32)):
            torch.testing.assert_close(y, expected)
    assert len(libraries(cache)) == 1


def test_without_pytorchs_threads(monkeypatch):
    x = torch.randn(1 << 17)
    expected = activations.exo(x)
    monkeypatch.setattr(cpu, "parallel_for", 0)
    assert torch.equal(activations.exo(x), expected)


def test_status_tells_what_runs(cache, monkeypatch):
    found = compiler.status()
    assert found.enabled
    assert found.cache_folder == str(cache)
    monkeypatch.setattr(compiler, "find_compiler", lambda: None)
    assert "no C++ compiler" in compiler.status().reason


def test_a_warm_start_needs_neither_sympy_nor_a_compiler(clean_env, tmp_path):
    script = """
    import sys, time, torch
    from zeta import activations
    x = torch.randn(100)
    torch.sigmoid(x)
    start = time.perf_counter()
    activations.exo(x)
    print(time.perf_counter() - start, "sympy" in sys.modules)
    """
    environment = clean_env | {"ZETA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, imported = done.stdout.split()
    assert imported == "False"
    assert float(seconds) < 1  # measured: a few milliseconds


def test_torch_has_the_parallel_loop():
    assert cpu.parallel_for
    assert ctypes.c_void_p(cpu.parallel_for).value
