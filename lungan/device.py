"""Where a run computes, in which precision, and with how many CPU threads."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Collection
from pathlib import Path

import torch

from lungan import memory
from lungan.errors import ConfigError, shown

NATIVE_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
NATIVE_BF16_CUDA_CAPABILITY = (8, 0)

LOOK_SECONDS = 0.25
"""How long threads=auto looks at what others do; Linux counts in hundredths of a second."""

_TORCHS_THREADS = torch.get_num_threads()
"""Before any run sets another number: OMP_NUM_THREADS, or the physical cores of this process."""


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>`` stands for.

    Raises: ConfigError for another name, or where that device is not there.
    """
    given, name = name, str(name)  # Python may give torch's own device
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (":" in name and not index.isdigit()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:<index>, got {shown(given)}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise ConfigError(
            f"device={name} needs a CUDA device and torch finds none; use device=cpu or device=auto"
        )
    number = int(index or 0)
    if number >= count:
        raise ConfigError(f"device must be cuda:<index> with an index below {count}, got {name}")
    return torch.device("cuda", number)


def resolve_precision(name: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is bf16 where the hardware computes in it natively."""
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    return name


def has_native_bf16(device: torch.device) -> bool:
    """CUDA from capability 8.0 on; a CPU with AVX-512 BF16 or AMX, where Linux says so."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= NATIVE_BF16_CUDA_CAPABILITY
    return bool(cpu_flags() & NATIVE_BF16_CPU_FLAGS)


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it natively, else float32.

    Emulated bfloat16 is slower than float32 and buys nothing.
    """
    return torch.bfloat16 if has_native_bf16(device) else torch.float32


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction-set flags of this machine's CPU; none where the system does not list them."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    flags = re.search("^flags.*?:(.*)$", text, re.MULTILINE)
    return set(flags[1].split()) if flags else set()


def choose_threads(wanted: int | str, share: int = 0) -> int:
    """The CPU threads of a run that begins now.

    wanted: the config's ``threads``. A number stands for itself. 0 is ``share``, the cores that a
    sweep gives to a run beside its others, or where that is 0 too, ``cores()``. ``auto`` is the
    same, but without a share it leaves out the cores that other processes keep busy now.
    """
    if wanted == "auto" and not share:
        return max(1, round(min(cores(), idle_cores())))
    return int(wanted) if wanted not in ("auto", 0) else share or cores()


def cores() -> int:
    """CPU cores that this process may use, at least 1: as many as torch takes by itself, which is
    OMP_NUM_THREADS, or the physical cores of the process' affinity; and no more than a container
    lets it use."""
    return max(1, math.floor(min(_TORCHS_THREADS, container_cores())))


def container_cores(root: Path = Path("/")) -> float:
    """CPU cores that the control groups (version 2) of this process let it use, as Docker,
    Kubernetes and systemd set them; infinity where nothing does. root: of the system.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max.
    """
    limit = math.inf
    for group in memory.control_groups(root):
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                limit = min(limit, int(quota) / int(period))
    return limit


def idle_cores(stat: Path = Path("/proc/stat"), seconds: float = LOOK_SECONDS) -> float:
    """How many of this process' cores nobody used for the next ``seconds``, in which it waits;
    infinity where the system does not tell, as on macOS."""
    if not stat.is_file():
        return math.inf
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    before = _idle_and_all_ticks(stat, mine)
    time.sleep(seconds)
    after = _idle_and_all_ticks(stat, mine)
    idle, ticks = (late - early for late, early in zip(after, before, strict=True))
    return len(mine) * idle / ticks if ticks else math.inf


def _idle_and_all_ticks(stat: Path, names: Collection[str]) -> tuple[int, int]:
    """Ticks since the system began, of CPUs by their names in /proc/stat.

    Source: proc_stat(5). The fourth and fifth numbers are idle time; the last two, of guests, are
    in the first two already.
    """
    idle = ticks = 0
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            numbers = [int(field) for field in fields[:8]]
            idle += numbers[3] + numbers[4]
            ticks += sum(numbers)
    return idle, ticks
