"""Stages: run once, atomic under kills, keyed by parameters, inputs and reached code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from limo_nb import Run
from limo_nb.core import (
    files,
    machine,
    runs,
)
from limo_nb.core.digests import code_digest
from limo_nb.core.files import write_json
from limo_nb.core.runs import MissingArtifact
from limo_nb.core.settings import Profile

LIMIT = 3


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    return Run("smoke")


def count(folder: Path) -> None:
    """Write the result, and one file beside the stage for each call."""
    calls = folder.parents[1] / "calls"
    calls.mkdir(exist_ok=True)
    (calls / str(len(list(calls.iterdir())))).touch()
    write_json(folder / "result.json", LIMIT)


def calls(run: Run) -> int:
    return len(list((run.root / "calls").iterdir()))


# ---------------------------------------------------------------- stages
def test_stage_is_made_once(run: Run, capsys: pytest.CaptureFixture) -> None:
    first = run.make("pool", count, params={"size": 1})
    again = run.make("pool", count, params={"size": 1})
    assert first == again == run.load("pool") and calls(run) == 1
    assert first.json("result.json") == LIMIT
    printed = capsys.readouterr().out
    assert "pool: running" in printed and "pool: done in" in printed
    assert "pool: unchanged, taken from" in printed


def test_manifest_says_what_made_it(run: Run) -> None:
    pool = run.make("pool", count, params=run.profile.pool)
    manifest = run.make("coarse", count, inputs=[pool]).manifest
    assert manifest["inputs"] == {"pool": pool.key} and manifest["resumed"] is False
    assert pool.manifest["params"]["source"] == "lab" and pool.manifest["profile"] == "smoke"
    for name in ("commit", "hardware", "python", "versions", "seconds", "started", "code"):
        assert manifest[name] is not None
    assert 0 < manifest["peak_memory_gib"] < 64


def test_changed_parameters_or_inputs_make_it_again_and_replace_it(run: Run) -> None:
    old = run.make("pool", count, params={"size": 1})
    later = run.make("coarse", count, inputs=[old])
    new = run.make("pool", count, params={"size": 2})
    assert new.key != old.key and not old.path.exists() and run.load("pool") == new
    assert run.make("coarse", count, inputs=[new]).key != later.key and calls(run) == 4


def test_a_stage_is_keyed_by_the_sections_it_reads_and_gets_no_other(run: Run) -> None:
    def make(folder: Path, profile: Profile) -> None:
        write_json(folder / "seen.json", profile.coarse.keep)
        with pytest.raises(AttributeError, match="'pool' of the profile was not declared"):
            profile.pool  # noqa: B018

    first = run.make("coarse", make, reads=("coarse", "engine"))
    assert first.json("seen.json") == list(run.profile.coarse.keep)
    assert first.manifest["reads"] == run.profile.model_dump(
        mode="json", include={"coarse", "engine"}
    )
    for overrides, same in (({"pool.size": 7}, True), ({"coarse.keep": [0, 1]}, False)):
        again = Run("smoke", overrides).make("coarse", make, reads=("coarse", "engine"))
        assert (again.key == first.key) is same
    with pytest.raises(ValueError, match="no section 'coarser'; there are name"):
        run.make("coarse", make, reads=["coarser"])


def test_nested_stages_live_side_by_side(run: Run) -> None:
    one = run.make("models/limo", count, params={"seed": 1})
    two = run.make("models/random", count, params={"seed": 1})
    run.make("models/limo", count, params={"seed": 2})
    assert not one.path.exists() and two.path.exists()


def test_failure_leaves_the_old_artefact_and_the_next_call_continues(run: Run) -> None:
    old = run.make("pool", count)

    def half(folder: Path) -> None:
        done = len(list(folder.glob("part-*")))
        (folder / f"part-{done}").touch()
        if done == 0:
            raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        run.make("pool", half)
    assert run.load("pool") == old and old.path.exists()
    new = run.make("pool", half)
    assert sorted(p.name for p in new.path.glob("part-*")) == ["part-0", "part-1"]
    assert new.manifest["resumed"] is True and not old.path.exists()


@pytest.mark.parametrize(
    ("stage", "chapter"),
    [("probe", 2), ("pool", 3), ("rows", 5), ("models/limo", 6), ("evaluation", 8)],
)
def test_missing_artefact_names_the_command(run: Run, stage: str, chapter: int) -> None:
    with pytest.raises(MissingArtifact, match="does not exist yet") as caught:
        run.load(stage)
    assert f"chapter {chapter} makes it" in str(caught.value)
    assert f"limo-nb run --profile smoke --until {chapter}" in str(caught.value)


@pytest.mark.parametrize("stage", ["pools", "models", "coarse/deep"])
def test_unknown_stage_is_refused(run: Run, stage: str) -> None:
    with pytest.raises(ValueError, match="unknown stage"):
        run.make(stage, count)


def test_runs_lie_beside_the_toc_wherever_one_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("LIMO_NB_RUNS", raising=False)
    (tmp_path / "_toc.yml").touch()
    (tmp_path / "book" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "book" / "deep")
    assert runs.runs_root() == tmp_path / "runs"
    monkeypatch.setenv("LIMO_NB_RUNS", "elsewhere")
    assert runs.runs_root() == tmp_path / "book" / "deep" / "elsewhere"


# ---------------------------------------------------------------- kills
KILLED = """\
import os, signal
from limo_nb import Run, artifacts

def make(folder):
    for n in range(4):
        part = folder / f"part-{n}"
        if not part.exists():
            with (folder.parents[1] / "journal").open("a") as file:
                file.write(f"{n}\\n")
            artifacts.write_atomic(part, str(n))
        if n == 1:
            die("inside")

def die(place):
    if os.environ["DIE"] == place:
        os.kill(os.getpid(), signal.SIGKILL)

plain = artifacts.write_atomic

def watched(path, text):
    if path.name == "manifest.json":
        die("before the manifest")
    if path.name == "current":
        die("before the pointer")
    plain(path, text)
    if path.name == "current":
        die("after the pointer")

artifacts.write_atomic = watched
Run("smoke").make("pool", make, params={"version": int(os.environ["VERSION"])})
"""


@pytest.mark.parametrize(
    ("place", "printed"),
    [
        ("inside", "continuing"),
        ("before the manifest", "continuing"),
        ("before the pointer", "unchanged"),
        ("after the pointer", "unchanged"),
    ],
)
def test_kill_leaves_old_or_new_and_the_next_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, printed: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED)

    def go(die: str, version: int) -> subprocess.CompletedProcess:
        places = {"LIMO_NB_RUNS": str(tmp_path / "runs"), "DIE": die, "VERSION": str(version)}
        command, environment = [sys.executable, script], {**os.environ, **places}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert go("never", 1).returncode == 0
    killed = go(place, 2)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    left = Run("smoke").load("pool")
    assert left.manifest["params"]["version"] == (2 if place == "after the pointer" else 1)
    assert [(left / f"part-{n}").read_text() for n in range(4)] == ["0", "1", "2", "3"]

    finished = go("never", 2)
    assert finished.returncode == 0 and f"pool: {printed}" in finished.stdout
    assert Run("smoke").load("pool").manifest["params"]["version"] == 2
    journal = (tmp_path / "runs" / "smoke" / "journal").read_text().split()
    assert journal == ["0", "1", "2", "3"] * 2, "finished parts were made again"
    assert not list((tmp_path / "runs").rglob("*.partial"))


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": Path("x"), "ü": 2})
    assert json.loads(path.read_text()) == {"b": "x", "ü": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


# ---------------------------------------------------------------- digests of code
MODULES = {
    "reached": "from limo_nb.inner import value\n",
    "inner": "value = 1\n",
    "inner.yaml": "word: 1\n",
    "other": "value = 2\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with four small modules more; its folder."""
    home = tmp_path / "limo_nb"
    home.mkdir()
    source = Path(files.__file__).parent
    for name in ("__init__.py", "artifacts.py", "profiles.py"):
        (home / name).write_text((source / name).read_text())
    for name, text in MODULES.items():
        (home / (name if "." in name else f"{name}.py")).write_text(text)
    return home


def digest(package: Path, code: str) -> str:
    """The digest of function `f` of a script with `code`, in a fresh process."""
    script = package.parent / "script.py"
    script.write_text(textwrap.dedent(code) + "\nfrom limo_nb.core.runs import code_digest\n"
                      "print(code_digest(f))\n")  # fmt: skip
    command = [sys.executable, script]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NOTEBOOK = """
    from limo_nb import reached

    FACTOR = 2

    def helper(x):
        return FACTOR * x

    def f(folder):
        return helper(reached.value)
"""


@pytest.mark.parametrize(
    ("edited", "changes"),
    [
        ("reached.py", True),
        ("inner.py", True),  # imported by what is reached
        ("inner.yaml", True),  # the data beside it
        ("other.py", False),
    ],
)
def test_digest_follows_edits_of_reached_modules_only(
    package: Path, edited: str, changes: bool
) -> None:
    before = digest(package, NOTEBOOK)
    assert before == digest(package, NOTEBOOK)
    path = package / edited
    path.write_text(path.read_text() + "# edited\n")
    assert (digest(package, NOTEBOOK) != before) is changes


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("return helper(reached.value)", "return -helper(reached.value)", True),
        ("return FACTOR * x", "return x * FACTOR", True),
        ("FACTOR = 2", "FACTOR = 3", True),
        ("FACTOR = 2", "FACTOR = 2\n    UNUSED = 1", False),
    ],
)
def test_digest_follows_edits_in_the_notebook(
    package: Path, old: str, new: str, changes: bool
) -> None:
    assert old in NOTEBOOK
    before = digest(package, NOTEBOOK)
    assert (digest(package, NOTEBOOK.replace(old, new)) != before) is changes


def test_digest_sees_through_partials_and_closures() -> None:
    from functools import partial

    def outer(limit: int):
        return lambda folder: limit

    assert code_digest(outer(1)) != code_digest(outer(2))
    assert code_digest(partial(count)) == code_digest(count)


def test_hardware_names_processor_cores_memory_and_accelerators() -> None:
    parts = machine.hardware().split(", ")
    assert "cores" in parts[1] and "GiB" in parts[2]
    assert parts[-1] == "no GPU" or "×" in parts[-1]
