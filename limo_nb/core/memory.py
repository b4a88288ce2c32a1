"""Memory: what is free for this process, and whether the kernel ended one for want of it.

A container's limit (control group, version 1 or 2) counts as much as the machine's memory:
what asks for more is killed, whatever the machine has left. GB are 10⁹ bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

GB = 10**9
# How a process that was killed ends: its own status, a shell's, and that of DeepSpeed's
# launcher, which exits with the status -9 of a rank.
KILLED = (-9, 137, 247)
CGROUPS = Path("/sys/fs/cgroup")
# Of version 2 and 1: the limit, what is used, and pages of files that can be dropped.
NAMES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class NotEnoughMemory(ValueError):
    """What is asked for is estimated to need more memory than there is; nothing was begun."""


class Memory(NamedTuple):
    """Bytes of host memory: free for this process, and there in all."""

    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.free / GB:.1f} of {self.total / GB:.1f} GB free"


def host_memory() -> Memory:
    """What the system can give without swapping, or the tightest control group, if less."""
    system = psutil.virtual_memory()
    found = [Memory(system.available, system.total), *filter(None, map(_limit, _groups()))]
    return Memory(min(m.free for m in found), min(m.total for m in found))


def free_memory() -> Memory:
    """That of the GPU where there is one, else of the host."""
    import torch  # seconds, which a command that only asks the host need not wait

    if torch.cuda.is_available():
        return Memory(*torch.cuda.mem_get_info())
    return host_memory()


def process_bytes(pid: int) -> int:
    """Resident memory of the process `pid` and all its children; 0 when they are gone."""
    total = 0
    with suppress(psutil.Error):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def kills() -> int:
    """How often the kernel has ended a process for want of memory, here or in our groups.

    The difference of two counts says whether it happened in between. 0 where no kernel
    counts.
    """
    files = [Path("/proc/vmstat")]
    for group in _groups():
        files += [group / "memory.events", group / "memory.oom_control"]
    return sum(_field(file, "oom_kill") for file in files)


def _groups() -> Iterator[Path]:
    """The folders of this process's memory groups, the outer ones too."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        number, kinds, path = line.split(":", 2)
        roots = [CGROUPS / "memory"] if "memory" in kinds.split(",") else []
        roots = [CGROUPS, CGROUPS / "unified"] if number == "0" else roots
        # In a container the path may be that of the host, of which only the end is here.
        parts = Path(path.lstrip("/")).parts
        for root in roots:
            yield from (root.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _limit(group: Path) -> Memory | None:
    """What `group` allows; None without a limit."""
    for limit, used, cached in NAMES:
        with suppress(OSError, ValueError):  # "max" is no number
            total = int((group / limit).read_text())
            if total >= psutil.virtual_memory().total:
                return None
            taken = int((group / used).read_text()) - _field(group / "memory.stat", cached)
            return Memory(max(0, total - taken), total)
    return None


def _field(file: Path, name: str) -> int:
    """The number behind `name` in a file of names and numbers; 0 where there is none."""
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def killed_words(before: int, most: int = 0, levers: Sequence[str] = ()) -> str:
    """A sentence on a process that was ended by signal 9: for memory, as far as is known.

    `before` is the count of `kills` when it began, `most` the highest resident memory seen,
    in bytes, 0 for unknown; `levers` are settings that would take less.
    """
    why = "by signal 9, which the system sends where memory is short"
    if kills() > before:
        why = "for memory: the kernel's count of such kills rose meanwhile"
    peak = f"; it was seen to hold {most / GB:.1f} GB" if most else ""
    less = f". What takes less: {'; '.join(levers)}" if levers else ""
    return f"it was killed {why}{peak}; now {host_memory()}{less}"


def require(
    what: str, parts: Mapping[str, int], there: Memory, levers: Sequence[str], force: bool
) -> str:
    """That `what`, which needs `parts` (bytes by name, estimated), fits: one line.

    Raises NotEnoughMemory with the numbers where it does not, and with `levers`, settings
    that would take less, each with what they would come to. With `force` that is told too,
    and no error.
    """
    need = sum(parts.values())
    of = ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items() if size > GB / 20)
    told = f"{what} needs about {need / GB:.1f} GB ({of}); {there}"
    if need <= there.free:
        return told
    if force:
        return f"{told}: more than there is, and started as asked (force)"
    would = "; ".join(levers) or "nothing that this program knows: take a smaller model"
    raise NotEnoughMemory(
        f"{told}: not started. What would fit: {would}. To start it all the same: --force, or "
        "the field `force` of the profile's `sft` or `engine`"
    )
