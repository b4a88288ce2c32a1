"""Memory: what is free, whose limit counts, and what is said of a process that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from limo_nb.core import memory
from limo_nb.core.memory import GB, Memory, NotEnoughMemory

TWO, THREE = 2 * GB, 3 * GB


def group(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")
    return folder


def limited(monkeypatch, *groups: Path) -> Memory:
    monkeypatch.setattr(memory, "_groups", lambda: iter(groups))
    return memory.host_memory()


def test_without_a_limit_it_is_what_the_system_says(monkeypatch, tmp_path):
    free = group(tmp_path / "a", memory__max="max", memory__current=5)
    huge = group(tmp_path / "b", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=5)
    found = limited(monkeypatch, free, huge, tmp_path / "none")
    assert found.total == psutil.virtual_memory().total and 0 < found.free < found.total


@pytest.mark.parametrize(
    "files",
    [
        {"memory__max": TWO, "memory__current": GB, "memory__stat": "inactive_file 400000000"},
        {"memory__limit_in_bytes": TWO, "memory__usage_in_bytes": GB,
         "memory__stat": "cache 7\ntotal_inactive_file 400000000"},
    ],
    ids=["version 2", "version 1"],
)  # fmt: skip
def test_a_container_s_limit_counts_and_its_cached_files_do_not(monkeypatch, tmp_path, files):
    found = limited(monkeypatch, group(tmp_path / "a", **files))
    assert found == (TWO - GB + 400_000_000, TWO)
    assert str(found) == "1.4 of 2.0 GB free"


def test_groups_are_those_of_this_process():
    """Whatever the system has; on Linux each is a folder that is there, or was looked for."""
    assert all(str(path).startswith("/sys/fs/cgroup") for path in memory._groups())


def test_what_fits_is_told_and_what_does_not_is_refused_with_numbers():
    parts = {"weights": TWO, "logits": GB, "crumbs": 1000}
    said = memory.require("this", parts, Memory(4 * GB, 8 * GB), [], force=False)
    assert said == "this needs about 3.0 GB (weights 2.0, logits 1.0); 4.0 of 8.0 GB free"
    few = Memory(TWO, 8 * GB)
    with pytest.raises(NotEnoughMemory, match=r"not started. What would fit: a=1 \(0.5 GB\)\."):
        memory.require("this", parts, few, ["a=1 (0.5 GB)"], force=False)
    assert "started as asked" in memory.require("this", parts, few, [], force=True)


def test_a_kill_that_the_kernel_counted_is_said_to_be_one(monkeypatch, tmp_path):
    events = group(tmp_path, memory__events="low 0\noom_kill 3")
    monkeypatch.setattr(memory, "_groups", lambda: iter([events]))
    before = memory.kills()
    assert "by signal 9" in memory.killed_words(before)
    group(tmp_path, memory__events="low 0\noom_kill 4")
    said = memory.killed_words(before, THREE, ["sft.ranks=1 (1.0 GB)"])
    assert "for memory: the kernel" in said and "hold 3.0 GB" in said
    assert said.endswith("What takes less: sft.ranks=1 (1.0 GB)")


def test_memory_of_a_process_and_its_children():
    code = "import subprocess, sys; b = bytearray(10**8); print(len(b), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    assert 1e8 < memory.process_bytes(process.pid) < 2e8
    process.communicate(b"\n")
    assert memory.process_bytes(process.pid) == 0
