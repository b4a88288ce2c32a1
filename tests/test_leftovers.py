"""Leftovers: what is shown and removed, and what stays; and the command `limo-nb clean`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limo_nb.cli import app
from limo_nb.core.files import alone
from limo_nb.core.leftovers import leftovers, note_use, remove
from limo_nb.core.runs import MissingArtifact, Run, lock_of
from limo_nb.inference.store import Store

STORES = ("used.sqlite", "unused.sqlite")


def write(folder: Path) -> None:
    (folder / "rows").write_bytes(bytes(1000))
    note_use(folder / "inner", folder.parents[1] / "completions" / "used.sqlite")


def fail(folder: Path) -> None:
    (folder / "part").write_bytes(bytes(500))
    raise RuntimeError("no space left")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a current, a superseded, an unfinished and another's stage, and two stores."""
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    run = Run("smoke")
    run.make("models/limo", write, params={"version": 1})
    run.make("models/limo", write, params={"version": 2})
    with pytest.raises(RuntimeError):
        run.make("pool", fail)
    Run("smoke", {"pool.size": 7}).make("coarse", write)
    for name in STORES:
        with Store(run.root / "completions" / name):
            pass
    (run.root / "book").mkdir()
    (run.root / "book" / "03-problems.ipynb").touch()
    return run


def told(*arguments: str, answer: str = "") -> str:
    done = CliRunner().invoke(app, ["clean", "--profile", "smoke", *arguments], input=answer)
    assert done.exit_code == 0, done.output
    return done.output


def test_what_is_left_over(run: Run) -> None:
    found = {str(own.path.relative_to(run.root)): own for own in leftovers(run)}
    kinds = {name.rpartition("/")[0]: own.why for name, own in found.items()}
    assert kinds == {
        "models/limo": "superseded",
        "pool": "unfinished",
        "completions": "used by no stage",
    }
    assert {own.path.name for own in found.values() if own.path.suffix} == {"unused.sqlite"}
    sizes = {own.why: own.size for own in found.values()}
    assert 1000 < sizes["superseded"] < 5000 and sizes["unfinished"] == 500
    assert not any(own.busy for own in found.values())
    others = [own.why for own in leftovers(run, others=True)]
    assert others.count("made with other settings") == 1 and len(others) == 4


def test_dry_run_and_no_remove_nothing_and_yes_what_was_shown(run: Run) -> None:
    before = sorted(run.root.rglob("*"))
    shown = told("--dry-run")
    assert shown.count("(superseded)") == shown.count("(unfinished)") == 1
    assert "in 3 places of" in shown and "would be removed" in shown
    assert "500 B " in shown and " kB" in shown
    assert "Remove these" in told(answer="n\n")
    assert sorted(run.root.rglob("*")) == before
    assert "removed" in told(answer="y\n")
    assert leftovers(run) == [] and "nothing to remove" in told()
    assert run.load("models/limo").manifest["params"] == {"version": 2}
    assert run.load("coarse").path.exists(), "other settings stay"
    assert [own.name for own in (run.root / "completions").glob("*.sqlite")] == ["used.sqlite"]
    assert (run.root / "book" / "03-problems.ipynb").exists()
    locks = run.root.rglob(f".{'[0-9a-f]' * 16}.lock")
    assert all((own.parent / own.name[1:17]).exists() for own in locks), "locks go too"


def test_others_go_when_asked_for(run: Run) -> None:
    told("--others", "--yes")
    with pytest.raises(MissingArtifact):
        run.load("coarse")
    assert not list((run.root / "coarse").glob("current-*"))


def test_what_a_process_works_on_stays(run: Run) -> None:
    unfinished, store = (
        next(own for own in leftovers(run) if own.why == why)
        for why in ("unfinished", "used by no stage")
    )
    note_use(unfinished.path, store.path)
    with alone(lock_of(unfinished.path)):
        assert "unfinished, in use: stays" in told("--yes")
        assert not remove(unfinished)
    assert unfinished.path.exists() and store.path.exists()
    with Store(store.path):
        assert not remove(store)
    assert store.path.exists()
    assert remove(unfinished) and remove(store)
    assert not unfinished.path.exists() and not store.path.exists()


def test_a_killed_removal_leaves_no_stage_that_looks_whole(run: Run) -> None:
    code = (
        "import os\nfrom limo_nb.core import leftovers\nfrom limo_nb.core.runs import Run\n"
        "leftovers.shutil.rmtree = lambda path: os._exit(9)\n"
        "for own in leftovers.leftovers(Run('smoke')):\n"
        "    leftovers.remove(own)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    whys = [own.why for own in leftovers(run)]
    assert whys.count("unfinished") == 2
