"""TIFF directories: the size, pages and pixel blocks of a TIFF file, and EXIF's orientation.

Source: TIFF 6.0, section 2; the BigTIFF extension of libtiff.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SUBFILE_TYPE, _WIDTH, _HEIGHT, _ORIENTATION = 254, 256, 257, 274
_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_BITS, _COLOUR_MAP, _SAMPLE_FORMAT = 258, 320, 339
_READ = {
    *(_SUBFILE_TYPE, _WIDTH, _HEIGHT, _ORIENTATION, _BITS, _COLOUR_MAP, _SAMPLE_FORMAT),
    *(_STRIP_OFFSETS, _STRIP_COUNTS, _TILE_OFFSETS, _TILE_COUNTS),
}
"""Bits, colour map and sample format are read only to know that they are there whole."""

_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""The field types that these tags may have, as struct codes."""

_REDUCED_RESOLUTION = 1
"""The bit of the subfile type that marks a preview of another page."""


@dataclass(frozen=True, slots=True)
class Page:
    """One image of the file. blocks: (offset, length) in bytes of each strip or tile."""

    width: int
    height: int
    blocks: tuple[tuple[int, int], ...]


def read_pages(data: bytes) -> list[Page]:
    """The pages of a TIFF file, previews left out.

    Raises: struct.error where a directory lies past the end.
    """
    pages = []
    for tags in _directories(data):
        if tags.get(_SUBFILE_TYPE, (0,))[0] & _REDUCED_RESOLUTION:
            continue
        offsets = tags.get(_STRIP_OFFSETS, ()) + tags.get(_TILE_OFFSETS, ())
        counts = tags.get(_STRIP_COUNTS, ()) + tags.get(_TILE_COUNTS, ())
        width, height = tags.get(_WIDTH, (0,))[0], tags.get(_HEIGHT, (0,))[0]
        pages.append(Page(width, height, tuple(zip(offsets, counts, strict=False))))
    return pages


def read_orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8, from a block that starts with a TIFF header; 1 if unreadable.

    An image is no worse for broken EXIF data, so that is not an error.
    """
    try:
        orientation = _directories(exif)[0].get(_ORIENTATION, (1,))[0]
    except (struct.error, IndexError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def _directories(data: bytes) -> list[dict[int, tuple[int, ...]]]:
    order = "<" if data[:2] == b"II" else ">"
    (magic,) = _unpack(order + "H", data, 2)
    # BigTIFF: 8-byte offsets and counts, and entries of 20 bytes instead of 12.
    big = magic == 43
    offset_code, count_code, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    (start,) = _unpack(order + offset_code, data, 8 if big else 4)
    found: list[dict[int, tuple[int, ...]]] = []
    seen = set()
    while start and start not in seen:
        seen.add(start)
        (num_entries,) = _unpack(order + count_code, data, start)
        first = start + struct.calcsize(order + count_code)
        tags = {}
        for at in range(first, first + num_entries * entry_size, entry_size):
            tag, kind = _unpack(order + "HH", data, at)
            if tag in _READ and kind in _CODES:
                tags[tag] = _values(data, order, offset_code, at + 4, _CODES[kind])
        found.append(tags)
        (start,) = _unpack(order + offset_code, data, first + num_entries * entry_size)
    return found


def _values(data: bytes, order: str, offset_code: str, at: int, code: str) -> tuple[int, ...]:
    (count,) = _unpack(order + offset_code, data, at)
    width = struct.calcsize(order + offset_code)
    at += width
    if count * struct.calcsize(order + code) > width:  # Too long for the entry: kept elsewhere.
        (at,) = _unpack(order + offset_code, data, at)
    if not count or count > len(data):
        raise struct.error("the values of a tag lie past the end")
    return _unpack(f"{order}{count}{code}", data, at)


def _unpack(codes: str, data: bytes, at: int) -> tuple[int, ...]:
    if at > len(data):  # Python's own error for offsets beyond 63 bits is an OverflowError.
        raise struct.error("an offset lies past the end")
    return struct.unpack_from(codes, data, at)
