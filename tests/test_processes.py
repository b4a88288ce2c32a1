"""Jobs in processes of their own: results, errors, and the end of a parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

from limo_nb.core.machine import cores
from limo_nb.core.settings import EngineSettings
from limo_nb.experiments import in_processes
from limo_nb.experiments.processes import job_processes
from limo_nb.inference import EngineFailed


def length(job: str) -> int:
    return len(job)


def refuse(job: str) -> None:
    """Leaves a trace for every job, and fails at the one that is called "bad"."""
    path = Path(job)
    if path.name == "bad":
        raise ValueError("this job is bad")
    path.write_text("done")


def test_every_job_s_result_is_returned_in_order():
    assert in_processes(length, ["a", "bbb", "cc"], 2, "jobs") == [1, 3, 2]
    assert in_processes(length, [], 2, "jobs") == []


def test_a_job_s_error_is_raised_and_what_others_wrote_is_kept(tmp_path):
    with pytest.raises(ValueError, match="this job is bad"):
        in_processes(refuse, [str(tmp_path / name) for name in ("good", "bad")], 1, "jobs")
    assert (tmp_path / "good").read_text() == "done"


def end(job: str) -> None:
    os._exit(3)


def test_a_process_that_ends_without_a_word_is_told():
    with pytest.raises(EngineFailed, match="'jobs' ended before its job; .*GB free"):
        in_processes(end, ["a"], 1, "jobs")


def test_jobs_have_a_core_each_or_all_of_them(tmp_path):
    model = str(tiny_model(tmp_path))
    auto = EngineSettings()
    assert job_processes(auto, model) == (1 if torch.cuda.is_available() else cores())
    assert job_processes(auto.model_copy(update={"kind": "openai"}), model) == 1
    assert job_processes(EngineSettings(workers=3), model) == 3


FOREVER = """
import os, sys, time
from pathlib import Path
from limo_nb.experiments import in_processes

def forever(folder):
    (Path(folder) / "pid").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    in_processes(forever, [sys.argv[1]], 1, "jobs")
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path, repository):
    script = tmp_path / "forever.py"
    script.write_text(FOREVER)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stderr=subprocess.DEVNULL,
    )
    pid = tmp_path / "pid"
    wait(lambda: pid.exists() and pid.read_text())
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    wait(lambda: not alive(int(pid.read_text())))


def wait(condition, seconds: float = 180.0) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited in vain"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether process `pid` runs; one that only waits to be reaped does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
