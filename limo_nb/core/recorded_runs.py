"""A run that was made elsewhere, kept without texts: `records/NAME/` (chapters 1 to 10).

A record holds what the tables, pictures and verdicts of a run need, and no more: every
stage's manifest, its JSON files, and its tables without the columns that hold texts, since
problems belong to their authors and answers quote them. `RecordedRun.load` gives a stage of
it as `Run.load` gives one that was made here, so the same code draws both.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from limo_nb.core.files import alone, write_atomic, write_json
from limo_nb.core.precision import machine_flops
from limo_nb.core.runs import Artifact, MissingArtifact, Run, book_root
from limo_nb.core.settings import Profile

# Columns of words that name something. Every other column of strings may quote a problem.
NAMES = frozenset(
    "id question_id benchmark subject source model format group counterpart teacher".split()
)
# What a training run leaves beside its weights: losses, settings and their effects.
COPIED = ("*.json", "log.jsonl")
# The folders of an absolute path, where a JSON string or the value of an override begins.
PLACE = re.compile(r"""(?<=["=])/[^"'#]*/""")
LEFT_OUT = re.compile(r"job\.json|.*\.partial")  # a job names places of its machine
MOST_BYTES = 8 * 2**20  # of a record; it is committed


class RecordedRun:
    """The record `name`: its facts, and its stages as artefacts."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        """Raises FileNotFoundError, naming the records that there are, for an unknown one."""
        self.name, self.home = name, records_root(root) / name
        if not (self.home / "record.json").exists():
            known = ", ".join(recorded_names(root)) or "none"
            raise FileNotFoundError(
                f"no record {name!r} in {self.home.parent}; there are: {known}. "
                f"`limo-nb record {name} --profile PROFILE` makes one of a run"
            )
        self.facts: dict[str, Any] = json.loads((self.home / "record.json").read_text("utf-8"))

    def __repr__(self) -> str:
        return f"RecordedRun({self.name!r}, root={str(self.home)!r})"

    def load(self, stage: str) -> Artifact:
        """The artefact of `stage`, its tables without texts; raises MissingArtifact."""
        manifest = self.home / stage / "manifest.json"
        if not manifest.exists():
            known = ", ".join(self.facts["stages"])
            raise MissingArtifact(f"the record {self.name} has no {stage}; it has {known}")
        return Artifact(manifest.parent, json.loads(manifest.read_text("utf-8")))

    def has(self, *stages: str) -> bool:
        """Whether the run had come so far."""
        return all(stage in self.facts["stages"] for stage in stages)

    @property
    def hours_here(self) -> float:
        """The run's hours at the speed of this machine's cores, by the same short product."""
        return self.facts["hours"] * self.facts["gflops"] * 1e9 / machine_flops()

    @property
    def told(self) -> str:
        """One line for a reader: what ran, where, when, and how it is made again."""
        facts = self.facts
        return (
            f"recorded {facts['finished'][:10]} on {facts['hardware']}, "
            f"{facts['hours']:.1f} hours, commit {facts['commit']}; made again by: "
            f"{facts['command']}"
        )


AnyRun = Run | RecordedRun  # both give stages by `load`


def records_root(root: Path | None = None) -> Path:
    """`records/` of the book at `root` (that at or above the current folder)."""
    return (root or book_root() or Path.cwd()) / "records"


def recorded_names(root: Path | None = None) -> list[str]:
    """The records that the book at `root` has."""
    return sorted(path.parent.name for path in records_root(root).glob("*/record.json"))


def record_run(
    run: Run, name: str, overrides: Sequence[str] = (), root: Path | None = None,
    hours: float | None = None, add: bool = False,
) -> RecordedRun:  # fmt: skip
    """Keep what `run` has made as the record `name`, in the place of an earlier one.

    With `add`, stages that the earlier record has and the run has not made are kept: a long
    run may spread over several machines. Only stages made with the run's own settings are
    taken; `overrides` ("KEY=VALUE") are
    those that it was made with, for the command that makes it again; `hours` are those of a
    run that was interrupted, where a stage's seconds tell of its last process only. Whole or
    not at all: the record is built beside its place. Raises MissingArtifact where there is no
    stage, and ValueError where the record would have more than MOST_BYTES.
    """
    made = dict(_own_stages(run))
    if not made:
        raise MissingArtifact(
            f"{run.root} has no stage made with these settings: `limo-nb run --profile "
            f"{run.profile.name}` makes them; give --override as there"
        )
    home = records_root(root) / name
    home.parent.mkdir(parents=True, exist_ok=True)
    partial = home.with_name(f".{name}.partial")
    with alone(home.with_name(f".{name}.lock")):
        shutil.rmtree(partial, ignore_errors=True)
        for stage, artefact in made.items():
            _copy_stage(artefact, partial / stage)
        if add:
            made |= _kept_stages(run, RecordedRun(name, root), made, partial)
        facts = json.dumps(_facts(run, name, made, overrides, hours))
        write_json(partial / "record.json", json.loads(_without_places(facts)))
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        if size > MOST_BYTES:
            raise ValueError(
                f"the record would have {size / 2**20:.1f} MiB, more than "
                f"{MOST_BYTES / 2**20:.0f}: it is left in {partial} to be looked at"
            )
        shutil.rmtree(home, ignore_errors=True)
        partial.rename(home)
    return RecordedRun(name, root)


def _own_stages(run: Run) -> Iterator[tuple[str, Artifact]]:
    for _, stage, artefact in run.stages():
        if artefact is not None and not run.find(stage)[1]:
            yield stage, artefact


def _kept_stages(
    run: Run, earlier: RecordedRun, made: Mapping[str, Artifact], partial: Path
) -> dict[str, Artifact]:
    """Copy into `partial` the stages that the earlier record alone has.

    Raises ValueError where it is of another profile.
    """
    # Read as a profile, for settings that are newer than the record have their defaults.
    known = Profile.model_validate(earlier.facts["profile"])
    if json.loads(known.model_dump_json()) != _profile(run):
        raise ValueError(
            f"the record {earlier.name} was made with other settings than these: leave out "
            "--add to replace it, or give the overrides that it was made with"
        )
    kept = {name: earlier.load(name) for name in earlier.facts["stages"] if name not in made}
    keys = {name: artefact.key for name, artefact in {**kept, **made}.items()}
    for name, artefact in kept.items():
        stale = [
            stage for stage, key in artefact.manifest["inputs"].items()
            if keys.get(stage, key) != key
        ]  # fmt: skip
        if stale:
            print(f"{name} of the record was made from another {', '.join(stale)}")
        every = earlier.facts["stages"]
        below = {other.split("/", 1)[1] for other in every if other.startswith(f"{name}/")}
        ignored = shutil.ignore_patterns(*below) if below else None
        shutil.copytree(artefact.path, partial / name, dirs_exist_ok=True, ignore=ignored)
    return kept


def _profile(run: Run) -> dict[str, Any]:
    """The profile as a record has it: without places of this machine."""
    return json.loads(_without_places(run.profile.model_dump_json()))


def _copy_stage(artefact: Artifact, home: Path) -> None:
    """The manifest, the JSON files and the tables of a stage, without texts."""
    home.mkdir(parents=True)
    for path in sorted(artefact.path.rglob("*")):
        below = path.relative_to(artefact.path)
        hidden = any(part.startswith(".") for part in below.parts)
        # A saved model's own files say nothing that the manifest does not.
        if hidden or "model" in below.parts or LEFT_OUT.fullmatch(path.name):
            continue
        target = home / below
        if path.suffix == ".parquet":
            target.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(_without_texts(parquet.read_table(path)), target)
        elif any(path.match(pattern) for pattern in COPIED):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, _without_places(path.read_text("utf-8")))


def _without_texts(table: pa.Table) -> pa.Table:
    """The columns of numbers and of names; a grader's reasons quote answers, a filter's not."""
    reasons = {"reason"} if "text" not in table.column_names else set()
    kept = [
        field.name
        for field in table.schema
        if field.name in NAMES | reasons or not _holds_strings(field.type)
    ]
    # The schema's metadata repeats the names of the columns that were left out.
    return table.select(kept).replace_schema_metadata(None)


def _without_places(text: str) -> str:
    """`text` (JSON) with the last part alone of every path of this machine."""
    return PLACE.sub("", text)


def _holds_strings(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_strings(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _facts(
    run: Run,
    name: str,
    made: Mapping[str, Artifact],
    overrides: Sequence[str],
    hours: float | None,
) -> dict[str, Any]:
    """What `record.json` says of the run as a whole."""
    manifests = {stage: artefact.manifest for stage, artefact in made.items()}

    def every(fact: str) -> str:
        return "; ".join(dict.fromkeys(str(own[fact]) for own in manifests.values()))

    told = "".join(f" --override '{pair}'" for pair in overrides)
    return {
        "name": name,
        "profile": json.loads(run.profile.model_dump_json()),
        "overrides": list(overrides),
        "command": f"limo-nb run --profile {run.profile.name}{told}",
        "hardware": every("hardware"),
        "gflops": round(machine_flops() / 1e9),
        "commit": every("commit"),
        "versions": next(iter(manifests.values()))["versions"],
        "started": min(own["started"] for own in manifests.values()),
        "finished": max(own["started"] for own in manifests.values()),
        "hours": round(hours or sum(own["seconds"] for own in manifests.values()) / 3600, 2),
        "peak_memory_gib": max(own["peak_memory_gib"] for own in manifests.values()),
        "stages": list(made),
    }
