"""Commands that are interrupted or killed: a line, no half-written file, and once more."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limo_nb import lab

COUNT = 4_000  # rows: so many that every command is still at work when it is ended
CHAIN = "1) plus 4: 7+4=1. Check: 7+4=1, right.\nSo the answer is \\boxed{1}."


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions with chains and answers."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {"id": f"r{n}", "question": row["question"], "answer": str(row["answer"]),
         "response": f"{CHAIN} {n}", "solution": f"{CHAIN} {n}", "subject": row["subject"],
         "level": row["level"]}
        for n, row in enumerate(lab.pool(COUNT, 4))
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


COMMANDS = {
    "grade": ["grade", "FILE", "--out", "OUT"],
    "score": ["score", "FILE", "--out", "OUT"],
    "select": ["select", "FILE", "-k", "50", "--out", "OUT"],
    "decontaminate": ["decontaminate", "FILE", "--against", "lab", "--out", "OUT"],
    "convert": ["convert", "FILE", "OUT", "--to", "alpaca"],
    "view": ["view", "FILE", "--out", "OUT"],
    "sample": ["sample", "FILE", "-m", "lab:weak", "--samples", "1", "--rows", "40",
               "--max-new-tokens", "16", "--out", "OUT"],
}  # fmt: skip


def started(words: list[str], file: Path, folder: Path) -> subprocess.Popen:
    """A command in a folder of its own."""
    kind = ".html" if words[0] == "view" else ".jsonl"
    places = {"FILE": str(file), "OUT": str(folder / f"out{kind}")}
    command = [sys.executable, "-m", "limo_nb", *(places.get(word, word) for word in words)]
    environment = {**os.environ, "LIMO_NB_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, env=environment,
    )  # fmt: skip


def left(folder: Path) -> dict[str, bytes]:
    """What lies in the folder, but for the stores that a command continues from."""
    files = (path for path in folder.rglob("*") if path.is_file())
    kept = {str(p.relative_to(folder)): p.read_bytes() for p in files if "runs" not in p.parts}
    stores = (".lock", ".sqlite", ".sqlite-shm", ".sqlite-wal")
    return {name: text for name, text in kept.items() if not name.endswith(stores)}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_ended_command_leaves_nothing_half_written(name, how, file, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    before, began = file.read_bytes(), time.monotonic()
    process = started(COMMANDS[name], file, whole)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    lasted = time.monotonic() - began

    for share in (0.6,):
        process = started(COMMANDS[name], file, broken)
        time.sleep(share * lasted)
        if process.poll() is None:
            os.killpg(process.pid, how)
        _, said = process.communicate(timeout=60)
        if process.returncode == 0:  # it was quicker this time
            continue
        # While the interpreter goes up or down the signal ends it; a shell calls both 130.
        assert process.returncode in ((130, -how) if how == signal.SIGINT else (-how,)), said
        if process.returncode == 130:
            assert said.strip().splitlines()[-1].startswith("limo-nb: interrupted; the same ")
        finished = left(whole)
        for path, text in left(broken).items():
            known = finished.get(path)
            partial = Path(path).name.startswith(".")  # a killed process could not remove it
            assert text == known or (partial and how == signal.SIGKILL), path
    process = started([*COMMANDS[name], "--replace"], file, broken)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    again = {n: t for n, t in left(broken).items() if not Path(n).name.startswith(".")}
    assert again.keys() == left(whole).keys() and file.read_bytes() == before
    if name != "sample":  # whose rows name the file that they were written to
        assert again == left(whole)
