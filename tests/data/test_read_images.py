"""Images to score: a folder or an .npz as it is, without a config."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lungan.data.build import read_images
from lungan.errors import DataError


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def grey(size: int = 16, level: int = 0) -> np.ndarray:
    return np.full((size, size), level, dtype=np.uint8)


def test_a_flat_folder(tmp_path: Path) -> None:
    for level in (10, 20, 30):
        write(tmp_path / f"{level}.png", grey(level=level))
    images = read_images(tmp_path)
    assert images.images.shape == (3, 1, 16, 16)
    assert images.images[:, 0, 0, 0].tolist() == [10, 20, 30]


def test_splits_and_classes_as_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            write(tmp_path / split / name / "1.png", grey())
    images = read_images(tmp_path)
    assert images.class_names == ("a", "b")
    assert len(images.select(["test"], ["b"])) == 1


def test_color_stays_color_in_rgb_order(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[..., 2] = 200  # OpenCV's third channel is red
    write(tmp_path / "red.png", image)
    assert read_images(tmp_path).images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert read_images(tmp_path, channels=1).images.shape == (1, 1, 16, 16)


def test_other_sizes_and_kinds_are_refused_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path / "1.png", grey(16))
    write(tmp_path / "2.png", grey(20))
    with pytest.raises(DataError, match=r"1.png is 16x16 grey and 2.png 20x20 grey; --size 64"):
        read_images(tmp_path)
    assert read_images(tmp_path, size=16).images.shape == (2, 1, 16, 16)
    write(tmp_path / "2.png", np.dstack([grey(16, level) for level in (1, 2, 3)]))
    with pytest.raises(DataError, match=r"2.png 16x16 in colour; --channels 1 makes all grey"):
        read_images(tmp_path)
    assert read_images(tmp_path, channels=3).images.shape == (2, 3, 16, 16)


def test_a_damaged_image_is_named_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    write(tmp_path / "good.png", grey())
    with pytest.raises(DataError, match=r"1 of 2 files in .* cannot be used: bad.png"):
        read_images(tmp_path)
    images = read_images(tmp_path, on_bad_image="skip")
    assert len(images) == 1
    assert list(images.facts.skipped) == ["bad.png"]


def test_npz_with_and_without_splits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "plain.npz", images=pixels)
    plain = read_images(tmp_path / "plain.npz")
    assert (plain.images[:, 0] == pixels).all()
    assert (plain.class_names, plain.split_names) == (("all",), ("all",))
    labels = np.array([[3], [7], [3], [7]])
    parts = {"train_images": pixels[:4], "train_labels": labels}
    np.savez(
        tmp_path / "split.npz", **parts, test_images=pixels[4:], test_labels=labels[:2].reshape(-1)
    )
    split = read_images(tmp_path / "split.npz")
    assert split.class_names == ("3", "7")
    assert (split.select(["test"], []).images[:, 0] == pixels[4:]).all()


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"must be a folder of images, an .npz, a generator"):
        read_images(tmp_path / "x.txt")
    with pytest.raises(DataError, match="does not exist"):
        read_images(tmp_path / "absent")
