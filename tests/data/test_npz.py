"""Arrays from .npz: both kinds of keys, every wrong kind refused, nothing unpickled."""

from __future__ import annotations

import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lungan.config.data import NpzConfig
from lungan.data.npz import load_npz
from lungan.errors import ConfigError, DataError

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8)
RGB = rng.integers(0, 256, (12, 28, 28, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def config(path: Path, **changes: Any) -> NpzConfig:
    settings: dict[str, Any] = {
        **{"name": "npz", "size": 28, "channels": 1, "splits": [], "classes": []},
        **{"path": str(path), "val_fraction": 0.0, "test_fraction": 0.0},
    }
    return NpzConfig(**{**settings, **changes})


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("shape", [(12, 28, 28), (12, 28, 28, 1)])
@pytest.mark.parametrize("label_shape", [(12,), (12, 1)])
@pytest.mark.parametrize("label_type", [np.uint8, np.int32, np.uint64])
def test_images_and_labels(
    tmp_path: Path, shape: tuple[int, ...], label_shape: tuple[int, ...], label_type: type
) -> None:
    labels = (LABELS + 5).astype(label_type).reshape(label_shape)
    path = save(tmp_path, images=GREY.reshape(shape), labels=labels)
    images = load_npz(config(path))
    assert np.array_equal(images.images[:, 0], GREY)
    assert images.class_names == ("5", "6", "7")
    assert np.array_equal(images.labels, LABELS)
    assert (images.splits == 0).all()
    assert images.source == "data.npz (12 images), at 28x28"


def test_without_labels_there_is_one_class(tmp_path: Path) -> None:
    images = load_npz(config(save(tmp_path, images=GREY)))
    assert images.class_names == ("all",)
    assert (images.labels == 0).all()


def test_medmnist_keys(tmp_path: Path) -> None:
    parts = {"train": slice(0, 7), "val": slice(7, 9), "test": slice(9, 12)}
    arrays = {}
    for split, part in parts.items():
        arrays[f"{split}_images"] = RGB[part]
        arrays[f"{split}_labels"] = LABELS[part, None].astype(np.uint8)
    images = load_npz(config(save(tmp_path, **arrays), channels=3))
    assert np.array_equal(images.images, RGB.transpose(0, 3, 1, 2))
    assert np.array_equal(images.labels, LABELS)
    assert images.splits.tolist() == [0] * 7 + [1] * 2 + [2] * 3


def test_some_splits_may_be_absent_and_sizes_differ(tmp_path: Path) -> None:
    path = save(tmp_path, train_images=GREY, test_images=RGB[:, :20, :20])
    images = load_npz(config(path))
    assert images.images.shape == (24, 1, 28, 28)
    assert images.splits.tolist() == [0] * 12 + [2] * 12


@pytest.mark.parametrize(("array", "channels"), [(GREY, 3), (RGB, 1), (RGB, 3)])
def test_other_sizes_and_channels(tmp_path: Path, array: np.ndarray, channels: int) -> None:
    path = save(tmp_path, images=array)
    images = load_npz(config(path, size=14, channels=channels)).images
    assert images.shape == (12, channels, 14, 14)
    weights = np.array([0.299, 0.587, 0.114])
    colour = np.stack([array] * 3, axis=-1) if array.ndim == 3 else array
    wanted = colour if channels == 3 else (colour @ weights)[..., None]
    means = wanted.reshape(12, 14, 2, 14, 2, channels).mean(axis=(2, 4)).transpose(0, 3, 1, 2)
    assert np.abs(images - means).max() <= 1.01


def test_shares_split_by_content(tmp_path: Path) -> None:
    many = rng.integers(0, 256, (300, 28, 28), dtype=np.uint8)
    path = save(tmp_path, images=np.concatenate([many, many]))
    splits = load_npz(config(path, val_fraction=0.2, test_fraction=0.2)).splits
    assert np.array_equal(splits[:300], splits[300:])
    assert np.bincount(splits, minlength=3).min() > 50


def test_one_of_several_labels_or_none_at_all(tmp_path: Path) -> None:
    findings = rng.integers(0, 2, (12, 14), dtype=np.uint8)
    path = save(tmp_path, train_images=GREY, train_labels=findings)
    chosen = load_npz(config(path, label_column=13))
    assert chosen.class_names == ("0", "1")
    assert chosen.labels.tolist() == findings[:, 13].tolist()
    assert load_npz(config(path, labels="none")).class_names == ("all",)
    with pytest.raises(DataError, match=r"by data.label_column=0 to 13, or data.labels=none$"):
        load_npz(config(path))
    with pytest.raises(DataError, match=r"0 to 13, .*, got data.label_column=14$"):
        load_npz(config(path, label_column=14))


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "objects.npz"
    np.savez(path, images=np.array([Bomb(mark)], dtype=object))
    with pytest.raises(DataError, match="holds Python objects, which are never unpickled"):
        load_npz(config(path))
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(DataError, match=r"not an .npz, or holds Python objects"):
        load_npz(config(path))
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()


BAD_ARRAYS: list[tuple[dict[str, Any], str]] = [
    ({"pictures": GREY}, r"must hold images, or train_images, .*; it holds pictures"),
    ({}, r"it holds nothing"),
    ({"images": GREY / 255}, r"images must be uint8 from 0 to 255, got float64"),
    ({"images": GREY.astype(np.uint16)}, r"images must be uint8 from 0 to 255, got uint16"),
    ({"images": GREY > 7}, r"images must be uint8 from 0 to 255, got bool"),
    ({"images": GREY[0]}, r"images must be \(N, H, W\), .*, got \(28, 28\)"),
    ({"images": RGB.transpose(0, 3, 1, 2)}, r"or \(N, H, W, 3\), got \(12, 3, 28, 28\)"),
    ({"images": RGB[..., :2]}, r"or \(N, H, W, 3\), got \(12, 28, 28, 2\)"),
    ({"images": GREY[:, :20]}, r"images must be square, got 20x28"),
    ({"images": GREY[:, :0, :0]}, r"images must be square, got 0x0"),
    ({"images": GREY[:0]}, r"holds no images"),
    ({"images": GREY, "labels": LABELS[:5]}, r"\(12,\) or \(12, 1\), got \(5,\)"),
    ({"images": GREY, "labels": np.eye(12, dtype=int)}, r"labels has 12 labels an image: choose"),
    ({"images": GREY, "labels": LABELS / 2}, r"labels must be integers, got float64"),
    ({"images": GREY, "labels": LABELS.astype(str)}, r"labels must be integers, got <U21"),
    ({"images": GREY, "labels": LABELS - 1}, r"labels must be from 0, got -1"),
    ({"images": GREY, "train_images": GREY}, r"must hold images or train_images, not both"),
    ({"train_labels": LABELS}, r"has train_labels but no train_images"),
    ({"train_images": GREY, "val_labels": LABELS}, r"has val_labels but no val_images"),
    (
        {"train_images": GREY, "train_labels": LABELS, "test_images": GREY},
        r"lacks test_labels; every split must have labels, or none",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load_npz(config(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_beside_splits_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, train_images=GREY)
    with pytest.raises(
        ConfigError, match=r"must be 0 where .* has splits of its own, got 0 and 0.2"
    ):
        load_npz(config(path, test_fraction=0.2))


def test_an_archive_that_unpacks_to_far_more_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lungan.data.cache.ANY_BYTES", 2**23)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, images=np.zeros((16 * 2**10, 32, 32), dtype=np.uint8))
    assert path.stat().st_size < 2**15
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb.npz unpacks to 16 MiB, .*sound, save"):
            load_npz(config(path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(DataError, match=r"data.npz does not exist"):
        load_npz(config(path))
    path.touch()
    with pytest.raises(DataError, match=r"data.npz is damaged or not an .npz: No data left"):
        load_npz(config(path))
    np.save(tmp_path / "single.npy", GREY)
    with pytest.raises(DataError, match=r"must be an .npz archive, got a single array"):
        load_npz(config(tmp_path / "single.npy"))
    with pytest.raises(DataError, match=r"is a folder: use data=folder"):
        load_npz(config(tmp_path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"no array")
    with pytest.raises(DataError, match=r"must hold arrays, but images is a plain file"):
        load_npz(config(path))


def test_every_cut_and_any_damage_is_one_line(tmp_path: Path) -> None:
    whole = save(tmp_path, images=GREY, labels=LABELS).read_bytes()
    path = tmp_path / "damaged.npz"
    for length in range(0, len(whole), 397):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"damaged\.npz"):
            load_npz(config(path))
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert np.array_equal(load_npz(config(path)).images[:, 0], GREY)
        except DataError as error:
            assert "\n" not in str(error)
