"""Freed memory kept for the next step: giving it back costs a sixth of a large step and more."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, as in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where its C library is glibc; no effect elsewhere.

    By default glibc returns blocks of some megabytes to the kernel, and every step would get the
    memory of its feature maps back in 4 KiB pages that the kernel first has to clear.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
