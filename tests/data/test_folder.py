"""Folders of images: layouts, bad files, splits, the cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungan.config.data import FolderConfig
from lungan.data import listing
from lungan.data.folder import load_folder
from lungan.errors import ConfigError, DataError

rng = np.random.default_rng(0)


def config(path: Path, **changes: Any) -> FolderConfig:
    settings: dict[str, Any] = {
        **{"name": "folder", "size": 16, "channels": 1, "splits": [], "classes": []},
        **{"path": str(path), "on_bad_image": "error", "val_fraction": 0.0, "test_fraction": 0.0},
    }
    return FolderConfig(**{**settings, **changes})


def draw(path: Path, image: np.ndarray | None = None) -> np.ndarray:
    """Write ``image``, or another random one each time."""
    if image is None:
        image = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


def test_class_folders(tmp_path: Path) -> None:
    b = draw(tmp_path / "in/ill/b.png")
    a = draw(tmp_path / "in/ill/a.bmp")
    z = draw(tmp_path / "in/healthy/z.tif")
    images = load_folder(config(tmp_path / "in"))
    assert images.class_names == ("healthy", "ill")
    assert images.labels.tolist() == [0, 1, 1]
    assert np.array_equal(images.images[:, 0], [z, a, b])
    assert images.split_names == ("train", "val", "test")
    assert images.splits.tolist() == [0, 0, 0]
    assert images.source == "folder of 3 images, at 16x16"


def test_the_format_is_in_the_bytes_not_in_the_name(tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "in/scan.JPG")
    assert np.array_equal(load_folder(config(tmp_path / "in")).images[0, 0], image)


def test_colour_sizes_and_depths_mix(tmp_path: Path) -> None:
    draw(tmp_path / "in/a.png", rng.integers(0, 256, (30, 50, 3), dtype=np.uint8))
    draw(tmp_path / "in/b.png", rng.integers(0, 65536, (9, 70), dtype=np.uint16))
    draw(tmp_path / "in/c.jpg", rng.integers(0, 256, (40, 10), dtype=np.uint8))
    assert load_folder(config(tmp_path / "in", channels=3)).images.shape == (3, 3, 16, 16)
    assert load_folder(config(tmp_path / "in", size=24)).images.shape == (3, 1, 24, 24)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    draw(tmp_path / "in/ill/deep/a.png")
    (tmp_path / "in/ill/deep/again").symlink_to(tmp_path / "in/ill", target_is_directory=True)
    assert len(load_folder(config(tmp_path / "in"))) == 1


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere/a.png")
    (tmp_path / "in/ill").mkdir(parents=True)
    (tmp_path / "in/ill/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(load_folder(config(tmp_path / "in"))) == 1


def bad_files(folder: Path) -> dict[str, str]:
    """Six files that are no images, with the reason that each must get."""
    draw(folder / "good.png")
    large = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    for name in ("cut.jpg", "cut.png", "cut.tif"):
        draw(folder / name, large)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("hello")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "cut.tif": "truncated or damaged: holds no pages",
        "empty.png": "empty",
        "link.png": "cannot be opened: No such file or directory",
        "text.png": "not a PNG, JPEG, BMP, TIFF, DICOM, GIF or WebP image",
    }


def test_bad_files_are_named_with_their_reasons(tmp_path: Path) -> None:
    reasons = bad_files(tmp_path / "in")
    with pytest.raises(DataError) as caught:
        load_folder(config(tmp_path / "in"))
    others = [f"{name} ({reason})" for name, reason in reasons.items() if reason != "truncated"]
    listed = ", ".join(["cut.jpg, cut.png (truncated)", *others])
    assert str(caught.value) == (
        f"6 of 7 files in {tmp_path / 'in'} cannot be used: {listed}; repair or remove them, "
        "or set data.on_bad_image=skip (--on-bad-image skip in lungan.score)"
    )


def test_skipped_files_are_named_every_time(tmp_path: Path) -> None:
    reasons = bad_files(tmp_path / "in")
    for _ in range(2):
        images = load_folder(config(tmp_path / "in", on_bad_image="skip"))
        assert len(images) == 1
        assert images.facts.skipped == reasons
        assert images.source == "folder of 1 image, 6 unreadable ones skipped, at 16x16"
    with pytest.raises(DataError, match="6 of 7 files"):  # also from the cache
        load_folder(config(tmp_path / "in"))


def test_only_ten_are_named(tmp_path: Path) -> None:
    draw(tmp_path / "in/good.png")
    for index in range(13):
        (tmp_path / f"in/{index:02}.png").touch()
    with pytest.raises(DataError, match=r"13 of 14 .*09.png, and 3 more \(empty\);") as caught:
        load_folder(config(tmp_path / "in"))
    assert "10.png" not in str(caught.value)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    draw(tmp_path / "in/good.png")
    os.mkfifo(tmp_path / "in/pipe.png")
    with pytest.raises(DataError, match=r"pipe.png \(not a plain file\)"):
        load_folder(config(tmp_path / "in"))


def test_skipping_needs_something_left(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").touch()
    with pytest.raises(DataError, match=r"none of the 1 files in .* can be used: a.png \(empty\)"):
        load_folder(config(tmp_path / "in", on_bad_image="skip"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "does not exist"), ("file", "is a file"), ("films.csv", "file: use data=table")],
)
def test_no_folder(tmp_path: Path, name: str, message: str) -> None:
    if name != "absent":
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"data.path must be a folder of images, .*{message}"):
        load_folder(config(tmp_path / name))


def test_unknown_class_is_found_by_select(tmp_path: Path) -> None:
    draw(tmp_path / "in/ill/a.png")
    with pytest.raises(ConfigError, match=r"data.classes must be among ill, got pneumonia"):
        load_folder(config(tmp_path / "in")).select(["train"], ["pneumonia"])


@pytest.mark.parametrize("key", ["classes", "splits"])
def test_unknown_names_are_refused_before_anything_is_decoded(tmp_path: Path, key: str) -> None:
    draw(tmp_path / "in/ill/a.png")
    (tmp_path / "in/ill/b.png").write_bytes(b"cannot be decoded")
    with pytest.raises(ConfigError, match=rf"data.{key} must be among .*, got tune"):
        load_folder(config(tmp_path / "in", **{key: ["tune"]}))


def splits_by_pixels(path: Path, **changes: Any) -> dict[bytes, int]:
    images = load_folder(config(path, val_fraction=0.3, test_fraction=0.3, **changes))
    by_pixels: dict[bytes, int] = {}
    for image, split in zip(images.images, images.splits.tolist(), strict=True):
        assert by_pixels.setdefault(image.tobytes(), split) == split, "a duplicate was parted"
    return by_pixels


def test_duplicates_in_any_lossless_format_share_a_split(tmp_path: Path) -> None:
    for index in range(20):
        image = draw(tmp_path / f"in/{index}.png")
        draw(tmp_path / f"in/copy of {index}.bmp", image)
        draw(tmp_path / f"in/another {index}.tiff", image)
    splits = splits_by_pixels(tmp_path / "in")
    assert len(splits) == 20
    assert set(splits.values()) == {0, 1, 2}


def test_adding_renaming_or_resizing_moves_no_image(tmp_path: Path) -> None:
    for index in range(20):
        draw(tmp_path / f"in/{index}.png")
    before = splits_by_pixels(tmp_path / "in")
    for index in range(10):
        draw(tmp_path / f"in/added {index}.png")
    (tmp_path / "in/3.png").rename(tmp_path / "in/renamed.png")
    after = splits_by_pixels(tmp_path / "in")
    assert before.items() <= after.items()
    small = load_folder(config(tmp_path / "in", val_fraction=0.3, test_fraction=0.3))
    large = load_folder(config(tmp_path / "in", val_fraction=0.3, test_fraction=0.3, size=32))
    assert np.array_equal(small.splits, large.splits)


def test_decoded_once_until_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        draw(tmp_path / f"in/ill/{index}.png")
    decoded: list[int] = []
    real = listing.read_image
    monkeypatch.setattr(
        listing, "read_image", lambda *given, **more: decoded.append(1) or real(*given, **more)
    )

    def num_decoded(**changes: Any) -> int:
        decoded.clear()
        load_folder(config(tmp_path / "in", **changes))
        return len(decoded)

    assert num_decoded() == 3
    assert num_decoded() == 0
    assert num_decoded(size=32) == 3
    assert num_decoded(channels=3) == 3
    assert num_decoded(val_fraction=0.5) == 0
    status = (tmp_path / "in/ill/0.png").stat()
    draw(tmp_path / "in/ill/0.png")
    os.utime(tmp_path / "in/ill/0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert num_decoded() == 3
    (tmp_path / "in/ill").rename(tmp_path / "in/healthy")
    assert num_decoded() == 0
    (tmp_path / "in").rename(tmp_path / "moved")
    decoded.clear()
    assert load_folder(config(tmp_path / "moved")).class_names == ("healthy",)
    assert not decoded


def test_order_does_not_depend_on_threads(tmp_path: Path) -> None:
    for index in range(40):
        draw(tmp_path / f"in/{index:02}.png", np.full((16, 16), index, np.uint8))
    assert load_folder(config(tmp_path / "in")).images[:, 0, 0, 0].tolist() == list(range(40))


def test_dicom_beside_png(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    from pydicom.data import get_testdata_file

    draw(tmp_path / "in/a.png")
    source = get_testdata_file("CT_small.dcm", download=False)
    (tmp_path / "in/b").write_bytes(Path(str(source)).read_bytes())
    images = load_folder(config(tmp_path / "in", size=64))
    assert images.images.shape == (2, 1, 64, 64)
    assert images.images[1].std() > 1


def test_bars_only_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path / "in/a.png")
    load_folder(config(tmp_path / "in"))
    assert capsys.readouterr() == ("", "")
