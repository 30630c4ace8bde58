"""Headers are read right, and no file that was cut short passes for whole."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungan.data.headers import BadImageError, Header, check_size, read_header

rng = np.random.default_rng(0)
GREY = cv2.GaussianBlur(rng.integers(0, 256, (40, 60), dtype=np.uint8), (5, 5), 0)
COLOUR = np.dstack([GREY, 255 - GREY, GREY // 2])

JPEG_PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
JPEG_RESTARTS = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
TIFF_UNCOMPRESSED = [cv2.IMWRITE_TIFF_COMPRESSION, 1]

FILES = [
    ("png", ".png", GREY, []),
    ("png", ".png", COLOUR, []),
    ("png", ".png", GREY.astype(np.uint16) * 257, []),
    ("jpeg", ".jpg", GREY, []),
    ("jpeg", ".jpg", COLOUR, []),
    ("jpeg", ".jpg", COLOUR, JPEG_PROGRESSIVE),
    ("jpeg", ".jpg", GREY, JPEG_RESTARTS),
    ("bmp", ".bmp", GREY, []),
    ("bmp", ".bmp", COLOUR, []),
    ("tiff", ".tif", GREY, []),
    ("tiff", ".tif", COLOUR.astype(np.uint16) * 257, TIFF_UNCOMPRESSED),
]


def encode(suffix: str, image: np.ndarray, parameters: list[int] | None = None) -> bytes:
    good, data = cv2.imencode(suffix, image, parameters or [])
    assert good
    return data.tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(("kind", "suffix", "image", "parameters"), FILES)
def test_size_of_whole_files(
    kind: str, suffix: str, image: np.ndarray, parameters: list[int]
) -> None:
    assert read_header(encode(suffix, image, parameters)) == Header(kind, 60, 40)


@pytest.mark.parametrize(("suffix", "image", "parameters"), [file[1:] for file in FILES])
def test_every_cut_is_noticed(suffix: str, image: np.ndarray, parameters: list[int]) -> None:
    data = encode(suffix, image, parameters)
    for length in range(3, len(data), 7):
        with pytest.raises(BadImageError, match=r"truncated|not a PNG"):
            read_header(data[:length])


@pytest.mark.parametrize(("suffix", "image", "parameters"), [file[1:] for file in FILES[:7]])
def test_a_tail_of_zeros_is_no_replacement(
    suffix: str, image: np.ndarray, parameters: list[int]
) -> None:
    """What a full disk or a broken transfer leaves: the right length, but zeros at the end.

    Only PNG and JPEG can tell: uncompressed zeros are black.
    """
    data = encode(suffix, image, parameters)
    cut = len(data) * 2 // 3
    with pytest.raises(BadImageError, match=r"truncated|damaged"):
        read_header(data[:cut] + bytes(len(data) - cut))


def test_a_flipped_bit_in_a_png_is_noticed() -> None:
    data = bytearray(encode(".png", GREY))
    data[len(data) // 2] ^= 1
    with pytest.raises(BadImageError, match="damaged: a PNG chunk fails its checksum"):
        read_header(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^empty$"),
        (b"\0" * 500, "^all zeros$"),
        (b"hello, I am a text", "^not a PNG, JPEG, BMP, TIFF or DICOM image$"),
        (b"GIF89a" + b"\0" * 100, "^not a PNG"),
        (b"RIFF\0\0\0\0WEBP", "^not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "^truncated$"),
        (b"\xff\xd8\xff", "^truncated$"),
        (b"\xff\xd8\xff\xe0\0\x02garbage", "^damaged: no JPEG marker where one must be$"),
        (b"BM", "^truncated$"),
        (b"II*\0\x08\0\0\0", "^truncated$"),
        (b"II*\0\0\0\0\0", "^holds 0 pages; one image a file is read$"),
    ],
)
def test_bad_starts(data: bytes, message: str) -> None:
    with pytest.raises(BadImageError, match=message):
        read_header(data)


def test_random_bytes_after_a_good_start_never_crash() -> None:
    starts = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"BM"]
    for start in starts:
        for length in range(200):
            try:
                read_header(start + rng.bytes(length))
            except BadImageError:
                continue


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    assert cv2.imwritemulti(str(tmp_path / "pages.tiff"), [GREY, GREY, GREY])
    with pytest.raises(BadImageError, match="holds 3 pages; one image a file is read"):
        read_header((tmp_path / "pages.tiff").read_bytes())


def tiff(order: str, tags: list[tuple[int, int, int]], magic: int = 42) -> bytes:
    """One directory of (tag, type, value) entries; type 3 is SHORT, 4 LONG."""
    mark = b"II" if order == "<" else b"MM"
    if magic == 43:
        data = mark + struct.pack(order + "HHHQQ", magic, 8, 0, 16, len(tags))
        codes, end = {3: "HHQHxxxxxx", 4: "HHQIxxxx"}, "Q"
    else:
        data = mark + struct.pack(order + "HIH", magic, 8, len(tags))
        codes, end = {3: "HHIHxx", 4: "HHII"}, "I"
    for tag, kind, value in tags:
        data += struct.pack(order + codes[kind], tag, kind, 1, value)
    return data + struct.pack(order + end, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [42, 43])
def test_both_byte_orders_and_bigtiff(order: str, magic: int) -> None:
    tags = [(256, 3, 60), (257, 4, 40), (273, 4, 8), (279, 4, 20)]
    assert read_header(tiff(order, tags, magic)) == Header("tiff", 60, 40)
    with pytest.raises(BadImageError, match="truncated"):
        read_header(tiff(order, [*tags[:3], (279, 4, 2000)], magic))


def test_exif_orientation_of_png_and_jpeg() -> None:
    exif = tiff(">", [(274, 3, 6)])
    png = encode(".png", GREY)
    with_exif = png[:33] + png_chunk(b"eXIf", exif) + png[33:]
    assert read_header(with_exif) == Header("png", 60, 40, 6)
    jpeg = encode(".jpg", GREY)
    body = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    assert read_header(jpeg[:2] + segment + jpeg[2:]) == Header("jpeg", 60, 40, 6)


@pytest.mark.parametrize("exif", [b"", b"II*\0", b"garbage", tiff("<", [(274, 3, 77)])])
def test_broken_exif_is_no_orientation(exif: bytes) -> None:
    png = encode(".png", GREY)
    with_exif = png[:33] + png_chunk(b"eXIf", exif) + png[33:]
    assert read_header(with_exif) == Header("png", 60, 40, 1)


def test_a_thumbnail_inside_a_cut_jpeg_does_not_end_it() -> None:
    thumbnail = encode(".jpg", GREY[:16, :16])
    body = b"Exif\0\0" + thumbnail
    jpeg = encode(".jpg", GREY)
    whole = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    assert read_header(whole) == Header("jpeg", 60, 40)
    with pytest.raises(BadImageError, match="truncated"):
        read_header(whole[: -len(jpeg) // 4])


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
