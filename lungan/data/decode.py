"""From the bytes of an image file to its pixels, upright, in the values that the file stores.

Pillow reads JPEG, BMP, GIF and WebP, imagecodecs PNG, tifffile TIFF, pydicom DICOM. Sizes are
checked before pixels are allocated, and a file that was cut short is refused, also where those
would pad it.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import struct
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lungan.data.cache import ANY_BYTES, MAX_RATIO
from lungan.data.images import many
from lungan.errors import DataError

FORMATS = "PNG, JPEG, BMP, TIFF, DICOM, GIF and WebP"

MAX_PIXELS = 2**26
"""More than any radiograph has; a header that claims more is not believed."""

MAX_BYTES = 2**29
"""The most pixels that a header may claim, at 8 bytes each."""

DICOM_EXTRA = "pip install 'lungan[dicom]' (pydicom, pylibjpeg[all], pyjpegls)"

_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34712, 34925, 34926, 50000)
"""None, CCITT, LZW, JPEG, Deflate, PackBits, JPEG 2000, LZMA and Zstandard: those whose decoders
take no more memory than the image has, or say its size first."""

_EXIF_IN_PNG = re.compile(rb"eXIf|Raw profile type exif|XML:com\.adobe\.xmp")

_PNG_START = b"\x89PNG\r\n\x1a\n"
_DATA_SET_STARTS = re.compile(
    rb"[\x02\x08]\0.\0(\0\0|[A-Z]{2}|..\0\0)|\0[\x02\x08]\0.[A-Z]{2}", re.S
)
"""The first element of a DICOM data set that was written without the preamble before it: group 2
or 8, then a length or the two letters of a type; in both byte orders."""

_KNOWN = {
    b"....ftyp(heic|heix|heim|heis|mif1|msf1)": "HEIC",
    b"....ftypavi": "AVIF",
    b"....ftyp|.{4}moov|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba": "video",
    b"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a|\0\0\0\x0cJXL ": "JPEG XL",
    b".{344}(n\\+1|ni1)\0|\\\\\x01\0\0|\0\0\x01\\\\": "NIfTI",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"P[1-7]\\s": "PNM",
    b"NRRD": "NRRD",
    b"\x93NUMPY": "NumPy",
    b"\x89HDF": "HDF5",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"<svg|<\\?xml": "SVG or XML",
    b"\\s*(?i:<!DOCTYPE html|<html)": "web page",
    b"version https://git-lfs": "Git LFS pointer (git lfs pull gets the file)",
    b"ObjectType|NDims": "MetaImage",
    b"v/1\x01": "OpenEXR",
    _PNG_START + b"....CgBI": "PNG with Apple's CgBI extension",
}
"""How files start that are sound but not read here, as regular expressions."""


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


def decode(data: bytes, frame: int | None = None, *, use_window: bool = True) -> StoredImage:
    """The image that ``data`` encodes. Transparent parts are black, as a radiograph's surround is.

    frame: which of several frames or pages, from 0. use_window: whether a DICOM file's own window
    or VOI table is applied.

    Raises: BadImageError, or DataError where the file needs an extra that is not installed.
    """
    if not data:
        raise BadImageError("empty")
    is_dicom = data[128:132] == b"DICM" or bool(_DATA_SET_STARTS.match(data))
    try:
        if is_dicom:
            try:
                from lungan.data.dicom import decode_dicom
            except ImportError as error:
                raise DataError(f"DICOM files need pydicom: {DICOM_EXTRA}") from error
            return decode_dicom(data, frame, use_window=use_window)
        if data.startswith(_TIFF_STARTS):
            return _decode_tiff(data, frame)
        return _decode_with_pillow(data, frame)
    except DataError:
        raise
    # The libraries answer damaged files with whatever exception comes up; pydicom's plug-ins with
    # their own, which share no base class.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        said = f"DICOM cannot be decoded: {reason}" if is_dicom else _explain(data, error, reason)
        raise BadImageError(said) from error


def _decode_with_pillow(data: bytes, frame: int | None) -> StoredImage:
    stream = io.BytesIO(data)
    image = Image.open(stream, formats=_PILLOW_FORMATS)
    is_deep = image.mode.startswith("I") or (image.format == "PNG" and data[24] == 16)
    bits = len(image.getbands()) * (16 if is_deep else 8)
    check_size(*image.size, bits, len(data))
    # MPO: a JPEG photograph with previews behind it.
    num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if chosen := choose_frame(num_frames, frame):
        image.seek(chosen)
    if image.format in ("JPEG", "MPO") and data.find(b"\xff\xd9", stream.tell()) < 0:
        raise BadImageError("truncated")
    if image.format == "PNG" and not chosen:
        # Pillow keeps 8 of 16 bits in colour, and makes zeros of rows that are not there.
        values = imagecodecs.png_decode(data)
    else:
        image.load()
        has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
        mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
        values = np.asarray(image.convert(f"{mode}A" if has_alpha else mode))
    if values.ndim == 3 and values.shape[2] in (2, 4):
        colour = values[..., 0] if values.shape[2] == 2 else values[..., :3]
        values = _over_black(colour, values[..., -1], np.iinfo(values.dtype).max)
    stored = display(values, 8 * values.dtype.itemsize)
    if image.mode == "1":
        stored = replace(stored, kind="1 bit", mode="grey 1 bit")
    return turn_upright(stored, _orientation(image, data))


def _explain(data: bytes, error: Exception, reason: str) -> str:
    """Why a file could not be decoded: most often it is sound, but of another kind."""
    if isinstance(error, Image.DecompressionBombError):  # before its size can be checked
        return f"more pixels than the limit of {MAX_PIXELS // 10**6} million"
    known = [name for start, name in _KNOWN.items() if re.match(start, data, re.S)]
    if jpeg := read_jpeg_frame(data):
        marker, bits, _, _ = jpeg
        if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
            known.append("lossless or hierarchical JPEG")
        elif bits != 8:
            known.append(f"JPEG of {bits} bits")
    if known:
        return f"{known[0]}, which is not read; {FORMATS} are"
    if not data.strip(b"\0"):
        return "all zeros"
    if isinstance(error, UnidentifiedImageError):
        starts = (_PNG_START, b"\xff\xd8\xff", b"BM", b"GIF8")
        if not data.startswith(starts) and data[8:12] != b"WEBP":
            return f"not a {FORMATS.replace(' and ', ' or ')} image"
        reason = "its header cannot be read"
    if "not supported" in reason:
        return f"not read: {reason}"
    if isinstance(error, struct.error | EOFError) or re.search("truncated|too small", reason):
        return "truncated"
    return f"truncated or damaged: {reason}"


def _over_black(colour: Values, alpha: Values, opaque: float, black: float = 0) -> Values:
    """(H, W) or (H, W, 3) over ``black``. alpha: (H, W), 0 to ``opaque``."""
    share = alpha.astype(np.float32) / np.float32(opaque)
    share = share if colour.ndim == 2 else share[..., None]
    shades: Values = black + (colour - black) * share
    return np.rint(shades).astype(colour.dtype) if colour.dtype.kind == "u" else shades


def _orientation(image: Image.Image, data: bytes) -> Any:
    """EXIF's, whatever stands there; 1 where it cannot be read: an image is no worse for that."""
    # Pillow would decode a PNG to look behind its pixels.
    if image.format == "PNG" and not _EXIF_IN_PNG.search(data):
        return 1
    with contextlib.suppress(Exception):
        return image.getexif().get(274, 1)
    return 1


def _decode_tiff(data: bytes, frame: int | None) -> StoredImage:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found: list[Any] = list(file.pages)
        pages = [page for page in found if not page.is_reduced]
        if not pages:
            raise BadImageError("truncated or damaged: holds no pages")
        page = pages[choose_frame(len(pages), frame, "page")]
        bits = page.samplesperpixel * page.bitspersample
        check_size(page.imagewidth, page.imagelength, bits, len(data))
        num_images = (file.imagej_metadata or {}).get("images", 1)
        if page.imagedepth > 1 or num_images > len(pages):
            raise BadImageError("TIFF that holds a volume; save the slice to use as a file")
        for what, tag, are_read in (
            ("{} bits", page.bitspersample, range(1, 65)),
            ("{} colours", page.photometric, (0, 1, 2, 3, 6)),
            ("{} samples", page.sampleformat, (1, 2, 3)),
            ("{} compression", page.compression, _TIFF_COMPRESSIONS),
        ):
            if tag not in are_read:
                raise BadImageError(
                    f"TIFF of {what.format(getattr(tag, 'name', tag))}, which is not read"
                )
        _check_blocks(data, page)
        values = page.asarray(squeeze=False, maxworkers=1)
        orientation = page.tags.valueof(274, 1)
    # (planes, depth, height, width, samples) to (height, width, samples)
    values = np.moveaxis(values[:, 0, ..., 0], 0, -1) if len(values) > 1 else values[0, 0]
    return turn_upright(_interpret_tiff(values, page), orientation)


def _check_blocks(data: bytes, page: Any) -> None:
    """Raises: BadImageError where strips or tiles are missing, of which tifffile makes zeros."""
    blocks = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if any(offset + count > len(data) for offset, count in blocks):
        raise BadImageError("truncated")
    num_bits = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample
    if (
        len(blocks) < math.prod(page.chunked)
        or not all(offset >= 8 and count for offset, count in blocks)
        or (page.photometric == 3 and page.colormap is None)
        or (page.samplesperpixel > 1 and 258 not in page.tags)  # bits per sample
        or (page.compression == 1 and sum(count for _, count in blocks) < num_bits // 8)
    ):
        raise BadImageError("truncated or damaged: parts of it are missing")
    for offset, count in blocks:
        check_coded_size(data[offset : offset + count])


def _interpret_tiff(values: Values, page: Any) -> StoredImage:
    """values: (H, W, samples) as stored."""
    bits, num_colours = page.bitspersample, 3 if page.photometric in (2, 6) else 1
    is_negative = page.photometric == 0
    colour = values[..., :num_colours] if num_colours == 3 else values[..., 0]
    if page.photometric == 6 and page.compression != 7:  # A JPEG's decoder gives RGB.
        colour = np.asarray(Image.fromarray(colour, "YCbCr").convert("RGB"))
    if page.photometric == 3:
        colour, bits = narrow_palette(page.colormap).T[colour], 8
    extras = [*page.extrasamples, *[0] * values.shape[2]][: values.shape[2] - num_colours]
    num_unused = len(extras) - extras.count(1) - extras.count(2)
    note = f", extra samples unused: {num_unused}" if num_unused else ""
    # Associated alpha, 1, is colour over black already.
    alpha = values[..., num_colours + extras.index(2)] if 2 in extras else None
    if page.sampleformat == 1 and bits <= 16:
        top = 2**bits - 1
        colour = top - colour if is_negative else colour
        colour = colour if alpha is None else _over_black(colour, alpha, top)
        return display(np.ascontiguousarray(colour), bits, note)
    low, high, kind = say_type("uif"[page.sampleformat - 1], bits)
    mode = f"{'colour' if colour.ndim == 3 else 'grey'} {kind}{note}"
    stored = replace(measure(colour, low, high, is_negative, kind), mode=mode)
    if alpha is None:
        return stored
    black = stored.values.max() if is_negative else stored.values.min()
    return replace(stored, values=_over_black(stored.values, alpha, high, black))


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
