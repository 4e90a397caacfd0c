"""What Zeta finds on this machine: versions, devices, compiler, kernels, extras."""

import os
import platform
import re
import subprocess
import warnings
from importlib import metadata
from pathlib import Path

from zeta.kernels.compiler import KernelError, disabled, find_compiler, load, status

PACKAGE = "zeta-nn"
FRAMEWORKS = ("torch", "jax", "flax", "keras", "tensorflow")
# Packages that install the same modules.
_SAME_CONTENT = {"tensorflow": ["tensorflow-cpu"], "tensorflow-cpu": ["tensorflow"]}
_VERSION_TIMEOUT = 10  # seconds
RUN = "fused kernels run"
# The features that vectorised kernels can use, narrowest first.
_VECTOR_FEATURES = (
    "sse4_2",
    "avx",
    "f16c",
    "fma",
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)


def environment() -> dict[str, str]:
    """What a result may depend on: versions, operating system, processor; the same every run.

    Example:
        >>> from zeta.doctor import environment
        >>> sorted(environment())[:2]
        ['C++ compiler', 'CPU']
    """
    packages = dict.fromkeys(("numpy", "scipy", "sympy", *FRAMEWORKS, "scikit-learn"))
    return {
        "Zeta": version(PACKAGE) or "not installed as a package",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: found for name in packages if (found := version(name))},
        "operating system": platform.platform(),
        "CPU": cpu_model(),
        "cores": str(os.cpu_count()),
        "vector features": " ".join(vector_features()) or "unknown",
        "C++ compiler": compiler() or "none found",
    }


def diagnose() -> dict[str, dict[str, str]]:
    """Everything that ``zeta doctor`` prints: section -> label -> finding."""
    found = environment()
    found |= {name: "not installed" for name in FRAMEWORKS if name not in found}
    return {
        "Versions and machine": found,
        "Devices": devices(),
        "Kernels": kernels(),
        "Extras": {extra: _extra_state(missing) for extra, missing in extras().items()},
    }


def version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    for name in (package, *_SAME_CONTENT.get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def devices() -> dict[str, str]:
    """The devices that PyTorch can compute on, each with its model."""
    try:
        import torch
    except ImportError as error:
        return {"PyTorch": f"not usable: {error}"}
    found = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    return found


def cpu_model() -> str:
    """The processor's name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def vector_features() -> list[str]:
    """The processor's vector instruction sets, narrowest first; empty where unknown."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return [feature for feature in _VECTOR_FEATURES if feature in flags]


def compiler() -> str | None:
    """The C++ compiler that the kernels use, with its version; None if there is none."""
    path = find_compiler()
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_VERSION_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path}: cannot be run ({error})"
    first_line = answer.stdout.partition("\n")[0].strip()
    return f"{path}: {first_line}"


def kernels() -> dict[str, str]:
    """Whether fused kernels run on processor and GPU, with what, and if not, why."""
    cpu = cpu_kernels()
    found = status()  # after the trial, which may have found the cache unusable
    return {
        "CPU": cpu,
        "CPU launcher": cpu_launcher(),
        "compiler": found.compiler or "none found",
        "cache folder": found.cache_folder,
        "GPU": gpu_kernels(),
    }


def cpu_kernels() -> str:
    """Whether fused kernels run on the processor: `RUN`, or what is amiss."""
    if not status().enabled:
        return f"plain operations: {status().reason}"
    try:
        with warnings.catch_warnings(action="ignore"):  # what is amiss is in the status
            load(None, lambda: 'extern "C" int zeta_kernel() { return 0; }')
    except KernelError as error:
        return f"plain operations: {error}"
    return "; ".join(filter(None, [RUN, status().reason]))


def cpu_launcher() -> str:
    """Whether calls of CPU kernels are launched by C++ or by Python, and what makes it C++."""
    try:
        from zeta.kernels import native
    except ImportError:
        return "none: PyTorch is not installed"
    if native.is_cached():
        return "C++"
    return (
        f"Python; C++ is compiled in the background of a process that makes {native.WORTHWHILE:,} "
        "calls"
    )


def gpu_kernels() -> str:
    """The same of a GPU."""
    try:
        import torch

        from zeta.kernels import build
    except ImportError as error:
        return f"plain operations: {error}"
    if not torch.cuda.is_available():
        return "none: PyTorch finds no CUDA device"
    if disabled():
        return f"plain operations: {status().reason}"
    return RUN if build.has_triton() else "plain operations: Triton is not installed"


def extras() -> dict[str, list[str]]:
    """Extra of the package -> the packages that it asks for and that are not installed."""
    try:
        requirements = metadata.requires(PACKAGE) or []
        names = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {name: [] for name in sorted(names)}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        package = re.match(r"[A-Za-z0-9._-]+", requirement)
        if extra and package and version(package[0]) is None:
            missing[extra[1]].append(package[0])
    return missing


def _extra_state(missing: list[str]) -> str:
    return f"lacks {', '.join(missing)}" if missing else "installed"


def _cpuinfo() -> dict[str, str]:
    """The first processor's entry in Linux's /proc/cpuinfo; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
