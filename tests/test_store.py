"""The store of completions: kills, several processes, whose claim it is, progress."""

import os
import pty
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
from test_inference import DRAWN, SYSTEM, chat_prompt, made, problems, stored
from tiny import tiny_model

from limo_nb.core.settings import EngineSettings
from limo_nb.inference import (
    Ask,
    Completion,
    open_engine,
    shared_store,
)
from limo_nb.inference.store import Store

ROWS = 120
DONE = Completion("text", 3, True)
SCRIPT = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_store import asked, made, DRAWN
made(sys.argv[1], asked(), Path(sys.argv[2]), DRAWN, workers=int(sys.argv[3]))
"""


def asked():
    """40 questions, which DRAWN asks three times each: 15 batches of 8 rows."""
    rows = problems(ROWS // DRAWN.samples, seed=5)
    return [(f"p{i}", chat_prompt(row["question"], SYSTEM)) for i, row in enumerate(rows)]


def start(model, store, workers=1, **streams):
    command = [sys.executable, "-c", SCRIPT, str(model), str(store), str(workers)]
    return subprocess.Popen(command, start_new_session=True, **streams)


def count(store):
    """Rows that are kept; 0 while there is no table."""
    if not store.exists():
        return 0
    with sqlite3.connect(store, timeout=60) as database:
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            return 0
        return database.execute("SELECT count(*) FROM completions").fetchone()[0]


def until(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.005)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def uninterrupted(model, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s.db"
    return made(model, asked(), store), {row[1:] for row in stored(store)}


def asks(*names):
    return tuple(Ask(name, f"prompt of {name}") for name in names)


# ------------------------------------------------------------------------------- claims
def test_a_row_is_claimed_by_one_living_owner(tmp_path):
    with Store(tmp_path / "s.db") as one, Store(tmp_path / "s.db") as two:
        assert one.claim(asks("a", "b")) == asks("a", "b")
        assert two.claim(asks("b", "c")) == asks("c")
        one.keep([("a", DONE)])
        assert two.claim(asks("a", "b")) == ()
        assert one.claim(asks("a", "b")) == asks("b")  # its own claim is not in its way
    with Store(tmp_path / "s.db") as three:
        assert three.claim(asks("a", "b", "c")) == asks("b", "c")  # left without an answer


def test_the_first_completion_of_a_key_stays(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.keep([("a", DONE)])
        store.keep([("a", Completion("other", 1, False)), ("b", DONE)])
        store.want(["b", "a", "c"])
        assert list(store.rows()) == [DONE, DONE, None] and store.made() == {"a", "b"}


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path):
    with Store(tmp_path / "s.db") as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.keep([("a", DONE), ("b", Completion(None, 1, True))])
        store.want(["a", "b"])
        assert store.made() == set()


def test_a_request_remembers_what_was_there_before_it(tmp_path):
    with Store(tmp_path / "s.db") as store:
        store.keep([("a", DONE)])
        mark = store.mark("request")
        store.keep([("b", DONE)])
        store.want(["a", "b"])
        assert store.mark("request") == mark and store.made(mark) == {"a"}


def test_stages_of_a_run_share_a_store(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LIMO_NB_RUNS", str(tmp_path / "runs"))
    with open_engine(EngineSettings(), model) as engine:
        one = shared_store(tmp_path / "runs" / "mini" / "fine" / "0123", engine)
        two = shared_store(tmp_path / "runs" / "mini" / "models" / "x" / "4567", engine)
        elsewhere = shared_store(tmp_path / "elsewhere", engine)
    assert one == two and one.parent == tmp_path / "runs" / "mini" / "completions"
    assert elsewhere.parent == tmp_path / "elsewhere" and elsewhere.name == one.name
    with open_engine(EngineSettings(dtype="bfloat16"), model) as engine:
        assert shared_store(tmp_path, engine).name != one.name


# -------------------------------------------------------------------------------- kills
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_and_run_again(model, uninterrupted, tmp_path, seed):
    """Kill -9 at a random point: kept rows stay as they are, the rest is made, once."""
    reference, rows = uninterrupted
    store, rng = tmp_path / "s.db", random.Random(seed)
    process = start(model, store, workers=1 + seed % 2)
    least = rng.randrange(8, ROWS // 2)
    until(lambda: count(store) >= least, process)
    time.sleep(rng.random() * 0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = stored(store)
    assert least <= len(before) < ROWS
    assert made(model, asked(), store) == reference
    after = stored(store)
    assert before < after and len(after) == ROWS
    assert {row[1:] for row in after} == rows
    assert not list(tmp_path.glob(".*.lock")) and claims(store) == 0


def claims(store):
    with sqlite3.connect(store) as database:
        return database.execute("SELECT count(*) FROM claims").fetchone()[0]


@pytest.mark.slow
def test_two_processes_share_the_work(model, uninterrupted, tmp_path):
    """No row is made twice, and both end with all of them."""
    store = tmp_path / "s.db"
    logs = [tmp_path / f"{name}.log" for name in "ab"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", LOGGED + SCRIPT, model, str(store), "1", str(log)]
        )
        for log in logs
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    made_by = [log.read_text().split() for log in logs]
    assert all(made_by), "one process did everything: the test has shown nothing"
    assert len(made_by[0]) + len(made_by[1]) == ROWS
    assert not set(made_by[0]) & set(made_by[1])
    assert {row[1:] for row in stored(store)} == uninterrupted[1]
    with sqlite3.connect(store) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Writes down the keys that the process computes, before they are kept.
LOGGED = """
import sys, time
from limo_nb.inference import transformers_engine as local
plain = local.TransformersEngine.run
def run(self, batches, sampling):
    for ready in plain(self, batches, sampling):
        if not isinstance(ready, list):  # a sign of work
            yield ready
            continue
        with open(sys.argv[4], "a") as log:
            print(*(key for key, _ in ready), file=log)
        time.sleep(0.1)  # both are there before either has finished
        yield ready
local.TransformersEngine.run = run
"""


def pause(process, store):
    """Stop `process` while it holds claims and is not in the middle of a transaction."""
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(store, timeout=0.5)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            if claims(store):
                return
        except sqlite3.OperationalError:  # locked: it was writing
            pass
        assert process.poll() is None
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)


@pytest.mark.slow
def test_the_claims_of_a_killed_process_are_taken_over(model, uninterrupted, tmp_path):
    """While one waits for the other's batch, the other is killed."""
    store = tmp_path / "s.db"
    process = start(model, store)
    until(lambda: count(store) >= 16, process)
    pause(process, store)
    second = start(model, store)
    try:
        until(lambda: count(store) == ROWS - claims(store) and claims(store), second)
        time.sleep(1.5)
        assert second.poll() is None and count(store) < ROWS  # it waits
    finally:
        process.kill()
        process.wait()
    assert second.wait(timeout=120) == 0
    assert {row[1:] for row in stored(store)} == uninterrupted[1]


# ----------------------------------------------------------------------------- progress
@pytest.mark.slow
def test_a_terminal_shows_rate_and_time_left(model, tmp_path):
    leader, follower = pty.openpty()
    process = start(model, tmp_path / "s.db", stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0
    lines = shown.decode().strip().split("\r")
    middle = [line for line in lines if "tokens/s" in line and f"{ROWS}/{ROWS}" not in line]
    assert middle and all("completions [" in line for line in middle)
    assert all(" left" in line for line in middle)
    assert f"{ROWS}/{ROWS}" in lines[-1]


CELL = """
import sys
sys.argv = ["", {model!r}, {store!r}, "1"]
"""


@pytest.mark.slow
def test_a_notebook_shows_one_line(model, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cell = CELL.format(model=model, store=str(tmp_path / "s.db")) + SCRIPT
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (shown,) = [o for o in notebook.cells[0].outputs if o.output_type == "display_data"]
    text = shown["data"]["text/plain"]
    assert f"{ROWS}/{ROWS} completions [00:" in text and "tokens/s" in text
