"""The free memory of this machine or container, checked before lungan allocates much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lungan.errors import ConfigError

_CGROUP_FILES = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}
"""Where the kernel keeps a container's limit, what is used, and which of that are files that it
can drop: of version 2, whose lines name no controller, and of version 1."""


def check(needed: int, what: str, way_out: str) -> None:
    """Check that ``needed`` bytes can be had. what: the keys and values that ask for them.

    Raises: ConfigError where this machine or this container has less left.
    """
    there_is = available()
    if there_is is not None and needed > there_is:
        raise does_not_fit(needed, there_is, what, way_out)


def does_not_fit(needed: int, there_is: int, what: str, way_out: str) -> ConfigError:
    return ConfigError(
        f"{what} must fit into the memory that is left, {_size(there_is)}, and at least "
        f"{_size(needed)} would be taken; {way_out}"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes // 2**20} MiB"


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process can still get: what the machine has left, swap included,
    or what its container has left, where that is less. None where the system does not say.

    Source: proc_meminfo(5), and the kernel's cgroup-v1/memory and cgroup-v2. root: of the system.
    """
    left = list(_left_to_containers(root))
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        left.append((kib["MemAvailable"] + kib.get("SwapFree", 0)) * 1024)
    except (OSError, LookupError, ValueError):
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
            left.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return max(0, min(left)) if left else None


def _left_to_containers(root: Path) -> Iterator[int]:
    """What each control group that this process is in, directly or not, has left."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        kind = "memory" if "memory" in controllers.split(",") else controllers
        if kind not in _CGROUP_FILES:
            continue
        mount, limit_name, used_name, files_name = _CGROUP_FILES[kind]
        own = Path(group.lstrip("/"))
        # Inside a container the group's own path is often not there, but its limit is at the top.
        for folder in (root / mount / each for each in (own, *own.parents)):
            try:
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text())
                stat = dict(each.split() for each in (folder / "memory.stat").open())
                yield limit - used + int(stat[files_name])
            except (OSError, LookupError, ValueError):  # absent, or "max" for no limit
                continue
