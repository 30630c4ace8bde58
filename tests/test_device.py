from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lungan import device as device_module
from lungan.device import cpu_flags, resolve_device, resolve_precision
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


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="precision must be one of auto, fp32, bf16, got fp16"):
        resolve_precision("fp16", CPU)


def test_cpu_flags_are_read_from_cpuinfo(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "absent") == set()
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16\nbugs\t\t: none\n")
    assert cpu_flags(cpuinfo) == {"fpu", "amx_bf16"}
