"""The registry reaches every reader and pays for none that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungan import registry
from lungan.config import DataConfig
from lungan.config.data import (
    FolderConfig,
    NpzConfig,
    PhantomConfig,
    PneumoniaMnistConfig,
    TableConfig,
)
from lungan.data.build import load
from lungan.errors import ConfigError

CONFIGS = {
    "phantom": lambda _: PhantomConfig(
        **{"name": "phantom", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"num_images": 20, "num_test": 4, "seed": 0},
    ),
    "pneumoniamnist": lambda folder: PneumoniaMnistConfig(
        **{"name": "pneumoniamnist", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"path": str(folder / "data.npz"), "download": False},
    ),
    "folder": lambda folder: FolderConfig(
        **{"name": "folder", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"path": str(folder / "images"), "on_bad_image": "error"},
        **{"val_fraction": 0.0, "test_fraction": 0.0},
    ),
    "table": lambda folder: TableConfig(
        **{"name": "table", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"path": str(folder / "films.csv"), "root": None, "image_column": "file"},
        **dict.fromkeys(("label_column", "label", "group_column", "split_column")),
        **{"where": "", "on_bad_image": "error", "val_fraction": 0.0, "test_fraction": 0.0},
    ),
    "npz": lambda folder: NpzConfig(
        **{"name": "npz", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"path": str(folder / "data.npz"), "val_fraction": 0.0, "test_fraction": 0.0},
    ),
}


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
        arrays[f"{split}_labels"] = np.array([[0], [1]], np.uint8)
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.eye(30, dtype=np.uint8))
    (tmp_path / "films.csv").write_text("file\nimages/a.png\n")
    return tmp_path


def test_every_choice_of_the_config_is_here() -> None:
    assert set(CONFIGS) == set(registry.known("data"))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_reader_gives_all_splits(name: str, data_folder: Path) -> None:
    images = load(CONFIGS[name](data_folder), progress=False)
    assert images.images.shape[1:] == (1, 28, 28)
    assert images.split_names == ("train", "val", "test")
    assert len(images.select(["train"], [])) > 0


def test_an_unknown_config_is_refused() -> None:
    config = DataConfig(name="nih", size=28, channels=1, splits=[], classes=[])
    with pytest.raises(
        ConfigError, match=r"data\.name must be one of .*phantom, pneumoniamnist.*, got nih"
    ):
        load(config)


def test_readers_import_neither_torch_nor_each_others_packages() -> None:
    code = (
        "import sys, lungan.data.build, lungan.data.npz, lungan.data.folder, lungan.data.medmnist;"
        "print([name for name in ('torch', 'hydra', 'pydicom', 'pandas') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert result.stdout.strip() == "[]"
