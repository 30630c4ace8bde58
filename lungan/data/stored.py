"""What decoding gives: an image in its file's own values; and what every decoder checks."""

from __future__ import annotations

import contextlib
import logging
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungan.data.images import many
from lungan.errors import DataError

MAX_PIXELS = 2**26
"""More than any radiograph has; a header that claims more is not believed."""

MAX_BYTES = 2**29
"""The most pixels that a header may claim, at 8 bytes each."""

DICOM_EXTRA = "pip install 'lungan[dicom]' (pydicom, pylibjpeg[all], pyjpegls)"

ANY_BYTES = 2**26
MAX_RATIO = 100
"""Deflate packs 1032 equal bytes into one, which only a file of nothing but them comes near."""

Values = NDArray[Any]
"""(H, W) grey or (H, W, 3) RGB."""


class BadImageError(DataError):
    """One file cannot be used; the message is the reason alone, without the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image at full size, upright, in its file's own values.

    values: (H, W) grey or (H, W, 3) RGB, of any real dtype.
    black, white: the ends of the scale that the file's type gives; black is the larger one where
    small values are bright.
    is_display: whether that scale is the one to see the image in. If not, as for Hounsfield units,
    signed and floating values, only other images of the ``kind`` can say what is bright.
    kind: what the values are, in words: images of one kind compare.
    mode: ``kind`` and grey or colour, in words. notes: what was done to the image, in words.
    """

    values: Values
    black: float
    white: float
    is_display: bool
    kind: str
    mode: str
    notes: tuple[str, ...] = ()


def display(values: Values, bits: int, note: str = "") -> StoredImage:
    """Unsigned ``values`` from 0, black, to the largest number of ``bits``."""
    kind = f"{bits} bit"
    if bits < 8:
        values = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    return StoredImage(
        values=values,
        black=0,
        white=2 ** max(bits, 8) - 1,
        is_display=True,
        kind=kind,
        mode=f"{'colour' if values.ndim == 3 else 'grey'} {kind}{note}",
    )


def measure(
    values: Values,
    low: float,
    high: float,
    is_negative: bool,
    kind: str,
    padding: NDArray[np.bool_] | None = None,
) -> StoredImage:
    """``values`` that cannot say alone what is bright. Padding, and what is no number, is as dark
    as the darkest of the others. low, high: the ends of their type."""
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    is_number = np.isfinite(values)
    is_known = is_number if padding is None else is_number & ~padding
    if not is_known.any():
        raise BadImageError("holds nothing but padding")
    if not is_known.all():
        known = values[is_known]
        values = np.where(is_known, values, known.max() if is_negative else known.min())
    return StoredImage(
        values=values,
        black=high if is_negative else low,
        white=low if is_negative else high,
        is_display=False,
        kind=kind,
        mode=kind,
        notes=() if is_number.all() else ("black where values are no numbers",),
    )


def say_type(letter: str, bits: int) -> tuple[float, float, str]:
    """The ends of numbers of so many bits, and what they are in words. letter: numpy's, u, i, f."""
    if letter == "f":
        return 0.0, 1.0, "float"
    if letter == "i":
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1, f"signed {bits} bit"
    return 0.0, 2.0**bits - 1, f"{bits} bit"


def narrow_palette(entries: NDArray[Any]) -> NDArray[np.uint8]:
    """Entries of 8 bits, which writers keep in the low or in the high byte of 16."""
    return (entries >> 8 if entries.max() > 255 else entries).astype(np.uint8)


def turn_upright(image: StoredImage, orientation: Any) -> StoredImage:
    """orientation: what the file says; only the numbers 2 to 8 turn the image.

    Source: EXIF 2.3, tag 274: the side of the scene at which row 0 and column 0 stand.
    """
    if orientation not in range(2, 9):
        return image
    values, note = image.values, "turned upright, as EXIF data say"
    if orientation >= 5:
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return replace(image, values=np.ascontiguousarray(values), notes=(*image.notes, note))


def read_bytes(path: Path) -> bytes:
    """Raises: BadImageError where ``path`` cannot be opened, is no plain file, or is too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # A pipe would wait for someone to write into it.
            raise BadImageError("not a plain file")
        if status.st_size > MAX_BYTES:
            raise BadImageError(f"larger than {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be opened: {error.strerror or error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, the libraries' warnings and log lines about single files reach nobody: what matters
    in them is an error. Enter it around the threads that decode, as warnings are the process's."""
    names = ("PIL", "imagecodecs", "tifffile", "pydicom", "pylibjpeg")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def check_size(width: int, height: int, bits: int = 0, file_bytes: int = 0) -> None:
    """bits: of a pixel. file_bytes: of the whole file.

    Raises: BadImageError for no pixels, more than ``MAX_PIXELS``, or a file that would unpack to
    more than files of its size may.
    """
    if width < 1 or height < 1:
        raise BadImageError(f"damaged: its header says {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            f"{width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million"
        )
    if (unpacked := width * height * bits // 8) > most_unpacked(file_bytes):
        raise BadImageError(
            f"unpacks to {unpacked // 2**20} MiB, more than {MAX_RATIO} times its size of "
            f"{file_bytes // 2**10} KiB or more than {MAX_BYTES // 2**20} MiB"
        )


def most_unpacked(file_bytes: int) -> int:
    """Bytes that a file of this size may unpack to: 64 MiB, or 100 times its size where that is
    more, as far as ``MAX_BYTES``. Images come nowhere near; files made to fill memory do."""
    return min(MAX_BYTES, max(ANY_BYTES, MAX_RATIO * file_bytes))


def choose_frame(num_frames: int, frame: int | None, noun: str = "frame") -> int:
    """Raises: BadImageError where nobody chose among several, or ``frame`` is not there."""
    if frame is None and num_frames > 1:
        raise BadImageError(
            f"holds {num_frames} {noun}s, one image a file is read; data.frame=0 takes the first"
        )
    if frame is not None and frame >= num_frames:
        raise BadImageError(
            f"holds {many(num_frames, noun)}, counted from 0, and no data.frame={frame}"
        )
    return frame or 0


def read_jpeg_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """The marker of a JPEG's or JPEG-LS's start of frame, and bits, height and width after it;
    None where there is none."""
    position = 2
    while data.startswith(b"\xff\xd8\xff") and position + 9 <= len(data):
        marker, length, bits, height, width = struct.unpack_from(">xBHBHH", data, position)
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return marker, bits, height, width
        position += 2 + length
    return None


def check_coded_size(data: bytes) -> None:
    """Raises: BadImageError where a compressed image's own header, which its decoder believes,
    says more pixels than ``MAX_PIXELS``."""
    if jpeg := read_jpeg_frame(data):
        check_size(jpeg[3], jpeg[2])
    elif (start := data.find(b"\xff\x4f\xff\x51", 0, 1000)) >= 0:  # JPEG 2000
        check_size(*struct.unpack_from(">II", data, start + 8))
