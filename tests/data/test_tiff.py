"""TIFF files of every layout show the same scene; what cannot be read is refused by name."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from lungan.data.decode import BadImageError, decode
from lungan.data.scale import fit_image, quiet, scale_images

SIZE = 24
GREY = np.add.outer(np.arange(SIZE), np.arange(SIZE)) / (2 * SIZE - 2)
"""From 0, black, to 1."""
COLOUR = np.dstack([GREY, GREY[::-1], 1 - GREY])
OPACITY = np.where(np.arange(SIZE) < SIZE // 2, 0.5, 1)[:, None] * np.ones(SIZE)

TYPES = {
    **{f"{bits} bit": bits for bits in (1, 2, 3, 4, 6, 7, 8, 10, 12, 14, 16, 32)},
    **{"signed 8": np.int8, "signed 16": np.int16, "signed 32": np.int32},
    **{"half": np.float16, "float": np.float32, "double": np.float64},
}


def store(shades: np.ndarray, kind: Any) -> np.ndarray:
    """``shades`` from 0 to 1 over the whole range of the type."""
    if isinstance(kind, int):
        dtype = np.uint8 if kind <= 8 else np.uint16 if kind <= 16 else np.uint32
        return np.rint(shades * (2**kind - 1)).astype(dtype)
    if np.issubdtype(kind, np.floating):
        return (shades * 3 - 1).astype(kind)
    info = np.iinfo(kind)
    return np.rint(shades * (float(info.max) - info.min) + info.min).astype(kind)


def pack(values: np.ndarray, bits: int) -> bytes:
    """Rows of ``bits`` a value, the first in the highest bits, each row from a new byte."""
    digits = values[..., None] >> np.arange(bits)[::-1] & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def write_packed(values: np.ndarray, bits: int, photometric: int, extra: int | None) -> bytes:
    """An uncompressed TIFF of one strip, which tifffile does not write at such depths."""
    samples = 1 if values.ndim == 2 else values.shape[2]
    tags = [
        *[(256, 4, 1, values.shape[1]), (257, 4, 1, values.shape[0]), (259, 3, 1, 1)],
        *[(262, 3, 1, photometric), (277, 3, 1, samples), (278, 4, 1, values.shape[0])],
    ]
    data = pack(values, bits)
    many = struct.pack(f"<{samples}H", *[bits] * samples)
    if samples <= 2:
        tags.append((258, 3, samples, int.from_bytes(many.ljust(4, b"\0"), "little")))
    else:
        tags.append((258, 3, samples, 8))
        data = many + data
    offset = 8 + (len(many) if samples > 2 else 0)
    tags += [(273, 4, 1, offset), (279, 4, 1, len(data) - offset + 8)]
    if extra is not None:
        tags.append((338, 3, 1, extra))
    tags.sort()
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def show(data: bytes) -> np.ndarray:
    """(H, W) or (H, W, 3): what lungan makes of the file alone, from 0 to 1."""
    with quiet():
        images = scale_images([fit_image(decode(data), None, None)])[0][0]
    return (images[0] if len(images) == 1 else images.transpose(1, 2, 0)) / 255


def tolerance(kind: Any) -> float:
    """Half a step of the type and half one of 8 bits."""
    steps = 2**kind - 1 if isinstance(kind, int) else 2 ** (8 * np.dtype(kind).itemsize - 1)
    return 0.5 / 255 + 0.5 / steps + 1e-3


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("extra", [None, "unspecified", "assocalpha", "unassalpha"])
def test_every_layout_shows_the_scene(kind: str, photometric: str, extra: str | None) -> None:
    type_ = TYPES[kind]
    shades = COLOUR if photometric == "rgb" else GREY
    is_float = not isinstance(type_, int) and np.issubdtype(type_, np.floating)
    expected = shades
    opacity = OPACITY if extra == "unassalpha" else np.ones_like(GREY)
    if extra == "unassalpha" or extra == "assocalpha":
        expected = shades * (OPACITY[..., None] if shades.ndim == 3 else OPACITY)
    if extra == "assocalpha":  # The writer has put the colour over black.
        shades = expected
    stored = store(1 - shades if photometric == "miniswhite" else shades, type_)
    if extra is not None:
        if is_float:
            alpha = opacity.astype(type_)
        elif isinstance(type_, int):
            alpha = store(opacity, type_)
        else:
            alpha = np.rint(opacity * np.iinfo(type_).max).astype(type_)
        stored = np.dstack([stored, alpha])
    # Without type ends that say what is black, the set's darkest value is black.
    if not isinstance(type_, int) or type_ == 32:
        expected = (expected - expected.min()) / (expected.max() - expected.min())
    close = tolerance(type_) * (3 if isinstance(type_, int) and type_ < 8 and extra else 1)
    checked = 0
    if isinstance(type_, int) and type_ not in (8, 16, 32):
        tags = {"minisblack": 1, "miniswhite": 0, "rgb": 2}
        extras = {None: None, "unspecified": 0, "assocalpha": 1, "unassalpha": 2}
        data = write_packed(stored, type_, tags[photometric], extras[extra])
        assert np.abs(show(data) - expected).max() <= close
        return
    for separate, byteorder, packing in itertools.product(
        (False, True), "<>", ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 5})
    ):
        if separate and stored.ndim == 2:
            continue
        pixels = np.ascontiguousarray(np.moveaxis(stored, -1, 0)) if separate else stored
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            pixels,
            photometric=photometric,
            byteorder=byteorder,
            planarconfig=None if stored.ndim == 2 else "separate" if separate else "contig",
            extrasamples=None if extra is None else [extra],
            **packing,
        )
        assert np.array_equal(tifffile.imread(io.BytesIO(file.getvalue())), pixels)
        assert np.abs(show(file.getvalue()) - expected).max() <= close
        checked += 1
    assert checked >= 8


# What one file in a thousand has.


def tiff(pixels: np.ndarray, **parameters: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **parameters)
    return file.getvalue()


EIGHT = np.rint(GREY * 255).astype(np.uint8)


@pytest.mark.parametrize("low_byte", [0, 1, 257])
def test_palettes_of_8_bits_wherever_they_stand(low_byte: int) -> None:
    """In the low byte, the high byte, or both."""
    factor = {0: 256, 1: 1, 257: 257}[low_byte]
    entries = np.stack([np.arange(256), np.arange(256)[::-1], np.zeros(256)]) * factor
    data = tiff(EIGHT, photometric="palette", colormap=entries.astype(np.uint16))
    decoded = decode(data).values
    assert np.array_equal(decoded, np.dstack([EIGHT, 255 - EIGHT, 0 * EIGHT]))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", None])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pillows_files(mode: str, compression: str | None) -> None:
    grey = Image.fromarray(EIGHT)
    colour = Image.fromarray(np.rint(COLOUR * 255).astype(np.uint8))
    half = Image.fromarray(np.rint(OPACITY * 255).astype(np.uint8))
    image = {
        "1": Image.fromarray(EIGHT > 99),
        "L": grey,
        "LA": Image.merge("LA", (grey, half)),
        "P": colour.quantize(16),
        "RGB": colour,
        "RGBA": Image.merge("RGBA", (*colour.split(), half)),
        "I;16": Image.fromarray(EIGHT.astype(np.uint16) * 255),
    }[mode]
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression)
    decoded = decode(file.getvalue()).values
    expected = {"1": image.convert("L"), "P": image.convert("RGB")}.get(mode, image)
    wanted = np.asarray(expected).astype(float)
    if mode in ("LA", "RGBA"):
        alpha = wanted[..., -1:] / 255
        wanted = wanted[..., 0] * alpha[..., 0] if mode == "LA" else wanted[..., :3] * alpha
    assert decoded.shape == wanted.shape
    assert np.abs(decoded - wanted).max() <= 1


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax(compression: str) -> None:
    file = io.BytesIO()
    Image.fromarray(EIGHT > 99).save(file, "TIFF", compression=compression)
    assert np.array_equal(decode(file.getvalue()).values, np.where(EIGHT > 99, 255, 0))


@pytest.mark.parametrize("compression", ["zstd", "lzma", "jpeg2000"])
@pytest.mark.parametrize("predictor", [False, True])
def test_newer_compressions(compression: str, predictor: bool) -> None:
    pixels = EIGHT.astype(np.uint16) * 257
    predictor = predictor and compression != "jpeg2000"
    data = tiff(pixels, compression=compression, predictor=predictor)
    assert np.array_equal(decode(data).values, pixels)


def test_luminance_and_chrominance_without_jpeg() -> None:
    file = io.BytesIO()
    colour = Image.fromarray(np.rint(COLOUR * 255).astype(np.uint8))
    colour.convert("YCbCr").save(file, "TIFF")
    assert np.abs(decode(file.getvalue()).values.astype(int) - np.asarray(colour)).max() <= 3


def test_jpeg_inside() -> None:
    for pixels in (EIGHT, np.rint(COLOUR * 255).astype(np.uint8)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "TIFF", compression="jpeg", quality=95)
        assert np.abs(decode(file.getvalue()).values.astype(int) - pixels).mean() < 4


def test_values_that_are_no_numbers_are_dark() -> None:
    values = GREY.astype(np.float64) * 3 + 1
    values[0, :3] = np.nan, np.inf, 1e300
    shown = show(tiff(values))
    assert not shown[0, :3].any()
    assert shown.max() == 1
    with pytest.raises(BadImageError, match="nothing but padding"):
        decode(tiff(np.full((4, 4), np.nan)))


def test_values_that_are_no_numbers_are_black_and_said() -> None:
    values = GREY.astype(np.float32)
    assert decode(tiff(values)).mode == "grey float"
    values[:, -3:] = np.nan
    assert decode(tiff(values)).notes == ("black where values are no numbers",)


@pytest.mark.parametrize(
    ("pixels", "parameters", "message"),
    [
        (EIGHT.astype(np.complex64), {}, "TIFF of COMPLEXIEEEFP samples, which is not read"),
        (np.dstack([EIGHT] * 3), {"photometric": "cielab"}, "TIFF of CIELAB colours"),
        (np.dstack([EIGHT] * 4), {"photometric": "separated"}, "TIFF of SEPARATED colours"),
        (
            np.dstack([EIGHT] * 3),
            {"compression": "webp", "photometric": "rgb"},
            "TIFF of WEBP compression",
        ),
        (np.stack([EIGHT] * 3), {"photometric": "minisblack"}, "holds 3 pages"),
        (np.stack([EIGHT] * 3), {"imagej": True, "metadata": {"axes": "ZYX"}}, "holds 3 pages"),
    ],
)
def test_what_is_not_read_is_named(
    pixels: np.ndarray, parameters: dict[str, Any], message: str
) -> None:
    with quiet(), pytest.raises(BadImageError, match=message):
        decode(tiff(pixels, **parameters))


def test_samples_beyond_the_image_are_said() -> None:
    image = decode(tiff(np.dstack([EIGHT] * 5), photometric="minisblack", planarconfig="contig"))
    assert image.mode == "grey 8 bit, extra samples unused: 4"
    assert np.array_equal(image.values, EIGHT)


@pytest.mark.parametrize(
    ("tag", "value"), [(273, 0), (273, 2**31), (279, 0), (279, 10), (256, 60_000), (277, 9)]
)
def test_tags_that_promise_pixels_which_are_not_there(tag: int, value: int) -> None:
    data = bytearray(tiff(EIGHT))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        entry = file.pages[0].tags[tag]
        width = 2 if entry.dtype == 3 else 4
        data[entry.valueoffset : entry.valueoffset + width] = value.to_bytes(width, "little")
    with quiet(), pytest.raises(BadImageError, match=r"truncated|damaged"):
        decode(bytes(data))
