"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not run again. A pointer file names the current key and is
replaced atomically, so that a killed run leaves either the old artefact or the new one.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import inspect
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from pydantic import BaseModel

from limo_nb import precision, profiles

# Which chapter makes which stage; a missing artefact's message is built from this.
# A name that ends in "/" stands for all stages below it.
CHAPTER_OF = {
    "probe": 2,
    "pool": 3,
    "coarse": 4,
    "fine": 4,
    "questions": 4,
    "chains": 5,
    "rows": 5,
    "models/": 6,
    "decoding": 7,
    "evaluation": 8,
    "ablations": 9,
    "ablations/": 9,
    "claims": 10,
    "sensitivity": 11,
    "beyond/": 12,
}
PACKAGES = ("torch", "transformers", "datasets", "deepspeed", "math-verify", "limo-nb")


class MissingArtifact(FileNotFoundError):
    """An upstream stage has not been run; the message says which command runs it."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage: its folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> Any:
        """The content of JSON file `name` of this stage."""
        return json.loads((self.path / name).read_text())


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A lock on `folder` that one process holds at a time; the others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def runs_root() -> Path:
    """`LIMO_NB_RUNS`, or `runs/` beside the `_toc.yml` above the current folder."""
    if os.environ.get("LIMO_NB_RUNS"):
        return Path(os.environ["LIMO_NB_RUNS"]).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").exists():
            return folder / "runs"
    return here / "runs"


class Run:
    """A profile and the folder of what it made: the first object of every chapter."""

    def __init__(self, profile: str = "mini", overrides: Mapping[str, Any] | None = None):
        self.profile = profiles.load(profile, overrides)
        self.root = runs_root() / self.profile.name
        self.root.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"Run(profile={self.profile.name!r}, root={str(self.root)!r})"

    def load(self, stage: str) -> Artifact:
        """The current artefact of `stage`; raises MissingArtifact with the command."""
        pointer = self.root / stage / "current"
        if pointer.exists():
            folder = self.root / stage / pointer.read_text().strip()
            if (folder / "manifest.json").exists():
                return Artifact(folder, json.loads((folder / "manifest.json").read_text()))
        chapter = _chapter_of(stage)
        raise MissingArtifact(
            f"{self.root / stage} does not exist yet: chapter {chapter} makes it. Run\n"
            f"    limo-nb run --profile {self.profile.name} --until {chapter}"
        )

    def make(
        self,
        stage: str,
        function: Callable[[Path], Any],
        *,
        params: Mapping[str, Any] | BaseModel | None = None,
        inputs: Iterable[Artifact] = (),
    ) -> Artifact:
        """The artefact of `stage`, made by `function(folder)` unless it exists already.

        `params` and `inputs` are what the result depends on besides the code that
        `function` reaches. The folder survives a kill: a function that keeps its work
        there continues from it.
        """
        _chapter_of(stage)
        inputs = list(inputs)
        values = params.model_dump(mode="json") if isinstance(params, BaseModel) else params
        values = json.loads(json.dumps(values or {}, default=_plain))
        facts = {
            "stage": stage,
            "params": values,
            "inputs": {str(a.path.parent.relative_to(self.root)): a.key for a in inputs},
            "code": code_digest(function),
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        home = self.root / stage
        folder = home / key
        if (folder / "manifest.json").exists():
            write_atomic(home / "current", key)
            print(f"{stage}: unchanged, taken from {folder}")
            return self.load(stage)
        resumed = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{stage}: {'continuing' if resumed else 'running'} …", flush=True)
        started = time.time()
        function(folder)
        manifest = {
            "key": key,
            **facts,
            "profile": self.profile.name,
            "resumed": resumed,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 2),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "precision": precision.chosen(),  # what "auto" became, and why
            **provenance(),
        }
        write_json(folder / "manifest.json", manifest)
        write_atomic(home / "current", key)
        _prune(home, keep=key)
        print(f"{stage}: done in {manifest['seconds']:.1f} s")
        return self.load(stage)


def _prune(home: Path, keep: str) -> None:
    """Remove superseded folders of a stage, not the stages that are nested below it."""
    for old in home.iterdir():
        if old.is_dir() and old.name != keep and len(old.name) == 16:
            shutil.rmtree(old, ignore_errors=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)


def _chapter_of(stage: str) -> int:
    for name, chapter in CHAPTER_OF.items():
        if stage == name or (name.endswith("/") and stage.startswith(name)):
            return chapter
    raise ValueError(f"unknown stage {stage!r}: add it to artifacts.CHAPTER_OF")


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
    parts = [f"{model}, {precision.cores()} cores"]
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


# ---------------------------------------------------------------- digests of code
def code_digest(function: Callable) -> str:
    """A digest of `function`'s source and of every `limo_nb` module that it can reach.

    A function of a notebook counts with its own text, the notebook functions that it
    calls, the plain constants that it names, and the modules that its global names come
    from.
    """
    sources: dict[str, str] = {}
    modules: set[str] = set()
    _reach(function, sources, modules)
    for name in sorted(_closure(modules)):
        sources[name] = _source_of(name)
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:16]


def _reach(function: Any, sources: dict[str, str], modules: set[str]) -> None:
    function = inspect.unwrap(getattr(function, "func", function))  # functools.partial
    module = getattr(function, "__module__", "") or ""
    if module.startswith("limo_nb"):
        modules.add(module)
        return
    name = f"{module}:{getattr(function, '__qualname__', repr(function))}"
    if not isinstance(function, FunctionType) or name in sources:
        return
    sources[name] = inspect.getsource(function)
    used = _names(function.__code__)
    captured = inspect.getclosurevars(function).nonlocals
    values = {n: function.__globals__[n] for n in sorted(used) if n in function.__globals__}
    for label, value in (values | captured).items():
        if _is_constant(value):
            sources[f"{name}.{label}"] = repr(value)
        elif isinstance(value, ModuleType):
            if value.__name__.startswith("limo_nb"):
                modules.add(value.__name__)
        elif isinstance(value, FunctionType | type):
            origin = value.__module__ or ""
            if origin.startswith("limo_nb"):
                modules.add(origin)
            elif origin == module and isinstance(value, FunctionType):
                _reach(value, sources, modules)


def _is_constant(value: Any) -> bool:
    """Whether `value` is a plain number, text or collection of these: it counts as code."""
    if isinstance(value, Mapping):
        return all(_is_constant(inner) for pair in value.items() for inner in pair)
    if isinstance(value, list | tuple):
        return all(_is_constant(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)


def _names(code: Any) -> set[str]:
    """Global names used by a code object and the functions nested in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


@cache
def _source_of(module: str) -> str:
    """The text of a module and of its data: `name.yaml` beside `name.py`, and with a
    package's `__init__.py` every YAML file of its folder (profiles are parameters)."""
    spec = sys.modules.get(module)
    path = Path(spec.__file__) if spec and spec.__file__ else _file_of(module)
    data = (
        path.parent.glob("*.yaml") if path.stem == "__init__" else [path.with_suffix(".yaml")]
    )
    return "\n".join(file.read_text() for file in [path, *sorted(data)] if file.exists())


def _file_of(module: str) -> Path:
    base = Path(__file__).parent.parent.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _closure(modules: set[str]) -> set[str]:
    """`modules` and all `limo_nb` modules that they import, directly or not."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or not _file_of(module).exists():
            continue
        seen.add(module)
        waiting += _imports(module)
    return seen


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The `limo_nb` modules that `module` names in its import statements."""
    found = []
    for node in ast.walk(ast.parse(_file_of(module).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(name for name in found if name.startswith("limo_nb"))
