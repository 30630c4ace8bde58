"""What an image file says of itself, read and checked before anything is decoded.

OpenCV gives half an image for some truncated files and allocates whatever size a header claims,
so completeness and size are checked here first.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from lungan.data.tiff import read_orientation, read_pages
from lungan.errors import DataError

FORMATS = "PNG, JPEG, BMP, TIFF or DICOM"

MAX_PIXELS = 2**26
"""More than any radiograph has; a header that claims more is not believed."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_JPEG_SCAN_END = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
"""The next marker in coded data: stuffed zeros and restart markers belong to the scan."""


class BadImageError(DataError):
    """One file cannot be used; the message is the reason alone, without the file's name."""


@dataclass(frozen=True, slots=True)
class Header:
    """kind: ``png``, ``jpeg``, ``bmp``, ``tiff`` or ``dicom``, whose size pydicom reads.

    width, height: in pixels, as stored. orientation: 1 to 8, as in EXIF.
    """

    kind: str
    width: int = 0
    height: int = 0
    orientation: int = 1


def read_header(data: bytes) -> Header:
    """Raises: BadImageError for a file that is empty, of another format, or not whole."""
    if not data:
        raise BadImageError("empty")
    if data[128:132] == b"DICM":
        return Header("dicom")
    try:
        if data.startswith(_PNG_SIGNATURE):
            return _read_png(data)
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
            return _read_tiff(data)
        if data.startswith(b"BM"):
            return _read_bmp(data)
    except (struct.error, IndexError) as error:  # A field that the header needs lies past the end.
        raise BadImageError("truncated") from error
    if not data.strip(b"\0"):
        raise BadImageError("all zeros")
    raise BadImageError(f"not a {FORMATS} image")


def check_size(width: int, height: int) -> None:
    """Raises: BadImageError for no pixels, or more than ``MAX_PIXELS``."""
    if width < 1 or height < 1:
        raise BadImageError(f"damaged: its header says {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise BadImageError(
            f"{width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million"
        )


def _read_png(data: bytes) -> Header:
    width = height = 0
    orientation = 1
    position = len(_PNG_SIGNATURE)
    while True:
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        body = position + 8
        (checksum,) = struct.unpack_from(">I", data, body + length)
        if zlib.crc32(memoryview(data)[position + 4 : body + length]) != checksum:
            raise BadImageError("damaged: a PNG chunk fails its checksum")
        if kind == b"IHDR":
            width, height = struct.unpack_from(">II", data, body)
        elif kind == b"eXIf":
            orientation = read_orientation(data[body : body + length])
        elif kind == b"IEND":
            return Header("png", width, height, orientation)
        position = body + length + 4


def _read_jpeg(data: bytes) -> Header:
    width = height = 0
    orientation = 1
    position = 2
    while True:
        if data[position] != 0xFF:
            raise BadImageError("damaged: no JPEG marker where one must be")
        while data[position] == 0xFF:
            position += 1
        marker = data[position]
        position += 1
        if marker == 0xD9:
            return Header("jpeg", width, height, orientation)
        (length,) = struct.unpack_from(">H", data, position)
        body = position + 2
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, body + 1)
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = read_orientation(data[body + 6 : position + length])
        position += length
        if marker == 0xDA:
            end = _JPEG_SCAN_END.search(data, position)
            if end is None:
                raise BadImageError("truncated")
            position = end.start()


def _read_bmp(data: bytes) -> Header:
    (pixels_at, header_size) = struct.unpack_from("<II", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)  # Negative: the rows run from top to bottom.
    if compression in (0, 3):
        bytes_a_row = (width * bits + 31) // 32 * 4
        if pixels_at + bytes_a_row * height > len(data):
            raise BadImageError("truncated")
    elif struct.unpack_from("<I", data, 2)[0] > len(data):
        raise BadImageError("truncated")
    return Header("bmp", width, height)


def _read_tiff(data: bytes) -> Header:
    pages = read_pages(data)
    if len(pages) != 1:
        raise BadImageError(f"holds {len(pages)} pages; one image a file is read")
    page = pages[0]
    if any(offset + count > len(data) for offset, count in page.blocks):
        raise BadImageError("truncated")
    # OpenCV turns TIFF images itself, unlike the others.
    return Header("tiff", page.width, page.height)
