"""How much longer a command takes beside other work: idle, then beside busy processes.

    benchmarks/busy.py --busy 2 -- make test

Prints both times and their ratio. The busy processes do nothing but sums, one core each;
on as many cores a command that shares them fairly takes twice its time, and one whose
threads spin while they wait many times as long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time

from limo_nb.core.machine import hardware


def burn() -> None:
    """Keep one core busy until the parent ends it."""
    while True:
        sum(range(100_000))


def seconds(command: list[str]) -> float:
    """The time of `command`; its output goes to stderr. Raises where it fails."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr)
    return time.perf_counter() - started


def beside(command: list[str], count: int) -> float:
    """The time of `command` beside `count` busy processes."""
    others = [multiprocessing.Process(target=burn, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        return seconds(command)
    finally:
        for other in others:
            other.kill()


def main() -> None:
    """Measure the command that follows `--`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=os.cpu_count())
    parser.add_argument("--idle-seconds", type=float, help="measured before: not run again")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    idle = given.idle_seconds or seconds(given.command)
    busy = beside(given.command, given.busy)
    print(hardware())
    print(
        f"idle {idle:.0f} s, beside {given.busy} busy processes {busy:.0f} s: {busy / idle:.2f}"
    )


if __name__ == "__main__":
    main()
