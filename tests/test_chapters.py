"""Every chapter through papermill in profile smoke, in order; and what a chapter must be."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from pyarrow.parquet import read_table

from limo_nb import evidence
from limo_nb.book import (
    contents,
    pairs,
    run,
)
from limo_nb.core.recorded_runs import record_run
from limo_nb.core.records import load_table
from limo_nb.core.runs import MissingArtifact, Run

CHAPTERS = contents.chapters(ROOT)
NAMES = [chapter.name for chapter in CHAPTERS]
LINES, COLUMNS = 25, 88
# The sections on real input run where there is any (`make book` shows them without).
DATA = ROOT.parent / "shared" / "data"
REAL = {"LIMO_NB_DATA": str(DATA)} if DATA.is_dir() else {}
# Never in a chapter: unfinished work, and places of the machine that wrote it.
FORBIDDEN = re.compile(r"TODO|FIXME|XXX|lorem ipsum|(?<![\w.])/(?:work|tmp|home|root)/", re.I)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One runs folder for all chapters of this session."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def failed() -> list[str]:
    """Chapters that failed: those after them cannot say anything of their own."""
    return []


def executed(chapter: contents.Chapter) -> Path:
    """The executed notebook, in the runs folder that LIMO_NB_RUNS names."""
    return contents.executed_path(ROOT, "smoke", chapter)


# ---------------------------------------------------------------- each runs
@pytest.mark.parametrize("name", NAMES)
def test_chapter_runs(name: str, runs: Path, failed: list[str], monkeypatch) -> None:
    """Runs chapter `name` after those before it, which are not run twice in a session."""
    if failed:
        pytest.fail(f"not run, {failed[0]} failed before", pytrace=False)
    monkeypatch.setenv("LIMO_NB_RUNS", str(runs))
    for variable, value in REAL.items():
        monkeypatch.setenv(variable, value)
    try:
        outcomes = run.run_chapters("smoke", until=NAMES.index(name) + 1, root=ROOT)
    except run.ChapterFailed as error:
        failed.append(name)
        pytest.fail(str(error), pytrace=False)
    assert outcomes[-1].chapter.name == name
    path = executed(outcomes[-1].chapter)
    for cell in contents.code_cells(contents.read_notebook(path)):
        assert cell.execution_count is not None or not cell.source.strip()
        for output in cell.outputs:
            assert output.output_type != "error"
            assert len(json.dumps(output)) < 2_000_000, "an output floods the page"


def test_a_record_of_the_chapters_draws_what_the_book_shows_of_one(
    runs: Path, failed: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    """With the lab's models in the places of the real ones: the same stages and tables."""
    if failed:
        pytest.fail(f"not run, {failed[0]} failed before", pytrace=False)
    monkeypatch.setenv("LIMO_NB_RUNS", str(runs))
    record = record_run(Run("smoke"), "small", root=tmp_path)
    shown = evidence.RecordedResults("small", tmp_path)
    for drawn in (shown.elicited(), shown.funnel(), shown.losses(), shown.accuracies()):
        figure, said = drawn
        assert figure.get_suptitle().startswith("Recorded: ")
        assert re.search(r"\d", said), f"no number: {said}"
    kinds = shown.measures()
    assert kinds["best of each question"]["score"] >= kinds["all right chains"]["score"] > 0
    arms = ["bulk", "random", "limo", "poor-limo"]
    assert list(shown.training().index) == arms
    baselines = Run("smoke").profile.evaluation.baselines
    assert {"base", "poor", *arms, *baselines} == set(shown.benchmarks().index)
    items = load_table(record.load("evaluation"), "items")
    assert shown.differences().loc["limo − base", "items"] == len(items)
    known = evidence.load_ledger(ROOT / "book" / "claims.yml")
    own = [claim for claim in known if claim.record == record.name]
    rows = evidence.judge(own, {}, records={record.name: evidence.tables(record)})
    assert {row["by"] for row in rows} == {"a real model"}
    assert evidence.disagreements(own, rows) == []
    told = shown.verdicts(rows)
    assert list(told.index) == [claim.title for claim in own]
    assert told["measured"].str.contains(r"\d").all() and told["predicted"].all()
    shown.show(shown.funnel())
    assert "limo-nb run --profile smoke" in capsys.readouterr().out


# ---------------------------------------------------------------- what a chapter must be
def sources(name: str, kind: str) -> list[str]:
    notebook = pairs.from_text(ROOT / "book" / "text" / f"{name}.md")
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_chapters_are_numbered_in_order_and_none_is_left_out() -> None:
    assert [chapter.number for chapter in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))
    on_disk = sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]-*.ipynb"))
    assert on_disk == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_fence_of_a_text_opens_a_block(name: str) -> None:
    """Behind three backticks a title with a backtick is text: what follows is no cell."""
    text = (ROOT / "book" / "text" / f"{name}.md").read_text("utf-8")
    assert [line for line in text.splitlines() if re.match(r"```\{.*`", line)] == []
    cells = sources(name, "code")
    assert len(cells) == len(re.findall(r"^```\{code-cell\}", text, re.M))


@pytest.mark.parametrize("name", NAMES)
def test_cells_can_be_read(name: str) -> None:
    for source in sources(name, "code"):
        lines = source.splitlines()
        assert len(lines) <= LINES, f"{len(lines)} lines in the cell that starts {lines[0]!r}"
        assert [line for line in lines if len(line) > COLUMNS] == []


@pytest.mark.parametrize("name", NAMES)
def test_first_code_cell_holds_the_parameters_and_nothing_else(name: str) -> None:
    notebook = pairs.from_text(ROOT / "book" / "text" / f"{name}.md")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [0]
    values: dict = {}
    exec(code[0].source, values)
    assert {key for key in values if not key.startswith("__")} == {"profile", "overrides"}
    assert values["profile"] == "mini" and values["overrides"] == {}
    assert "Run(profile, overrides)" in code[1].source


@pytest.mark.parametrize("name", NAMES[3:])
def test_what_is_missing_is_told_by_the_first_cell(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path))
    monkeypatch.chdir(ROOT / "book")
    notebook = pairs.from_text(ROOT / "book" / "text" / f"{name}.md")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    names: dict = {}
    exec(code[0], names)
    with pytest.raises(MissingArtifact, match=r"limo-nb run --profile mini --until \d+"):
        exec(code[1], names)


@pytest.mark.parametrize("name", NAMES)
def test_text_is_finished_and_titled_without_a_number(name: str) -> None:
    text = (ROOT / "book" / "text" / f"{name}.md").read_text()
    assert FORBIDDEN.findall(text) == []
    titles = re.findall(r"(?m)^# (.+)$", "\n".join(sources(name, "markdown")))
    assert len(titles) == 1 and not titles[0][0].isdigit(), "_toc.yml numbers the chapters"


@pytest.mark.parametrize("name", NAMES)
def test_every_glued_name_is_glued_by_the_same_chapter(name: str) -> None:
    """A name of another chapter would need the `:doc:` form; f-string names are prefixes."""
    code = "\n".join(sources(name, "code"))
    used = set(re.findall(r"\{glue:\w*\}`([^`:]+)", "\n".join(sources(name, "markdown"))))
    if re.search(r"glue\((?!\s*[\"'])", code):
        pytest.skip("names are computed; the build's -W checks them")
    made = set(re.findall(r"glue\(\s*[\"']([^\"']+)[\"']", code))
    assert used - made == set()


# ---------------------------------------------------------------- kills
def settled(home: Path) -> dict[str, int]:
    """The finished stages under `home`, and when their manifests were written."""
    stages = {}
    for pointer in home.rglob("current-*"):
        key = json.loads(pointer.read_text())["key"]
        manifest = pointer.parent / key / "manifest.json"
        stages[str(manifest)] = manifest.stat().st_mtime_ns
    return stages


def start(runs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "limo_nb", "run", "--profile", "smoke"],
        cwd=ROOT,
        env={**os.environ, **REAL, "LIMO_NB_RUNS": str(runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_inside(chapter: contents.Chapter, runs: Path, seconds: float) -> None:
    """Start the book, and kill it `seconds` after `chapter` began."""
    process = start(runs)
    partial = runs / "smoke" / "book" / f".{chapter.name}.partial.ipynb"
    partial.unlink(missing_ok=True)
    done = partial.with_name(f"{chapter.name}.ipynb")
    while not partial.exists() and not done.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
    assert not done.exists(), f"{chapter.name} was over before the kill"
    time.sleep(5)  # orphaned kernels see that their parent is gone


def tables(home: Path) -> dict[str, object]:
    """What the stages left: every table and JSON file, less times."""
    found = {}
    for manifest in map(Path, settled(home)):
        stage = manifest.parents[1].relative_to(home)
        for path in manifest.parent.glob("*.json"):
            if path != manifest:
                found[f"{stage}/{path.name}"] = json.loads(path.read_text())
        for path in manifest.parent.glob("*.parquet"):
            found[f"{stage}/{path.name}"] = read_table(path).to_pylist()
    return _without_times(found)


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        timed = re.compile(r"seconds|per_second|memory|started|resumed")
        return {k: _without_times(v) for k, v in value.items() if not timed.search(str(k))}
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    return value


@pytest.mark.long
@pytest.mark.skipif(not CHAPTERS, reason="no chapters")
def test_killed_in_every_chapter_the_book_ends_the_same(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(runs)  # continues from what the other tests of this session made
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    monkeypatch.setenv("LIMO_NB_RUNS", str(runs))
    seconds = {c.name: contents.run_record(executed(c))["seconds"] for c in CHAPTERS}
    cut = tmp_path / "cut"
    for chapter in CHAPTERS:
        before = settled(cut / "smoke")
        kill_inside(chapter, cut, seconds=min(0.4 * seconds[chapter.name], 20.0))
        after = settled(cut / "smoke")
        assert before.items() <= after.items(), "finished stages were made again"
    before = settled(cut / "smoke")
    last = start(cut)
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert before.items() <= settled(cut / "smoke").items(), "finished stages were made again"
    ours, theirs = tables(cut / "smoke"), tables(runs / "smoke")
    assert set(ours) == set(theirs) and len(ours) > 20
    assert [name for name in ours if ours[name] != theirs[name]] == []
