"""TIFF files of every layout show the same scene; what cannot be read is refused by name."""

from __future__ import annotations

import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from lungan.data.decode import decode, quiet
from lungan.data.scale import fit_image, scale_images

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
        images = scale_images([fit_image(decode(data), None, None)]).images[0]
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
