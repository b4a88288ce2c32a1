"""The inner side of `sandbox`: lock this process, then run one program that nobody trusts.

Started as a script by `python -I -S`. It reads a request (marshal, from the same
interpreter) from standard input. To standard output it writes a line with the locks that
hold, and a line for every call: `= ` and the repr of what it returned, or `! ` and the name
of the exception. It does not know what the right results are.
"""

import ctypes
import marshal
import os
import signal
import struct
import sys

NOBODY = 65534  # the user and group that the system's root becomes
CAPABILITIES_VERSION = 0x20080522
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVILEGES = 1, 38  # of prctl(2)
OUT_OF_CLOCK = 200  # the exit status where time on the clock ran out; 100 + n: signal n


def main() -> None:
    """Lock, run the program in a child, and end with a status that says how it ended."""
    request = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 # our own process wrote it
    for name in (
        "resource",
        *request["modules"],
    ):  # behind the lock there are no files to import from
        __import__(name)
    results, silence = os.dup(1), os.open(os.devnull, os.O_RDWR)
    libc = ctypes.CDLL(None)
    locks = [lock.__name__ for lock in (files, privileges) if lock(libc)]
    os.write(results, f"{' '.join(locks)}\n".encode())
    os.environ.clear()  # Python puts its locale there
    outer, child = os.getpid(), os.fork()
    if child:
        os._exit(watch(child, request["clock"]))
    libc.prctl(SET_DEATH_SIGNAL, 9, 0, 0, 0)
    if os.getppid() == outer:
        for number in range(3):
            os.dup2(silence, number)
        limit(request["limits"], request["seconds"])
        perform(request["program"], request["entry"], request["calls"], results)
    os._exit(0)


def files(libc: ctypes.CDLL) -> bool:
    """Make the empty current folder the root: no other file can be opened or imported."""
    try:
        os.chroot(".")
        os.chdir("/")
    except OSError:  # no right to
        return False
    return True


def privileges(libc: ctypes.CDLL) -> bool:
    """Give up all capabilities, for good, and root itself where this is the system's root."""
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    except OSError:  # an ordinary user, or one who is called root in a namespace only
        pass
    libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return libc.capset(struct.pack("Ii", CAPABILITIES_VERSION, 0), bytes(24)) == 0


def watch(child: int, clock: float) -> int:
    """Wait for `child`, at most `clock` seconds; the status to end with."""
    late = []

    def end(*_: object) -> None:
        late.append(True)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, clock)
    status = os.waitpid(child, 0)[1]
    if late:
        return OUT_OF_CLOCK
    return 100 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def limit(limits: list, seconds: float) -> None:
    """Set the limits, which cannot be raised again, and the timer of processor time."""
    import resource  # here, since Windows has none and imports this file all the same

    for name, value in limits:
        resource.setrlimit(getattr(resource, name), (value, value))
    signal.setitimer(signal.ITIMER_PROF, seconds)


def perform(program: str, entry: str, calls: list, results: int) -> None:
    """Define the program, call its function, and write what comes of each call."""

    def tell(text: str) -> None:
        os.write(results, (text + "\n").encode("utf-8", "backslashreplace"))

    space: dict = {"__name__": "program"}
    try:
        exec(compile(program, "program", "exec"), space)  # noqa: S102 # what all this is for
        function = space[entry]
    except BaseException as error:  # SystemExit is one of them
        return tell("! " + type(error).__name__)
    for arguments in calls:
        try:
            tell("= " + repr(function(*arguments)))
        except BaseException as error:
            tell("! " + type(error).__name__)


if __name__ == "__main__":
    main()
