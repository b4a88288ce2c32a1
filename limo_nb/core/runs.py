"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not made again. Who makes a folder holds its lock, so of two
processes that want the same one waits. A pointer file for each set of settings names the
key that was made with them last; it is replaced atomically, so a killed run leaves either
the old artefact or the new one. Nothing is removed here: see `leftovers`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from limo_nb.core import precision, settings
from limo_nb.core.digests import Reached, UnknownCapture, code_digest, description
from limo_nb.core.files import alone, write_atomic, write_json
from limo_nb.core.machine import peak_memory_gib, provenance
from limo_nb.core.syntax import Chain

POINTER = "current-"  # and a digest of the settings


class MissingArtifact(FileNotFoundError):
    """An upstream stage has not been run; the message says which command runs it."""


@dataclass(frozen=True)
class Artifact:
    """A finished stage: its folder and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """16 hexadecimal digits for all that the stage depends on."""
        return self.manifest["key"]

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> Any:
        """The content of JSON file `name` of this stage."""
        return json.loads((self.path / name).read_text())


def book_root(start: Path | None = None) -> Path | None:
    """The folder with `_toc.yml` at or above `start` (the current folder)."""
    here = (start or Path.cwd()).resolve()
    return next((own for own in (here, *here.parents) if (own / "_toc.yml").exists()), None)


def runs_root(root: Path | None = None) -> Path:
    """`LIMO_NB_RUNS`, or `runs/` in the book's `root` (that above the current folder)."""
    beside = root or book_root() or Path.cwd()
    return Path(os.environ.get("LIMO_NB_RUNS") or beside / "runs").resolve()


class Run:
    """A profile and the folder of what it made: the first object of every chapter."""

    def __init__(
        self, profile: str = "mini", overrides: Mapping[str, Any] | None = None
    ) -> None:
        self.profile = settings.load_profile(profile, overrides)
        self.root = runs_root() / self.profile.name
        self.root.mkdir(parents=True, exist_ok=True)
        self._settings = self.profile.model_dump(mode="json", exclude={"purpose"})
        self._inputs: frozenset[Path] | None = None  # of the stage that is being made
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"Run(profile={self.profile.name!r}, root={str(self.root)!r})"

    @property
    def pointer(self) -> str:
        """The name of the files that say what was made with these settings."""
        return POINTER + _digest(self._settings)[:8]

    def load(self, stage: str) -> Artifact:
        """The artefact of `stage` that was made with this profile and these overrides.

        Where there is none, the newest of other settings, and a line on stderr that names
        what differs. Raises MissingArtifact with the command, and ValueError where a stage
        is being made that does not have `stage` among its inputs.
        """
        artefact, differs = self.find(stage)
        if artefact is None:
            chapter = chapter_of(stage)
            raise MissingArtifact(
                f"{self.root / stage} does not exist yet: chapter {chapter} makes it. Run\n"
                f"    limo-nb run --profile {self.profile.name} --until {chapter}"
            )
        if self._inputs is not None and artefact.path not in self._inputs:
            raise ValueError(
                f"{stage} is read by a stage that is being made, and is not among its inputs: "
                f"add it there"
            )
        if differs and stage not in self._told:
            self._told.add(stage)
            print(
                f"{stage}: not made with these settings yet; taken from {artefact.path}, "
                f"made with {differs}",
                file=sys.stderr,
            )
        return artefact

    def find(self, stage: str) -> tuple[Artifact | None, str]:
        """What `load` gives, or None; and in which settings it differs from this run's."""
        home = self.root / stage
        others = {path: path.stat().st_mtime_ns for path in home.glob(f"{POINTER}*")}
        newest = sorted(others, key=others.__getitem__, reverse=True)
        for pointer in (home / self.pointer, *newest):
            made = json.loads(pointer.read_text()) if pointer.exists() else {}
            manifest = home / made.get("key", "") / "manifest.json"
            if made and manifest.exists():
                artefact = Artifact(manifest.parent, json.loads(manifest.read_text()))
                return artefact, _differences(made["settings"], self._settings)
        return None, ""

    def stages(self) -> list[tuple[int, str, Artifact | None]]:
        """(chapter, stage, its artefact or None) of every stage, in the book's order."""
        found = []
        for name, facts in stage_facts().items():
            below = sorted(self.root.glob(f"{name}**/{POINTER}*")) if name[-1] == "/" else []
            own = [str(path.parent.relative_to(self.root)) for path in below] or [name]
            found += [(facts["chapter"], own, self.find(own)[0]) for own in dict.fromkeys(own)]
        return found

    def make(
        self,
        stage: str,
        function: Callable[..., Any],
        *,
        params: Mapping[str, Any] | BaseModel | None = None,
        inputs: Iterable[Artifact] = (),
        reads: Iterable[str] = (),
    ) -> Artifact:
        """The artefact of `stage`, made by `function(folder)` unless it exists already.

        `params`, `inputs` and the sections of the profile that it `reads` are what the
        result depends on besides the code that `function` reaches and the values that it
        captures (`digests`). A function of two parameters is called with the folder and a
        profile that has these sections alone (`Profile.only`), so that it cannot read one
        that it did not declare. The folder survives a kill: a function that keeps its work
        there continues from it. Raises ValueError for a captured value that cannot be
        described, or an artefact that is not among the inputs.
        """
        chapter_of(stage)
        inputs, part = list(inputs), self.profile.only(*reads)
        facts = {
            "stage": stage,
            "params": _as_json(params),
            "reads": part.model_dump(mode="json"),
            "inputs": {str(a.path.parent.relative_to(self.root)): a.key for a in inputs},
            "code": self._code(stage, function, inputs, declared=bool(part.model_fields_set)),
        }
        key = _digest(facts)[:16]
        folder = self.root / stage / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"{stage}: another process is making it; waiting for it to end …"
        with alone(lock_of(folder), waiting):
            if (folder / "manifest.json").exists():
                print(f"{stage}: unchanged, taken from {folder}")
            else:
                wanted = inspect.signature(function).parameters.values()
                takes = sum(own.default is own.empty for own in wanted)
                self._work(
                    folder, lambda: function(*(folder, part)[:takes]), key, facts, inputs
                )
            pointed = {"key": key, "settings": self._settings}
            write_atomic(folder.parent / self.pointer, json.dumps(pointed))
        return Artifact(folder, json.loads((folder / "manifest.json").read_text()))

    def _code(
        self, stage: str, function: Callable, inputs: Iterable[Artifact], declared: bool
    ) -> str:
        paths = tuple(artefact.path for artefact in inputs)
        try:
            return code_digest(function, Reached(str(self.root), paths, declared))
        except UnknownCapture as error:
            raise UnknownCapture(f"{stage}: {error}") from None

    def _work(
        self,
        folder: Path,
        function: Callable[[], Any],
        key: str,
        facts: Mapping[str, Any],
        inputs: Iterable[Artifact],
    ) -> None:
        """Call `function` and write the manifest of `folder`."""
        made_by, resumed = provenance(), folder.exists()  # before: it must not fail after
        folder.mkdir(exist_ok=True)
        stage = facts["stage"]
        print(f"{stage}: {'continuing' if resumed else 'running'} …", flush=True)
        started = time.time()
        before, self._inputs = self._inputs, frozenset(artefact.path for artefact in inputs)
        try:
            function()
        finally:
            self._inputs = before
        manifest = {
            "key": key,
            **facts,
            "profile": self.profile.name,
            "resumed": resumed,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.time() - started, 2),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "precision": precision.chosen(),  # what "auto" became, and why
            **made_by,
        }
        write_json(folder / "manifest.json", manifest)
        print(f"{stage}: done in {manifest['seconds']:.1f} s")


def lock_of(folder: Path) -> Path:
    """The lock file that whoever works in the folder of a stage holds."""
    return folder.with_name(f".{folder.name}.lock")


@cache
def stage_facts() -> dict[str, dict[str, Any]]:
    """The stages of `stages.yaml`, in the book's order: `chapter` and what each `holds`."""
    return yaml.safe_load(Path(__file__).with_name("stages.yaml").read_text("utf-8"))


def chapter_of(stage: str) -> int:
    """The chapter that makes `stage`; raises ValueError for one that nobody knows."""
    for name, facts in stage_facts().items():
        if stage == name or (name.endswith("/") and stage.startswith(name)):
            return facts["chapter"]
    raise ValueError(f"unknown stage {stage!r}: add it to limo_nb/core/stages.yaml")


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _as_json(params: Mapping[str, Any] | BaseModel | None) -> Any:
    return json.loads(json.dumps(params or {}, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """What differs between two settings: "pool.size=300 (here 900)"; "" if nothing does."""
    theirs, ours = _flat(theirs), _flat(ours)
    told = [
        f"{name}={theirs.get(name)} (here {ours.get(name)})"
        for name in dict.fromkeys([*ours, *theirs])
        if theirs.get(name) != ours.get(name)
    ]
    return ", ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else key)
    return found


# ---------------------------------------------------------------- in digests of code
@description.register
def _artifact(value: Artifact, reached: Reached, used: frozenset[Chain]) -> Any:
    """Its key; it has to be an input, so that the manifest names it."""
    if reached.inputs is not None and value.path not in reached.inputs:
        raise UnknownCapture(
            f"{reached.where} is the artefact {value.path}: add it to `inputs`"
        )
    return value.key


@description.register
def _run(value: Run, reached: Reached, used: frozenset[Chain]) -> Any:
    """What is read of its profile; what it loads has to be among the inputs (`Run.load`)."""
    chains = frozenset(chain[1:] for chain in used if chain[:1] in ((), ("profile",)))
    return description(value.profile, reached, chains)
