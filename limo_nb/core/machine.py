"""The machine and this process: cores, memory, accelerators, versions, the commit.

What a manifest says about where a stage was made.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "datasets", "deepspeed", "math-verify", "limo-nb")

# Environment variables of a process that is one of several: one thread, which sleeps while
# it waits. Two processes that each spin on every core are many times slower than one.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for this process and for those that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def peak_memory_gib() -> float:
    """Peak resident memory of this process or of its largest child, in GiB.

    Not a number where the system does not count it so (Windows).
    """
    try:
        import resource
    except ImportError:
        return float("nan")
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / unit


@cache
def provenance() -> dict[str, Any]:
    """Commit, hardware and versions of this process; asked once, and never an error."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "hardware": hardware(),
        "versions": versions,
    }


def _commit() -> str:
    """The commit of this code; "unknown" without git, or outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    told = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    return told.stdout.strip() or "unknown"


def hardware() -> str:
    """One line about this machine: processor, cores, memory, accelerators."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    parts = [f"{model}, {cores()} cores"]
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        parts.append(f"{memory:.0f} GiB")
    return ", ".join([*parts, _accelerators()])


def _accelerators() -> str:
    """What CUDA sees; torch is not loaded (seconds) where no device file says there is one."""
    devices = ("/dev/nvidia0", "/dev/dxg", "/dev/kfd")
    if "torch" not in sys.modules and not any(Path(device).exists() for device in devices):
        return "no GPU"
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
