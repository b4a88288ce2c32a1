"""Files that are whole or absent, and locks that end with their process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from limo_nb.core.files import alone, if_free, write_json

HOLD = """
import sys, time
from pathlib import Path
from limo_nb.core.files import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": Path("x"), "ü": 2})
    assert json.loads(path.read_text()) == {"b": "x", "ü": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def holder(lock: Path, seconds: float) -> subprocess.Popen:
    """A process that holds `lock` already."""
    command = [sys.executable, "-c", HOLD, str(lock), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_others_wait_and_say_so(tmp_path: Path, capsys) -> None:
    first = holder(tmp_path / "a.lock", 1.0)
    with if_free(tmp_path / "a.lock") as free:
        assert not free
    with alone(tmp_path / "a.lock", "waiting"):
        assert first.wait(5) == 0
        with if_free(tmp_path / "a.lock") as free:
            assert not free, "one hold at a time, in one process too"
    assert capsys.readouterr().out == "waiting\n"
    with alone(tmp_path / "a.lock", "waiting"), alone(tmp_path / "b.lock", "waiting"):
        assert capsys.readouterr().out == ""


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    assert (tmp_path / ".lock").exists(), "a folder is locked by a file in it"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5)
    with if_free(tmp_path / ".lock") as free:
        assert free


def test_a_folder_that_cannot_be_written_is_no_matter_for_a_lock_elsewhere(tmp_path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o555)
    with if_free(tmp_path / ".shared.lock") as free:
        assert free
