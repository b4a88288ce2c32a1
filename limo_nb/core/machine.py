"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not run again. A pointer file names the current key and is
replaced atomically, so that a killed run leaves either the old artefact or the new one.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
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


def peak_memory_gib() -> float:
    """Peak resident memory of this process or of its largest child, in GiB."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


@cache
def provenance() -> dict[str, Any]:
    """Commit, hardware and versions of this process."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=10"],
        capture_output=True, text=True, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "hardware": hardware(),
        "versions": versions,
    }


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
