"""Decoding and fitting: what is upright, how bits and channels map, what is refused."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lungan.data.decode import BadImageError, read_bytes
from lungan.data.decode import decode as decode_whole
from lungan.data.scale import fit
from lungan.errors import DataError

rng = np.random.default_rng(0)
GREY = rng.integers(0, 256, (40, 60), dtype=np.uint8)
RGB = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def decode(data: bytes) -> np.ndarray:
    return decode_whole(data).values


def encode(suffix: str, image: np.ndarray, parameters: list[int] | None = None) -> bytes:
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = np.ascontiguousarray(image[..., order])
    good, data = cv2.imencode(suffix, image, parameters or [])
    assert good
    return data.tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("image", [GREY, RGB])
def test_lossless_formats_give_the_pixels_in_rgb_order(suffix: str, image: np.ndarray) -> None:
    assert np.array_equal(decode(encode(suffix, image)), image)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("image", [GREY, RGB])
def test_16_bits_stay_16_bits(suffix: str, image: np.ndarray) -> None:
    deep = image.astype(np.uint16) * 257
    decoded = decode(encode(suffix, deep))
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, deep)


@pytest.mark.parametrize("image", [GREY, RGB])
def test_jpeg_is_close(image: np.ndarray) -> None:
    smooth = cv2.GaussianBlur(image, (0, 0), 4)
    difference = decode(encode(".jpg", smooth)).astype(int) - smooth
    assert difference.shape == image.shape
    assert np.abs(difference).mean() < 3


def test_transparent_is_black_and_opaque_unchanged() -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    assert np.array_equal(decode(encode(".png", np.dstack([RGB, alpha]))), RGB)
    alpha[:20] = 0
    alpha[20:30] = 51
    decoded = decode(encode(".png", np.dstack([RGB, alpha])))
    assert (decoded[:20] == 0).all()
    assert np.array_equal(decoded[20:30], np.rint(RGB[20:30] * np.float32(0.2)).astype(np.uint8))
    assert np.array_equal(decoded[30:], RGB[30:])


def test_alpha_at_16_bits() -> None:
    deep = RGB.astype(np.uint16) * 257
    alpha = np.zeros((40, 60, 1), np.uint16)
    alpha[20:] = 65535
    decoded = decode(encode(".png", np.dstack([deep, alpha])))
    assert decoded.dtype == np.uint16
    assert (decoded[:20] == 0).all()
    assert np.array_equal(decoded[20:], deep[20:])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_as_opencv_turns_it(orientation: int) -> None:
    """OpenCV's colour mode honours EXIF; ours also keeps grey, depth and alpha."""
    data = with_orientation(encode(".jpg", GREY), orientation)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(decode(data), expected)
    assert decode(data).shape == ((40, 60) if orientation < 5 else (60, 40))


def test_orientation_of_a_tiff_is_applied_once() -> None:
    def tiff(orientation: int) -> bytes:
        entries = [
            *[(256, 3, 60), (257, 3, 40), (258, 3, 8), (259, 3, 1), (262, 3, 1)],
            *[(273, 4, 134), (274, 3, orientation), (277, 3, 1), (278, 3, 40), (279, 4, 2400)],
        ]
        data = b"II*\0" + struct.pack("<IH", 8, len(entries))
        for tag, kind, value in entries:
            data += struct.pack("<HHII", tag, kind, 1, value)
        return data + struct.pack("<I", 0) + GREY.tobytes()

    assert np.array_equal(decode(tiff(1)), GREY)
    assert np.array_equal(decode(tiff(3)), GREY[::-1, ::-1])


def test_size_limit_comes_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    png = bytearray(encode(".png", GREY))
    png[16:24] = struct.pack(">II", 9_000, 9_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(BadImageError, match="9000 x 9000 pixels, more than the limit of 67 mill"):
        decode(bytes(png))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(BadImageError, match="more pixels than the limit of 67 million"):
        decode(bytes(png))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="cannot be opened: No such file"):
        read_bytes(tmp_path / "absent.png")
    with pytest.raises(BadImageError, match="not a plain file"):
        read_bytes(tmp_path)
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(BadImageError, match="larger than 512 MiB"):
        read_bytes(big)


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install 'lungan\[dicom\]'") as caught:
        decode(bytes(128) + b"DICM" + bytes(20))
    assert not isinstance(caught.value, BadImageError)


def test_fit_crops_the_centre() -> None:
    image = np.zeros((30, 50), np.uint8)
    image[:, 10:40] = 200
    assert (fit(image, 30, 1) == 200).all()
    assert (fit(image.T, 30, 1) == 200).all()
    assert fit(image, 30, 1).shape == (1, 30, 30)


def test_fit_averages_areas_when_shrinking() -> None:
    image = GREY[:40, :40]
    means = image.reshape(10, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(fit(image, 10, 1)[0] - means).max() <= 0.5


def test_fit_adds_no_value_when_enlarging() -> None:
    image = np.full((8, 8), 50, np.uint8)
    image[:, 4:] = 180
    large = fit(image, 33, 1)
    assert large.shape == (1, 33, 33)
    assert (large.min(), large.max()) == (50, 180)
    assert (np.diff(large[0].astype(int), axis=1) >= 0).all()


def test_fit_channels() -> None:
    grey, rgb = GREY[:40, :40], RGB[:40, :40]
    assert np.array_equal(fit(grey, 40, 3), np.stack([grey] * 3))
    assert np.array_equal(fit(rgb, 40, 3), rgb.transpose(2, 0, 1))
    luminance = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(fit(rgb, 40, 1)[0] - luminance).max() <= 0.51


def test_fit_never_shares_memory_with_what_it_was_given() -> None:
    image = GREY[:40, :40].copy()
    fitted = fit(image, 40, 1)
    image[:] = 0
    assert fitted.any()
