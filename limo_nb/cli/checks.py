"""What this machine has, and which profiles it can run."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from limo_nb.core import (
    memory,
    precision,
    recorded_runs,
    settings,
)

PACKAGES = ("torch", "transformers", "datasets", "deepspeed", "math-verify", "papermill")
# What some profiles use, and the command that installs it.
OPTIONAL = {
    "vllm": (
        "the vllm engine (profiles for a GPU)",
        "conda env create -f environment-gpu.yml (on a CPU: make test-vllm)",
    ),
    "openai": (
        "the openai engine (any server of its protocol)",
        "pip install 'limo-nb[openai]'",
    ),
    "gguf": (
        "GGUF files, llama.cpp's format of quantised models",
        "pip install 'limo-nb[gguf]'",
    ),
    "xllamacpp": (
        "the llamacpp engine (quantised models on a CPU)",
        "pip install 'limo-nb[llamacpp]'",
    ),
    "ray": (
        "the ray engine (Ray Data over any engine, on a cluster)",
        "pip install 'limo-nb[ray]'",
    ),
    "flash_attn": (
        "FlashAttention-2 in fine-tuning on a GPU; without it PyTorch's own kernels",
        "pip install flash-attn --no-build-isolation",
    ),
    "liger_kernel": (
        "fused kernels in fine-tuning on a GPU (sft.liger)",
        "pip install liger-kernel",
    ),
}
PROGRAMS = {
    "g++": ("DeepSpeed's C++ operations", "conda install -c conda-forge cxx-compiler"),
    "npm": (
        "fetches MathJax once, for `limo-nb render`",
        "conda install -c conda-forge nodejs",
    ),
    "git": ("names the commit of a run", "conda install -c conda-forge git"),
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked for, what was found, what would mend it."""

    what: str
    found: str
    ok: bool = True
    remedy: str = ""


def machine() -> list[Finding]:
    """Python, processor, memory and accelerators."""
    from limo_nb.core.machine import hardware

    current = f"{platform.python_version()} ({sys.executable})"
    fits = sys.version_info >= (3, 11)
    return [
        Finding(
            "Python", current, fits, "" if fits else "install Python 3.11, then `make env`"
        ),
        Finding("machine", hardware()),
        *memory_findings(),
        Finding("precision", f"auto is {precision.settle('auto')}"),
        Finding("data", os.environ.get("LIMO_NB_DATA") or "LIMO_NB_DATA is not set: lab only"),
    ]


# What is asked of the memory: rows of so many tokens, as in the profile for one GPU's models.
ASKED_TOKENS = 1024


def memory_findings() -> list[Finding]:
    """Memory, and the largest known model that decodes here, and that can be fine-tuned."""
    from limo_nb.sft import fit

    there = memory.free_memory()
    decodes, trains = fit.largest_that_fit(ASKED_TOKENS)
    named = "no model that the planner knows"
    return [
        Finding("memory", str(there)),
        Finding(f"decodes at {ASKED_TOKENS:,} tokens, up to", decodes or named),
        Finding(f"fine-tunes at {ASKED_TOKENS:,} tokens, up to", trains or named),
    ]


def software() -> list[Finding]:
    """Packages that every profile needs, then those that some need, then programs."""
    rows = []
    for name in PACKAGES:
        try:
            rows.append(Finding(name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            rows.append(Finding(name, "absent", False, "make env"))
    for name, (use, command) in OPTIONAL.items():
        found = _version(name)
        rows.append(Finding(name, found or f"absent: {use}", True, "" if found else command))
    for name, (use, command) in PROGRAMS.items():
        found = shutil.which(name) or ""
        rows.append(Finding(name, found or f"absent: {use}", True, "" if found else command))
    return rows


def _version(module: str) -> str:
    """The version of an importable module's distribution, whatever that is called."""
    if importlib.util.find_spec(module) is None:
        return ""
    names = metadata.packages_distributions().get(module) or [module]
    return metadata.version(names[0])


def lab_models() -> list[Finding]:
    """The shipped models, each checked against its recorded digest."""
    from limo_nb import lab

    sound = lab.verify()
    rows = []
    for name in lab.recipes():
        ok = sound.get(name, False)
        found = "absent" if name not in sound else "as recorded" if ok else "changed"
        if name in sound:
            found += f", sha256 {lab.digest(lab.model_path(name))[:16]}"
        rows.append(Finding(f"lab:{name}", found, ok, f"limo-nb lab pretrain {name}"))
    return rows


def profile_findings() -> list[Finding]:
    """Which profiles this machine can run, and what the others lack."""
    rows = []
    for name in settings.profile_names():
        lacks, remedy = missing(settings.load_profile(name))
        rows.append(Finding(f"profile {name}", lacks or _can_run(name), not lacks, remedy))
    return rows


def _can_run(name: str) -> str:
    """That profile `name` can run, and how long it would take where a record tells."""
    if name not in recorded_runs.recorded_names():
        return "can run"
    record = recorded_runs.RecordedRun(name)
    return (
        f"can run, in about {record.hours_here:.1f} hours on these cores "
        f"({record.facts['hours']:.1f} were recorded on {record.facts['hardware']})"
    )


def missing(profile: settings.Profile) -> tuple[str, str]:
    """What `profile` needs and this machine lacks, and the command for it; empty if nothing."""
    import torch

    if profile.engine.kind == "vllm" and importlib.util.find_spec("vllm") is None:
        return "vllm is not installed", "conda env create -f environment-gpu.yml"
    cuda = profile.engine.kind == "vllm"
    if cuda and not torch.cuda.is_available():
        return "no GPU", f"run it where there is one: limo-nb run --profile {profile.name}"
    wanted = profile.sft.ranks
    if torch.cuda.is_available() and cuda and torch.cuda.device_count() < wanted:
        have = torch.cuda.device_count()
        return f"{wanted} GPUs wanted, {have} there", f"--override sft.ranks={have}"
    for role, model in profile.models:
        lacks, remedy = _missing_model(role, model)
        if lacks:
            return lacks, remedy
    return "", ""


def _missing_model(role: str, model: str) -> tuple[str, str]:
    """The same for one model: lab models and folders can be looked for, Hub ids cannot."""
    from limo_nb import lab

    name = model.removeprefix("lab:")
    try:
        if name != model:
            lab.model_path(name)
    except (FileNotFoundError, ValueError):
        return f"{role} model {model} has no weights", f"limo-nb lab pretrain {name}"
    path = Path(model.partition("#")[0])
    if path.is_absolute() and not path.exists():
        return f"{role} model {model} does not exist", f"--override models.{role}=…"
    return "", ""
