"""Stages: made once, by one process, atomic under kills, and found by their settings."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limo_nb import Run
from limo_nb.core import runs
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


def test_changed_parameters_or_inputs_make_it_again_and_remove_nothing(run: Run) -> None:
    old = run.make("pool", count, params={"size": 1})
    later = run.make("coarse", count, inputs=[old])
    new = run.make("pool", count, params={"size": 2})
    assert new.key != old.key and old.path.exists() and run.load("pool") == new
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
    new = run.make("models/limo", count, params={"seed": 2})
    assert [run.load(f"models/{name}") for name in ("limo", "random")] == [new, two]
    assert one.path.exists() and new.path.parent == one.path.parent


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
    assert new.manifest["resumed"] is True and run.load("pool") == new


@pytest.mark.parametrize(
    ("stage", "chapter"),
    [("elicitation", 2), ("pool", 3), ("rows", 5), ("models/limo", 6), ("evaluation", 8)],
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


# ---------------------------------------------------------------- settings
def test_each_run_finds_what_its_own_settings_made(run: Run, capsys) -> None:
    small = Run("smoke", {"pool.size": 7})
    assert (
        small.pointer
        != run.pointer
        == Run("smoke", {"pool.size": run.profile.pool.size}).pointer
    )

    def make(folder: Path, profile: Profile) -> None:
        write_json(folder / "size.json", profile.pool.size)

    ours = run.make("pool", make, reads=["pool"])
    theirs = small.make("pool", make, reads=["pool"])
    assert run.load("pool") == ours and small.load("pool") == theirs
    assert [made.json("size.json") for made in (ours, theirs)] == [run.profile.pool.size, 7]
    assert capsys.readouterr().err == ""


def test_what_other_settings_made_is_taken_and_told_once(run: Run, capsys) -> None:
    first = run.make("pool", count, params={"size": 1})
    other = Run("smoke", {"pool.size": 7, "sft.epochs": 5})
    assert other.load("pool") == other.load("pool") == first
    told = capsys.readouterr().err
    assert told == (
        f"pool: not made with these settings yet; taken from {first.path}, made with "
        f"pool.size={run.profile.pool.size} (here 7), sft.epochs={run.profile.sft.epochs} "
        f"(here 5)\n"
    )
    newest = Run("smoke", {"pool.size": 9}).make("pool", count, params={"size": 2})
    assert Run("smoke", {"pool.size": 8}).load("pool") == newest
    assert "made with pool.size=9 (here 8)\n" in capsys.readouterr().err
    assert run.load("pool") == first


def test_what_a_stage_reads_must_be_among_its_inputs(run: Run) -> None:
    pool = run.make("pool", count)

    def captures(folder: Path) -> None:
        write_json(folder / "result.json", pool.json("result.json"))

    def loads(folder: Path) -> None:
        write_json(folder / "result.json", run.load("pool").json("result.json"))

    for function in (captures, loads):
        with pytest.raises(ValueError, match="add it"):
            run.make("coarse", function)
        assert run.make("coarse", function, inputs=[pool]).json("result.json") == LIMIT


def test_what_a_function_captures_and_nobody_can_describe_is_named(run: Run) -> None:
    generator = random.Random(1)
    with pytest.raises(ValueError, match=r"^pool: 'generator' of .*make is a random\.Random"):

        def make(folder: Path) -> None:
            write_json(folder / "result.json", generator.random())

        run.make("pool", make)
    assert not (run.root / "pool").exists()


# ---------------------------------------------------------------- several processes
BOTH = """\
import sys, time
from limo_nb.core.runs import Run

def make(folder):
    with (folder.parent / "journal").open("a") as file:
        file.write("made\\n")
    time.sleep(1)

sys.stdin.readline()
Run("smoke").make("pool", make, params={"size": int(sys.argv[1])})
"""


def both(runs_folder: Path, *sizes: str) -> list[str]:
    """What processes print that make the stage `pool` at the same time."""
    environment = {**os.environ, "LIMO_NB_RUNS": str(runs_folder)}
    script = runs_folder.parent / "both.py"
    script.write_text(BOTH)
    processes = [
        subprocess.Popen(
            [sys.executable, script, size],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for size in sizes
    ]  # fmt: skip
    time.sleep(1)  # all are started
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(sizes)
    return told


def test_of_two_that_make_the_same_stage_the_second_waits_and_finds_it_done(tmp_path) -> None:
    told = sorted(both(tmp_path / "runs", "1", "1"), key=len)
    assert "running" in told[0] and "done in" in told[0]
    assert "another process is making it; waiting" in told[1] and "unchanged" in told[1]
    assert (tmp_path / "runs/smoke/pool/journal").read_text() == "made\n"


def test_two_that_make_different_ones_leave_each_other_alone(tmp_path) -> None:
    for told in both(tmp_path / "runs", "1", "2"):
        assert "done in" in told and "waiting" not in told
    assert len(list((tmp_path / "runs/smoke/pool").glob("*/manifest.json"))) == 2


def test_without_git_on_the_path_a_stage_is_made_all_the_same(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_GIT)
    environment = {**os.environ, "LIMO_NB_RUNS": str(tmp_path / "runs"), "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "unknown"


WITHOUT_GIT = """\
from limo_nb.core.runs import Run

def make(folder):
    (folder / "result").touch()

print(Run("smoke").make("pool", make).manifest["commit"])
"""


def test_a_failure_of_provenance_comes_before_the_work(run: Run, monkeypatch) -> None:
    def broken() -> dict:
        raise OSError("no such machine")

    monkeypatch.setattr(runs, "provenance", broken)
    with pytest.raises(OSError, match="no such machine"):
        run.make("pool", count)
    assert not (run.root / "calls").exists()


# ---------------------------------------------------------------- kills
KILLED = """\
import os, signal
from limo_nb.core import runs
from limo_nb.core.runs import Run

def make(folder):
    for n in range(4):
        part = folder / f"part-{n}"
        if not part.exists():
            with (folder.parents[1] / "journal").open("a") as file:
                file.write(f"{n}\\n")
            plain(part, str(n))
        if n == 1:
            die("inside")

def die(place):
    if os.environ["DIE"] == place:
        os.kill(os.getpid(), signal.SIGKILL)

plain, plain_json = runs.write_atomic, runs.write_json

def watched(path, text):
    die("before the pointer")
    plain(path, text)
    die("after the pointer")

def watched_json(path, value):
    die("before the manifest")
    plain_json(path, value)

runs.write_atomic, runs.write_json = watched, watched_json
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
