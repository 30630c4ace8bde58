"""Where a result came from: versions, commit, machine."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import lungan


def versions() -> dict[str, str]:
    """Of Python, lungan and what shapes its numbers."""
    found = {"lungan": lungan.__version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scipy", "opencv-python-headless"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that lungan runs from, ``-dirty`` where it was changed; None
    where it runs from an installed package."""
    root = Path(lungan.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--match="],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


@functools.cache
def machine() -> str:
    """Processor, its cores, and the system, such as ``Xeon 8480 (2 cores), Linux``."""
    return f"{_processor()} ({os.cpu_count()} cores), {platform.system()} {platform.machine()}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
