"""Cores and memory that this process may use: those of the machine, within its affinity and its control groups."""

import os
from pathlib import Path

MEMORY, OWN_GROUP, GROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux tells of the memory, and of the control group of this process; elsewhere they are not there."""


def usable_cores() -> float:
    """Count the cores that this process may use; a part of one where its control group has a share of the time."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [_text(group / "cpu.max").split() for group in _groups()]
    return min([count, *(int(share[0]) / int(share[1]) for share in shares if share and share[0] != "max")])


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory that the machine has, and that programs may still take; None where it does not say."""
    sizes = {words[0]: int(words[1]) * 1024 for line in _text(MEMORY).splitlines() if len(words := line.split()) > 1}
    if "MemTotal:" in sizes:
        return sizes["MemTotal:"], sizes.get("MemAvailable:")
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None, None
    return (pages * size, None) if pages > 0 and size > 0 else (None, None)


def memory_limit() -> int | None:
    """Bytes of memory that the control groups let this process have at most; None without a limit."""
    return min((limit for _, limit in _memory_limits()), default=None)


def available_memory() -> int | None:
    """Bytes of memory that this process may still take, or else those of the machine; None where neither is known.

    What a control group has of files in memory is given back when it is needed.
    """
    whole, available = memory()
    free = [whole if available is None else available]
    for group, limit in _memory_limits():
        held = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        files = sum(int(held.get(name, 0)) for name in ("active_file", "inactive_file"))
        free.append(max(0, limit - int(_text(group / "memory.current") or 0) + files))
    return min((size for size in free if size is not None), default=None)


def _memory_limits() -> list[tuple[Path, int]]:
    limits = [(group, _text(group / "memory.max")) for group in _groups()]
    return [(group, int(limit)) for group, limit in limits if limit.isdecimal()]  # others are `max`


def _groups() -> list[Path]:
    """List the folders of the control group of this process and of those that hold it."""
    lines = _text(OWN_GROUP).splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    return [folder for folder in (GROUPS / own, *(GROUPS / own).parents) if folder.is_relative_to(GROUPS)]


def _text(file: Path) -> str:
    """Read a file; empty if it is not there."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
