"""Where a run computes, and in which precision."""

from __future__ import annotations

from pathlib import Path

import torch

from lungan.errors import ConfigError

NATIVE_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
NATIVE_BF16_CUDA_CAPABILITY = (8, 0)


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>`` stands for.

    Raises: ConfigError for another name, or where that device is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (":" in name and not index.isdigit()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:<index>, got {name}")
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
    """``fp32`` or ``bf16``; ``auto`` is bf16 where the hardware computes in it natively.

    Raises: ConfigError for another name.
    """
    if name == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    if name not in ("fp32", "bf16"):
        raise ConfigError(f"precision must be one of auto, fp32, bf16, got {name}")
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
    if not cpuinfo.is_file():
        return set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
