"""Running a program that nobody trusts, and reading what its function returns.

Every program gets a process of its own, started from nothing, that is locked before it
sees the program's text (`sandbox_cell`). Whoever judges stays outside: the process gets
arguments and gives back text, and neither knows the right results nor says whether they
are right. Chapter 12.

What closes it, on Linux: empty namespaces for processes, network and messages (`unshare`),
an empty folder as root, no capabilities, an empty environment, limits on processor time,
time on the clock, memory, output, open files, and no further process. `closed` tries each
and says what holds on this machine: without the right to make namespaces, only limits do.
What it does not close: the kernel. A program runs as machine code and may make any system
call, so a fault of the kernel is a way out, and timing tells it about the machine. For
programs of an adversary, take a virtual machine around this.
"""

from __future__ import annotations

import marshal
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from limo_nb.grading import sandbox_cell

# What programs may import: pure computation, and quick to load.
MODULES = (
    "bisect", "collections", "functools", "heapq", "itertools", "math", "operator", "re",
    "string",
)  # fmt: skip
GRACE = 5.0  # seconds to start and to end, beside the program's own time on the clock
WAITED, BUSY = "waited too long", "out of time"  # of Outcome.ended
NAMESPACES = ("--net", "--ipc", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Limits:
    """What one program may use, for its definition and all calls together."""

    seconds: float = 0.5  # of processor time
    clock: float = 30.0  # seconds on the clock, for a program that waits
    memory: int = 256 << 20  # bytes of address space
    output: int = 1 << 16  # bytes of results, and of any file
    descriptors: int = 16

    def of_system(self) -> list[tuple[str, int]]:
        """Names and values for setrlimit; no process, no core file."""
        return [
            ("RLIMIT_CPU", ceil(self.seconds) + 1),  # where a program silences the timer
            ("RLIMIT_AS", self.memory),
            ("RLIMIT_FSIZE", self.output),
            ("RLIMIT_NOFILE", self.descriptors),
            ("RLIMIT_NPROC", 0),
            ("RLIMIT_CORE", 0),
        ]


@dataclass(frozen=True)
class Outcome:
    """What a program did: the text of each call's result, and how the process ended.

    A result is `= ` and a repr, or `! ` and the name of an exception; there are fewer
    than calls where the process ended early. `ended` is "" for a process that ended by
    itself, else BUSY, WAITED, or the name of a signal.
    """

    results: tuple[str, ...]
    ended: str
    locks: frozenset[str]


def run(
    program: str,
    entry: str,
    calls: Sequence[Sequence[Any]],
    limits: Limits = Limits(),
    modules: Sequence[str] = MODULES,
) -> Outcome:
    """Define `program` in a locked process and call its function `entry`.

    Arguments are plain data (numbers, texts, lists, mappings). Nothing of the process is
    left afterwards. Raises RuntimeError if the process could not be started; what a
    program does raises nothing.
    """
    request = marshal.dumps(
        {
            "program": program, "entry": entry, "calls": [list(call) for call in calls],
            "limits": limits.of_system(), "seconds": limits.seconds, "clock": limits.clock,
            "modules": list(modules),
        }
    )  # fmt: skip
    # -I -S: no environment, no site-packages, not the current folder. -B: no cache files.
    command = [*_namespaces(), sys.executable, "-I", "-S", "-B", sandbox_cell.__file__]
    with tempfile.TemporaryFile() as output, _empty_folder() as folder:
        status = _finish(command, request, folder, output, limits.clock + GRACE)
        output.seek(0)
        said = output.read(limits.output).decode("utf-8", "replace").split("\n")
    if len(said) < 2:  # it ended before the program began
        raise RuntimeError(f"the sandbox did not start (status {status}): {' '.join(command)}")
    # The text behind the last line feed is a line that was cut off.
    return Outcome(tuple(said[1:-1][: len(calls)]), _ending(status), frozenset(said[0].split()))


def _finish(command: list[str], request: bytes, folder: str, output: Any, most: float) -> int:
    """The exit status of `command`; negative where it had to be killed from here."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.DEVNULL, env={},
        cwd=folder, start_new_session=True,
    )  # fmt: skip
    try:
        process.communicate(request, timeout=most)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def _ending(status: int) -> str:
    if status == sandbox_cell.OUT_OF_CLOCK or status < 0:
        return WAITED
    number = status - 100
    if number in (signal.SIGPROF, signal.SIGXCPU):
        return BUSY
    return signal.Signals(number).name if number > 0 else ""


@contextmanager
def _empty_folder() -> Iterator[str]:
    """A folder that a program cannot write to, where it has become another user."""
    folder = tempfile.mkdtemp(prefix="limo-nb-")
    try:
        os.chmod(folder, 0o555)  # noqa: S103 # nobody may write
        yield folder
    finally:
        os.chmod(folder, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _namespaces() -> tuple[str, ...]:
    """The command that puts what follows into empty namespaces; () where none works."""
    tool = shutil.which("unshare")
    # An ordinary user needs a user namespace; root does not, and must not stay root.
    mapped = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = (tool, *mapped, *NAMESPACES)
    if tool and not subprocess.run([*command, "true"], capture_output=True).returncode:
        return command
    return ()


# What programs were seen to do, or could: each a line that a function runs before it returns
# the right result. None of them harms a machine that does not stop it.
ATTACKS = {
    "loop for ever": "while True: pass",
    "take all memory": "[0] * 10**11",
    "start a process": "import os; os.fork()",
    "write a file": "open('mine', 'w')",
    "read a file": "open('/etc/passwd')",
    "read the environment": "import os; os.environ['PATH']",
    "reach the network": "import socket; socket.create_server(('', 0))",
    "end before the tests": "import os; os._exit(0)",
    "print a verdict": "print('3 tests passed'); raise SystemExit(0)",
    "patch what compares": "import builtins; builtins.repr = lambda x: '2'",
}


# ---------------------------------------------------------------- what holds here
PROBES = {
    "network": """
def probe(port, path):
    import socket
    with socket.socket() as one:
        one.settimeout(1)
        one.connect(("127.0.0.1", port))
""",
    "files": """
def probe(port, path):
    open(path).close()
""",
    "processes": """
def probe(port, path):
    import os
    if os.fork() == 0:
        os._exit(0)
""",
    "environment": """
def probe(port, path):
    import os
    if not os.environ:
        raise OSError("empty")
""",
}


@cache
def closed() -> dict[str, bool]:
    """What is closed to programs on this machine, each found by trying.

    Network: a port that listens here. Files: one that all may read. Processes: another
    one. Environment: any variable.
    """
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.TemporaryDirectory() as at:
        os.chmod(at, 0o755)  # noqa: S103 # the probe must be readable
        path = Path(at) / "readable"
        path.write_text("")
        call = [server.getsockname()[1], str(path)]
        found = {
            name: run(program, "probe", [call], modules=(*MODULES, "socket")).results
            for name, program in PROBES.items()
        }
    if () in found.values():
        raise RuntimeError(f"a probe of the sandbox did not run: {found}")
    return {name: result.startswith("! ") for name, (result,) in found.items()}
