"""The locked process: what programs can do in it, and what they cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from limo_nb.grading import sandbox

FEW = sandbox.Limits(seconds=0.2, clock=60.0)
CLOSED = all(sandbox.closed().values())
needs_lock = pytest.mark.skipif(
    not CLOSED, reason=f"this machine leaves something open: {sandbox.closed()}"
)


def body(*lines: str) -> str:
    return "\n    ".join(["def f(*given):", *lines]) + "\n"


@pytest.mark.parametrize(
    ("program", "calls", "results"),
    [
        ("def f(x):\n    return x + 1\n", [[1], [2.5]], ("= 2", "= 3.5")),
        ("def f(xs):\n    xs.append(1)\n    return xs\n", [[[]], [[]]], ("= [1]", "= [1]")),
        ("import math, re, collections\nf = math.gcd", [[12, 18]], ("= 6",)),
        (body("print('= 7')", "return {'é': None}"), [[]], ("= {'é': None}",)),
        (body("1 / 0"), [[], []], ("! ZeroDivisionError",) * 2),
        ("def g():\n    pass\n", [[]], ("! KeyError",)),
        ("def f(:", [[]], ("! SyntaxError",)),
        ("f = 3", [[]], ("! TypeError",)),
    ],
)
def test_calls(program, calls, results):
    outcome = sandbox.run(program, "f", calls)
    assert (outcome.results, outcome.ended) == (results, "")


@pytest.mark.parametrize(
    ("program", "results", "ended"),
    [
        (body("while True: pass"), (), sandbox.BUSY),
        ("while True: pass", (), sandbox.BUSY),
        (body("return [0] * 10**10"), ("! MemoryError",), ""),
        (body("import os", "while True: os.fork()"), ("! BlockingIOError",), ""),
        ("import os\nos._exit(0)", (), ""),
        ("import sys\nsys.exit(0)", ("! SystemExit",), ""),
        ("import os\nos.kill(os.getpid(), 9)", (), "SIGKILL"),
        (body("import os", "return dict(os.environ)"), ("= {}",), ""),
        (body("return 'a' * 10**6"), (), ""),  # its line never ends
    ],
)
def test_a_program_that_does_not_behave_is_ended_or_told_no(program, results, ended):
    outcome = sandbox.run(program, "f", [[]], FEW)
    assert (outcome.results, outcome.ended) == (results, ended)


@pytest.mark.slow
def test_a_silenced_timer_does_not_help():
    program = body("import signal", "signal.signal(27, signal.SIG_IGN)", "while True: pass")
    outcome = sandbox.run(program, "f", [[]], FEW)
    assert outcome.results == () and outcome.ended in ("SIGKILL", sandbox.BUSY)


def test_a_program_that_waits_is_ended_by_the_clock():
    program = "import os\ndef f():\n    r, w = os.pipe()\n    os.read(r, 1)\n"
    outcome = sandbox.run(program, "f", [[]], sandbox.Limits(clock=0.5))
    assert (outcome.results, outcome.ended) == ((), sandbox.WAITED)


def test_what_this_machine_leaves_open_is_found_by_trying():
    found = sandbox.closed()
    assert list(found) == ["network", "files", "processes", "environment"]
    assert found["environment"], "the environment is emptied on every system"


def test_without_namespaces_the_probes_say_so(monkeypatch):
    monkeypatch.setattr(sandbox, "_namespaces", lambda: ())
    assert sandbox.closed.__wrapped__()["network"] is False


@needs_lock
@pytest.mark.parametrize(
    "attack",
    [
        "open('/etc/passwd').read()",
        "open('mine', 'w').write('x')",
        "import os; os.mkdir('mine')",
        "import os; os.listdir('/proc')",
        "import os; os.kill(os.getppid(), 0); os.kill(1, 9); os.chroot('.')",
        "import os; os.setuid(0)",
        "import socket",
        "import subprocess",
    ],
)
def test_nothing_outside_can_be_reached(attack):
    (result,) = sandbox.run(body(attack), "f", [[]]).results
    assert result.startswith("! "), result


@needs_lock
def test_a_program_sees_an_empty_world():
    program = body("import os", "return os.listdir('/'), os.getcwd(), os.getpid() < 9")
    assert sandbox.run(program, "f", [[]]).results == ("= ([], '/', True)",)


@needs_lock
def test_killing_everything_kills_nothing_of_ours():
    other = subprocess.Popen(["sleep", "60"])
    try:
        outcome = sandbox.run(body("import os", "os.kill(-1, 9)"), "f", [[]])
        assert outcome.results == ("! ProcessLookupError",)
        assert other.poll() is None
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()


def inside(folder: Path) -> list[str]:
    """The processes whose current folder is in `folder`."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if os.readlink(link).startswith(str(folder)):
                found.append(link.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc to look for processes in")
def test_no_folder_and_no_process_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    waits = "import os\ndef f():\n    os.setsid()\n    os.read(os.pipe()[0], 1)\n"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sandbox.run, waits, "f", [[]], sandbox.Limits(clock=3.0))
        seen = False
        while not future.done():
            seen = seen or bool(inside(tmp_path))
            time.sleep(0.05)
    assert future.result().ended == sandbox.WAITED
    assert seen and inside(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_a_sandbox_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(sandbox, "_namespaces", lambda: ("false",))
    with pytest.raises(RuntimeError, match="did not start"):
        sandbox.run(body("return 1"), "f", [[]])
