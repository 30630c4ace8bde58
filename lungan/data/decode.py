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
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from lungan.data.stored import (
    DICOM_EXTRA,
    MAX_PIXELS,
    BadImageError,
    StoredImage,
    Values,
    check_coded_size,
    check_size,
    choose_frame,
    display,
    measure,
    narrow_palette,
    read_jpeg_frame,
    say_type,
    turn_upright,
)
from lungan.errors import DataError

FORMATS = "PNG, JPEG, BMP, TIFF, DICOM, GIF and WebP"

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
    try:
        image = Image.open(stream, formats=_PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImageError(
            f"more pixels than the limit of {MAX_PIXELS // 10**6} million"
        ) from error
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
        values = _over_black(values) if values.ndim == 3 and values.shape[2] in (2, 4) else values
    else:
        values = _values_of(image)
    stored = display(values, 8 * values.dtype.itemsize)
    if image.mode == "1":
        stored = replace(stored, kind="1 bit", mode="grey 1 bit")
    return turn_upright(stored, _orientation(image, data))


def _explain(data: bytes, error: Exception, reason: str) -> str:
    """Why a file could not be decoded: most often it is sound, but of another kind."""
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


def _values_of(image: Image.Image) -> Values:
    """What an image of 8 bits shows: grey or RGB, palettes looked up, transparent parts black."""
    image.load()
    has_alpha = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    values = np.asarray(image.convert(f"{mode}A" if has_alpha else mode))
    return _over_black(values) if has_alpha else values


def _over_black(values: Values) -> Values:
    """(H, W) or (H, W, 3) over black, from unsigned values with alpha as the last channel."""
    full = np.iinfo(values.dtype).max
    colour, alpha = values[..., :-1], values[..., -1:]
    if not (alpha == full).all():
        colour = np.rint(colour * (alpha / np.float32(full))).astype(values.dtype)
    return np.ascontiguousarray(colour[..., 0] if colour.shape[2] == 1 else colour)


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
    alpha = None
    if 2 in extras:  # Associated alpha, 1, is colour over black already.
        alpha = values[..., num_colours + extras.index(2)].astype(np.float32)
        alpha = alpha if colour.ndim == 2 else alpha[..., None]
    if page.sampleformat == 1 and bits <= 16:
        top = 2**bits - 1
        colour = top - colour if is_negative else colour
        if alpha is not None:
            colour = np.rint(colour * (alpha / np.float32(top))).astype(colour.dtype)
        return display(np.ascontiguousarray(colour), bits, note)
    low, high, kind = say_type("uif"[page.sampleformat - 1], bits)
    stored = measure(colour, low, high, is_negative, kind)
    stored = replace(stored, mode=f"{'colour' if colour.ndim == 3 else 'grey'} {kind}{note}")
    if alpha is None:
        return stored
    darkest = stored.values.max() if is_negative else stored.values.min()
    values = darkest + (stored.values - darkest) * (alpha / np.float32(high))
    return replace(stored, values=values)
