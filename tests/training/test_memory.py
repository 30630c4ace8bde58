"""Pages that the kernel has to hand out again, counted in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from lungan.training.memory import keep_freed_memory
if {keep}: keep_freed_memory()
def work():
    for _ in range(8): torch.empty(8 << 20).fill_(1)  # 32 MiB
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_freed_memory_is_used_again() -> None:
    assert faults(keep=False) > 60_000
    assert faults(keep=True) < 10_000  # where a freed block lies is up to the allocator
