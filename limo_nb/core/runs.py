"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not run again. A pointer file names the current key and is
replaced atomically, so that a killed run leaves either the old artefact or the new one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from limo_nb.core import (
    precision,
    settings,
)
from limo_nb.core.digests import code_digest
from limo_nb.core.files import write_atomic, write_json
from limo_nb.core.machine import peak_memory_gib, provenance

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
        self.profile = settings.load_profile(profile, overrides)
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
        function: Callable[..., Any],
        *,
        params: Mapping[str, Any] | BaseModel | None = None,
        inputs: Iterable[Artifact] = (),
        reads: Iterable[str] = (),
    ) -> Artifact:
        """The artefact of `stage`, made by `function(folder)` unless it exists already.

        `params`, `inputs` and the sections of the profile that it `reads` are what the
        result depends on besides the code that `function` reaches. A function of two
        parameters is called with the folder and a profile that has these sections alone
        (`Profile.only`), so that it cannot read one that it did not declare. The folder
        survives a kill: a function that keeps its work there continues from it.
        """
        _chapter_of(stage)
        inputs = list(inputs)
        values = params.model_dump(mode="json") if isinstance(params, BaseModel) else params
        values = json.loads(json.dumps(values or {}, default=_plain))
        part = self.profile.only(*reads)
        facts = {
            "stage": stage,
            "params": values,
            "reads": part.model_dump(mode="json"),
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
        wanted = inspect.signature(function).parameters.values()
        function(*(folder, part)[: sum(own.default is own.empty for own in wanted)])
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
