"""Pages that the kernel has to hand out again, counted in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import ctypes, resource
from lungan.training.memory import keep_freed_memory
if {keep}: keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def work():
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4): work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc only")
def test_freed_memory_is_used_again() -> None:
    given_back = faults(keep=False)
    assert faults(keep=True) < given_back / 10
