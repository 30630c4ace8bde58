"""Weights files: what is refused, and in which words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lungan.errors import WeightsError
from lungan.scores.weights import checked_hash, load_into, read_tensors


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def fitting() -> dict[str, Tensor]:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("counted", [True, False])
def test_fitting_weights_are_loaded_in_fp32(dtype: torch.dtype, counted: bool) -> None:
    tensors = {name: value.to(dtype) for name, value in fitting().items()}
    if not counted:
        del tensors["1.num_batches_tracked"]
    into = network()
    load_into(into, tensors, Path("w"))
    torch.testing.assert_close(into.state_dict()["0.weight"], tensors["0.weight"].float())
    assert into.eval()(torch.ones(1, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("0.bias"),
            r"not for this network: it lacks the tensor 0\.bias; give",
        ),
        (
            lambda tensors: tensors.update(other=torch.ones(1)),
            "it has no place for the tensor other; give",
        ),
        (
            lambda tensors: tensors.update({"0.bias": torch.ones(4)}),
            r"0\.bias must be \(3,\) float32, got \(4,\) float32",
        ),
        (
            lambda tensors: tensors.update({"0.bias": torch.full((3,), torch.nan)}),
            r"holds non-finite numbers in 0\.bias",
        ),
    ],
)
def test_others_are_refused(change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    tensors = dict(fitting())
    change(tensors)
    with pytest.raises(WeightsError, match=message):
        load_into(network(), tensors, Path("w"))


def _dump(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("write", [torch.save, _dump])
def test_a_pickle_payload_does_not_run(
    write: Callable[[object, Path], None], tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    write({"0.bias": Payload()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="never unpickled"):
        read_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_not_a_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="mapping of names to tensors"):
        read_tensors(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a file of weights"])
def test_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        read_tensors(tmp_path / "w.pth")


def test_a_folder_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        checked_hash(tmp_path)


def test_a_name_without_a_hash_promises_none(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    assert checked_hash(tmp_path / "mine.pth").startswith("e3b0c442")
