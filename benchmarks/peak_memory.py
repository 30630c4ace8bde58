"""The peak memory of this process, for Pythons with and without torch."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def mebibytes() -> float:
    """Resident at most since the process began.

    Linux's own count of it: the one of getrusage outlives exec, and so tells of the parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS
