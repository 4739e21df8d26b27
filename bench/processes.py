"""CPU time and memory of whole roles, from /proc.

A role is one or several process trees (a database is its postmaster with all backends). CPU time is exact at each moment:
what a backend used that ended since is in its parent's count of children. Memory shared between the processes of a tree is
counted once: the sum of what each has for itself, and the largest shared part; for a process alone that is its resident set.
CPU time a log is steadier than logs a second on a machine that does other work too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_MIB: Final = 1024 * 1024
Roles = Mapping[str, Sequence[int]]
"""Role -> process ids of its roots."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a role, at a moment."""

    cpu_s: float
    """User and system time since its processes began, ended children included."""
    memory_mib: float
    """Of all its processes."""
    peak_mib: float
    """Of its largest tree: the kernel's high-water mark for a process alone, else what the tree has now."""


def usage_of(roles: Roles) -> dict[str, Usage]:
    """What each role uses; without roles of which a process is gone."""
    return {role: usage(pids) for role, pids in roles.items() if all(map(psutil.pid_exists, pids))}


def usage(roots: Sequence[int]) -> Usage:
    """What these trees use. Processes that are gone count nothing."""
    trees = [_tree(pid) for pid in roots]
    return Usage(
        cpu_s=sum(tree.cpu_s for tree in trees),
        memory_mib=sum(tree.memory_mib for tree in trees),
        peak_mib=max((tree.peak_mib for tree in trees), default=0.0),
    )


def _tree(pid: int) -> Usage:
    cpu_s, own, shared, high_water = 0.0, 0.0, 0.0, 0.0
    processes: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            times, memory = process.cpu_times(), process.memory_info()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            own += memory.rss - memory.shared
            shared = max(shared, memory.shared)
            high_water = max(high_water, peak_mib(process.pid))
    memory_mib = (own + shared) / _MIB
    return Usage(cpu_s, memory_mib, high_water if len(processes) == 1 else memory_mib)


def peak_mib(pid: int) -> float:
    """High-water mark of a process's resident set (VmHWM, proc(5)), 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
