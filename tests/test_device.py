from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from lungan import device as device_module
from lungan.device import (
    choose_threads,
    container_cores,
    cores,
    cpu_flags,
    idle_cores,
    resolve_device,
    resolve_precision,
)
from lungan.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("without_cuda")
def test_devices_without_cuda() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"device=cuda:1 needs a CUDA device .* use device=cpu"):
        resolve_device("cuda:1")


@pytest.mark.usefixtures("two_cuda_devices")
def test_devices_with_cuda() -> None:
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:0")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match="index below 2, got cuda:2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"device must be auto, cpu, cuda or cuda:<index>"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ({"avx2", "avx512f"}, "fp32"),
        ({"avx512_bf16"}, "bf16"),
        ({"amx_bf16", "amx_tile"}, "bf16"),
        (set(), "fp32"),
    ],
)
def test_precision_auto_follows_the_cpu(
    flags: set[str], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "cpu_flags", lambda: flags)
    assert resolve_precision("auto", CPU) == precision
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16")])
def test_precision_auto_follows_the_gpu(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert resolve_precision("auto", torch.device("cuda:0")) == precision


def test_cpu_flags_are_read_from_cpuinfo(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "absent") == set()
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16\nbugs\t\t: none\n")
    assert cpu_flags(cpuinfo) == {"fpu", "amx_bf16"}


@pytest.mark.parametrize(
    ("wanted", "share", "idle", "threads"),
    [
        (3, 0, 0.0, 3),
        (3, 2, 0.0, 3),
        (0, 0, 0.0, 8),
        (0, 2, 0.0, 2),
        ("auto", 2, 0.0, 2),
        ("auto", 0, 7.8, 8),
        ("auto", 0, 6.9, 7),
        ("auto", 0, 0.2, 1),
        ("auto", 0, 15.0, 8),  # other cores are idle too, which this process may not use
        ("auto", 0, math.inf, 8),
    ],
)
def test_threads_are_chosen_by_cores_and_load(
    monkeypatch: pytest.MonkeyPatch, wanted: int | str, share: int, idle: float, threads: int
) -> None:
    monkeypatch.setattr(device_module, "cores", lambda: 8)
    monkeypatch.setattr(device_module, "idle_cores", lambda: idle)
    assert choose_threads(wanted, share) == threads


@pytest.mark.parametrize(("limit", "number"), [(math.inf, 8), (2.5, 2), (0.3, 1), (16.0, 8)])
def test_cores_are_those_of_the_container(
    monkeypatch: pytest.MonkeyPatch, limit: float, number: int
) -> None:
    monkeypatch.setattr(device_module, "_TORCHS_THREADS", 8)
    monkeypatch.setattr(device_module, "container_cores", lambda: limit)
    assert cores() == number


def test_the_tightest_control_group_limits_the_cores(tmp_path: Path) -> None:
    groups, tree = tmp_path / "proc/self/cgroup", tmp_path / "sys/fs/cgroup"
    assert container_cores(tmp_path) == math.inf
    groups.parent.mkdir(parents=True)
    groups.write_text("4:memory:/other\n0::/a/b\n")
    assert container_cores(tmp_path) == math.inf
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert container_cores(tmp_path) == math.inf
    (tree / "a" / "cpu.max").write_text("250000 100000\n")
    assert container_cores(tmp_path) == 2.5
    groups.write_text("0::/\n")  # as inside a container
    (tree / "cpu.max").write_text("50000 100000\n")
    assert container_cores(tmp_path) == 0.5


def test_idle_cores_are_counted_over_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    assert idle_cores(stat) == math.inf
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2})

    def write(*idle: int) -> None:
        rows = [f"cpu{n} {1000 - ticks} 0 0 {ticks} 0 0 0 0 7 0" for n, ticks in enumerate(idle)]
        stat.write_text("\n".join(["cpu  9 9 9 9 9 9 9 9 9 9", *rows, "intr 5 6"]))

    stat.write_text("cpu1 100 0 0 0 0 0 0 0 0 0\ncpu2 100 0 0 0 0 0 0 0 0 0\n")
    monkeypatch.setattr(device_module.time, "sleep", lambda _: write(900, 900, 450))
    assert idle_cores(stat) == 1.5  # of the 900 ticks of each, 900 and 450 idle
