"""The free memory of this machine or container, checked before lungan allocates much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lungan.errors import ConfigError

_CGROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Where the kernel keeps a container's limit, what is used, and which of that are files that it
can drop, by the controller of ``control_groups``."""


def check(needed: int, what: str, way_out: str, there_is: int | None = None) -> None:
    """Check that ``needed`` bytes can be had. what: the keys and values that ask for them.

    there_is: the bytes that are left, where they are not of this machine or container but a GPU's.

    Raises: ConfigError where less is left.
    """
    left = available() if there_is is None else there_is
    if left is not None and needed > left:
        raise ConfigError(
            f"{what} must fit into the memory that is left, {_size(left)}, and at least "
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
    for controller, (limit_name, used_name, files_name) in _CGROUP_FILES.items():
        for folder in control_groups(root, controller):
            try:
                limit = int((folder / limit_name).read_text())
                used = int((folder / used_name).read_text())
                stat = dict(each.split() for each in (folder / "memory.stat").open())
                yield limit - used + int(stat[files_name])
            except (OSError, LookupError, ValueError):  # absent, or "max" for no limit
                continue


def control_groups(root: Path = Path("/"), controller: str = "") -> Iterator[Path]:
    """The folders of the control groups that this process is in, each before those around it.

    controller: of version 1, such as ``memory``; "" for version 2, which has one tree for all.
    root: of the system. Source: the kernel's cgroup-v2 and cgroup-v1/cgroups.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controller in controllers.split(","):
            own = Path(group.lstrip("/"))
            # In a container the group's own path is often not there, but its limit is at the top.
            for each in (own, *own.parents):
                yield root / "sys/fs/cgroup" / controller / each
