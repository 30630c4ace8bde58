"""Decoding: what is upright, how bits and channels map, what is refused, and all without noise.

TIFF and DICOM have test files of their own.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from lungan.data.decode import BadImageError, StoredImage, check_size, decode
from lungan.data.scale import fit_image, quiet, read_bytes, scale_images
from lungan.errors import DataError

rng = np.random.default_rng(0)
GREY = cv2.GaussianBlur(rng.integers(0, 256, (40, 60), dtype=np.uint8), (5, 5), 0)
RGB = np.dstack([GREY, 255 - GREY, GREY // 2])


def values(data: bytes) -> np.ndarray:
    return decode(data).values


def encode(suffix: str, image: np.ndarray, parameters: list[int] | None = None) -> bytes:
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = np.ascontiguousarray(image[..., order])
    good, data = cv2.imencode(suffix, image, parameters or [])
    assert good
    return data.tobytes()


def write(image: Image.Image, kind: str, **parameters: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **parameters)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation: int) -> bytes:
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def jpeg_with(body: bytes, jpeg: bytes) -> bytes:
    segment = b"Exif\0\0" + body
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


# What images of 8 bits, and grey ones of 16, have always been: ids of runs hang on these pixels.


def scene(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((x * 7 + y * 13 + x * y // 5) % 256).astype(np.uint8)


ALWAYS = {
    ("grey", 64, 64): "45cfa2add6d078fc",
    ("rgb", 64, 64): "83dce948e9c91d06",
    ("rgba", 64, 64): "9c51235c3803cba2",
    ("deep", 64, 64): "aa90f79f64282d86",
    ("grey", 40, 61): "8e99713b11bc5f08",
    ("rgb", 40, 61): "af03186af10d90ad",
    ("rgba", 40, 61): "2f8da84222dae3e5",
    ("deep", 40, 61): "5882ed3e26c08511",
    ("grey", 20, 17): "ab2ab4e82cd3ea6d",
    ("rgb", 20, 17): "d1bac9f77d652fde",
    ("rgba", 20, 17): "5ed2d8e1dfcc2af9",
    ("deep", 20, 17): "729e888f5b98cfa2",
}
"""Computed by version 0.1.0 from the same files."""


@pytest.mark.parametrize(
    ("suffix", "mode", "height", "width"),
    [
        (suffix, *key)
        for key in ALWAYS
        # BMP has no 16 bits, and alpha in TIFF and BMP was taken wrongly.
        for suffix in {"rgba": [".png"], "deep": [".png", ".tif"]}.get(
            key[0], [".png", ".bmp", ".tif"]
        )
    ],
)
def test_pixels_are_those_of_the_first_version(
    suffix: str, mode: str, height: int, width: int
) -> None:
    grey = scene(height, width)
    image = grey
    if mode == "deep":
        image = grey.astype(np.uint16) * 251
    elif mode != "grey":
        image = np.dstack([grey, grey[::-1], 255 - grey[:, ::-1]])
        if mode == "rgba":
            image = np.dstack([image, scene(width, height).T])
    digest = hashlib.sha256()
    for size, channels in ((28, 1), (28, 3), (64, 1), (16, 3)):
        fitted = fit_image(decode(encode(suffix, image)), size, channels)
        digest.update(scale_images([fitted])[0].tobytes())
    assert digest.hexdigest()[:16] == ALWAYS[mode, height, width]


@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111])
@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg_is_as_opencv_decodes_it(
    image: np.ndarray, quality: int, sampling: int, progressive: int
) -> None:
    """The first version decoded by OpenCV."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = encode(".jpg", image, [*parameters, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(values(data), expected[..., ::-1] if image.ndim == 3 else expected)


# Formats and modes.


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
def test_lossless_formats_give_the_pixels_in_rgb_order(suffix: str, image: np.ndarray) -> None:
    assert np.array_equal(values(encode(suffix, image)), image)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("image", [GREY, RGB], ids=["grey", "rgb"])
def test_16_bits_stay_16_bits(suffix: str, image: np.ndarray) -> None:
    deep = image.astype(np.uint16) * 257 - (image > 9)
    decoded = values(encode(suffix, deep))
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, deep)


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_webp_and_gif(kind: str) -> None:
    palette = Image.fromarray(RGB).quantize(32)
    expected = np.asarray(palette.convert("RGB"))
    source = palette if kind == "GIF" else palette.convert("RGB")
    assert np.array_equal(values(write(source, kind, lossless=True)), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("is_palette", [False, True])
def test_pngs_of_few_bits_fill_the_scale(bits: int, is_palette: bool) -> None:
    levels = (np.arange(60)[None] + np.arange(40)[:, None]) % 2**bits
    digits = (levels[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    rows = np.packbits(digits.reshape(40, -1), axis=1)
    shades = np.rint(np.arange(2**bits) * 255 / (2**bits - 1)).astype(np.uint8)
    header = struct.pack(">IIBBBBB", 60, 40, bits, 3 if is_palette else 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    palette = png_chunk(b"PLTE", np.repeat(shades[::-1], 3).tobytes()) if is_palette else b""
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + palette
    decoded = values(data + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b""))
    if is_palette:
        assert np.array_equal(decoded, np.repeat(shades[::-1][levels][..., None], 3, axis=2))
    else:
        assert np.array_equal(decoded, shades[levels])


def test_transparent_is_black_and_opaque_unchanged() -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    assert np.array_equal(values(encode(".png", np.dstack([RGB, alpha]))), RGB)
    alpha[:20] = 0
    alpha[20:30] = 51
    decoded = values(encode(".png", np.dstack([RGB, alpha])))
    assert (decoded[:20] == 0).all()
    assert np.array_equal(decoded[20:30], np.rint(RGB[20:30] * np.float32(0.2)).astype(np.uint8))
    assert np.array_equal(decoded[30:], RGB[30:])
    grey = values(write(Image.fromarray(np.dstack([GREY, alpha]), "LA"), "PNG"))
    assert (grey[:20] == 0).all()
    assert np.array_equal(grey[30:], GREY[30:])


def test_alpha_at_16_bits() -> None:
    deep = RGB.astype(np.uint16) * 257
    alpha = np.zeros((40, 60, 1), np.uint16)
    alpha[20:] = 65535
    decoded = values(encode(".png", np.dstack([deep, alpha])))
    assert decoded.dtype == np.uint16
    assert (decoded[:20] == 0).all()
    assert np.array_equal(decoded[20:], deep[20:])


def test_a_transparent_colour_is_black() -> None:
    marked = np.where(GREY == 77, 78, GREY).astype(np.uint8)
    marked[:5] = 77
    grey = values(write(Image.fromarray(marked), "PNG", transparency=77))
    assert np.array_equal(grey, np.where(marked == 77, 0, marked))
    rgb = values(write(Image.fromarray(np.dstack([marked] * 3)), "PNG", transparency=(77,) * 3))
    assert np.array_equal(rgb[..., 1], grey)
    deep = values(write(Image.fromarray(marked.astype(np.uint16) * 9), "PNG", transparency=77 * 9))
    assert np.array_equal(deep, grey.astype(np.uint16) * 9)


def test_cmyk_jpeg_shows_its_colours() -> None:
    smooth = np.dstack([cv2.GaussianBlur(channel, (0, 0), 6) for channel in np.moveaxis(RGB, 2, 0)])
    decoded = values(write(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


def test_kinds_in_words() -> None:
    def mode(data: bytes) -> str:
        return decode(data).mode

    assert mode(encode(".png", GREY)) == "grey 8 bit"
    assert mode(encode(".jpg", RGB)) == "colour 8 bit"
    assert mode(encode(".png", RGB.astype(np.uint16))) == "colour 16 bit"
    assert mode(write(Image.fromarray(GREY > 99), "PNG")) == "grey 1 bit"


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_as_opencv_turns_it(orientation: int) -> None:
    """OpenCV's colour mode honours EXIF; ours also keeps grey, depth and alpha."""
    data = jpeg_with(exif(orientation), encode(".jpg", GREY))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(values(data), expected)
    assert values(data).shape == ((40, 60) if orientation < 5 else (60, 40))
    assert bool(decode(data).notes) == (orientation > 1)


def test_orientation_wherever_it_is_kept() -> None:
    png = encode(".png", GREY)
    after = png[:-12] + png_chunk(b"eXIf", exif(6)) + png[-12:]
    files = {
        "PNG": png[:33] + png_chunk(b"eXIf", exif(6)) + png[33:],
        "PNG, after its pixels": after,
        "TIFF": write(Image.fromarray(GREY), "TIFF", tiffinfo={274: 6}),
        "TIFF, LZW": write(
            Image.fromarray(GREY), "TIFF", tiffinfo={274: 6}, compression="tiff_lzw"
        ),
    }
    for name, data in files.items():
        assert np.array_equal(values(data), np.rot90(GREY, -1)), name
    webp = write(Image.fromarray(RGB), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(6))
    assert np.array_equal(values(webp), np.rot90(RGB, -1))


@pytest.mark.parametrize("body", [b"", b"II*\0", b"garbage", exif(77), exif(0)])
def test_broken_exif_is_no_orientation(body: bytes) -> None:
    png = encode(".png", GREY)
    data = png[:33] + png_chunk(b"eXIf", body) + png[33:]
    assert np.array_equal(values(data), GREY)
    assert decode(data).notes == ()


# Frames.


def test_several_frames_are_refused_until_one_is_chosen() -> None:
    frames = [Image.fromarray(np.full((20, 30), level, np.uint8)) for level in (10, 90, 200)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = write(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        with pytest.raises(BadImageError, match=r"holds 3 .*; data.frame=0 takes the first"):
            decode(data)
        with pytest.raises(BadImageError, match=r"holds 3 .*, counted from 0, and no data.frame=3"):
            decode(data, 3)
        assert np.abs(decode(data, 1).values.astype(int) - 90).max() <= 1, kind
    assert np.array_equal(decode(encode(".png", GREY), 0).values, GREY)


def test_previews_are_no_pages() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GREY)
        writer.write(GREY[::2, ::2], subfiletype=1)
    assert np.array_equal(values(file.getvalue()), GREY)


# What is refused.

WHOLE = {
    "png": encode(".png", GREY),
    "png, colour": encode(".png", RGB),
    "png, 16 bits": encode(".png", RGB.astype(np.uint16) * 257),
    "jpeg": encode(".jpg", GREY),
    "jpeg, progressive": encode(".jpg", RGB, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "jpeg, restarts": encode(".jpg", GREY, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
    "bmp": encode(".bmp", GREY),
    "gif": write(Image.fromarray(GREY), "GIF"),
    "webp": write(Image.fromarray(RGB), "WEBP"),
    "tiff": write(Image.fromarray(GREY), "TIFF"),
    "tiff, lzw": encode(".tif", RGB),
    "tiff, lzw, 16 bits": encode(".tif", RGB.astype(np.uint16) * 257),
    "tiff, deflate": write(Image.fromarray(RGB), "TIFF", compression="tiff_adobe_deflate"),
    "tiff, fax": write(Image.fromarray(GREY > 99), "TIFF", compression="group4"),
    "tiff, palette": write(Image.fromarray(RGB).quantize(9), "TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_no_cut_passes_for_whole(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = WHOLE[name]
    whole = values(data)
    num_refused = 0
    with quiet():
        for length in [*range(0, len(data), 13), *range(len(data) - 8, len(data))]:
            try:  # Some formats end in bytes that say nothing.
                assert np.array_equal(values(data[:length]), whole)
            except BadImageError:
                num_refused += 1
    assert num_refused > 0.95 * len(data) / 13
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", WHOLE)
def test_damage_is_an_error_or_an_image_and_says_nothing(
    name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    chance = np.random.default_rng(len(name))
    with quiet(), warnings.catch_warnings(record=True) as caught:
        for _ in range(60):
            damaged = bytearray(WHOLE[name])
            for position in chance.integers(0, len(damaged), 3):
                damaged[position] = chance.integers(256)
            try:
                assert isinstance(decode(bytes(damaged)), StoredImage)
            except BadImageError as error:
                assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")
    assert not caught
    assert not caplog.records


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("png", "jpeg"))])
def test_a_tail_of_zeros_is_no_replacement(name: str) -> None:
    """What a full disk or a broken transfer leaves: the right length, but zeros at the end.

    Only PNG and JPEG can tell: uncompressed zeros are black.
    """
    data = WHOLE[name]
    cut = len(data) * 2 // 3
    with pytest.raises(BadImageError, match=r"truncated|damaged"):
        decode(data[:cut] + bytes(len(data) - cut))


def test_a_flipped_bit_in_a_png_is_noticed() -> None:
    for position in range(33, len(WHOLE["png"]) - 12, 41):
        data = bytearray(WHOLE["png"])
        data[position] ^= 1
        with pytest.raises(BadImageError, match=r"truncated|damaged"):
            decode(bytes(data))


def test_a_thumbnail_inside_a_cut_jpeg_does_not_end_it() -> None:
    jpeg = encode(".jpg", GREY)
    whole = jpeg_with(encode(".jpg", GREY[:16, :16]), jpeg)
    assert values(whole).shape == GREY.shape
    with pytest.raises(BadImageError, match="truncated"):
        decode(whole[: -len(jpeg) // 4])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^empty$"),
        (b"\0" * 500, "^all zeros$"),
        (b"hello, I am a text", "^not a PNG, JPEG, BMP, TIFF, DICOM, GIF or WebP image$"),
        (b"\x89PNG\r\n\x1a\n", "^truncated"),
        (b"\xff\xd8\xff", "^truncated"),
        (b"BM", "^truncated"),
        (b"II*\0\x08\0\0\0", "^truncated"),
        (b"II*\0\0\0\0\0", "^truncated or damaged: holds no pages$"),
    ],
)
def test_bad_starts(data: bytes, message: str) -> None:
    with quiet(), pytest.raises(BadImageError, match=message):
        decode(data)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avif", "AVIF"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x29", "JPEG 2000"),
        (struct.pack("<I", 348) + bytes(340) + b"n+1\0", "NIfTI"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"P5\n60 40\n255\n", "PNM"),
        (b"NRRD0004\n", "NRRD"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"ObjectType = Image\n", "MetaImage"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    ],
)
def test_sound_files_of_other_formats_are_named_not_called_damaged(start: bytes, name: str) -> None:
    with pytest.raises(BadImageError, match=f"^{name}.*, which is not read; PNG, JPEG, ") as caught:
        decode(start + b"x" * 400)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("marker", "bits", "name"),
    [
        (0xC3, 8, "lossless or hierarchical JPEG"),
        (0xC7, 8, "lossless"),
        (0xC1, 12, "JPEG of 12 bits"),
    ],
)
def test_jpegs_of_other_processes_are_named(marker: int, bits: int, name: str) -> None:
    jpeg = bytearray(encode(".jpg", GREY))
    frame = jpeg.find(b"\xff\xc0")
    jpeg[frame + 1], jpeg[frame + 4] = marker, bits
    with pytest.raises(BadImageError, match=f"^{name}.*, which is not read"):
        decode(bytes(jpeg))


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_of_too_few_rows_is_refused(is_interlaced: bool, dtype: type) -> None:
    """Its chunks are whole, and zlib's stream ends between two rows."""
    image = np.maximum(GREY, 1).astype(np.dtype(dtype).newbyteorder(">"))
    parts = [image]
    if is_interlaced:
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)]
        parts = [image[y::dy, x::dx] for y, x, dy, dx in [*steps, (0, 1, 2, 2), (1, 0, 2, 1)]]
    rows = [b"\0" + row.tobytes() for part in parts for row in part]
    depth = 8 * image.dtype.itemsize
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, depth, 0, 0, 0, is_interlaced))

    def png(rows: list[bytes]) -> bytes:
        body = png_chunk(b"IDAT", zlib.compress(b"".join(rows)))
        return b"\x89PNG\r\n\x1a\n" + header + body + png_chunk(b"IEND", b"")

    assert np.array_equal(values(png(rows)), image)
    image[-4:] = 0  # A black end is no sign of missing rows.
    assert values(encode(".png", image.astype(dtype))).sum() == image.sum()
    for missing in (1, 3, 20):
        with pytest.raises(BadImageError, match="truncated"):
            decode(png(rows[:-missing]))


def test_random_bytes_after_a_good_start_never_crash(capfd: pytest.CaptureFixture[str]) -> None:
    starts = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"BM", b"GIF89a"]
    with quiet():
        for start in [*starts, b"\x08\0\x05\0CS", b"\x08\0\0\0", b"RIFF\x20\0\0\0WEBPVP8 "]:
            for length in range(0, 300, 3):
                with pytest.raises(BadImageError):
                    decode(start + rng.bytes(length))
    assert capfd.readouterr() == ("", "")


NOISY = {
    "PNG, bad colour profile": b"iCCP" + b"bad\0\0xx",
    "PNG, broken EXIF": b"eXIf" + b"bad",
    "PNG, gamma 0": b"gAMA" + bytes(4),
    "PNG, odd text": b"tEXt" + b"no separator",
}


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_libraries_say_nothing_of_sound_files(
    name: str, dtype: type, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    image = RGB.astype(dtype)
    png = encode(".png", image)
    data = png[:33] + png_chunk(NOISY[name][:4], NOISY[name][4:]) + png[33:]
    with quiet():
        assert np.array_equal(values(data), image)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_quiet_leaves_the_loggers_as_they_were() -> None:
    logger = logging.getLogger("tifffile")
    level, filters = logger.level, list(warnings.filters)
    with quiet():
        assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.level == level
    assert warnings.filters == filters


# Sizes.


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


def test_what_unpacks_to_too_much_is_refused_before_it_does() -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), compression="zlib")
    data = file.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages[0].tags
        count_at = tags[279].valueoffset
        offset_at = tags[273].valueoffset
    bomb = zlib.compress(bytes(2**28))
    patched = bytearray(data + bomb)
    patched[count_at : count_at + 4] = struct.pack("<I", len(bomb))
    patched[offset_at : offset_at + 4] = struct.pack("<I", len(data))
    tracemalloc.start()
    try:
        with pytest.raises(BadImageError, match="truncated or damaged"):
            decode(bytes(patched))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**27


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (0, 5, "damaged: its header says 0 x 5 pixels"),
        (5, -1, "damaged: its header says 5 x -1 pixels"),
        (10**5, 10**5, "100000 x 100000 pixels, more than the limit of 67 million"),
    ],
)
def test_sizes_that_are_refused(width: int, height: int, message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        check_size(width, height)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="cannot be opened: No such file"):
        read_bytes(tmp_path / "absent.png")
    with pytest.raises(BadImageError, match="not a plain file"):
        read_bytes(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadImageError, match="not a plain file"):
        read_bytes(tmp_path / "pipe")
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(BadImageError, match="larger than 512 MiB"):
        read_bytes(big)
    (tmp_path / "plain").write_bytes(b"abc")
    assert read_bytes(tmp_path / "plain") == b"abc"


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "lungan.data.dicom", raising=False)
    with pytest.raises(DataError, match=r"pip install 'lungan\[dicom\]'") as caught:
        decode(bytes(128) + b"DICM" + bytes(20))
    assert not isinstance(caught.value, BadImageError)
