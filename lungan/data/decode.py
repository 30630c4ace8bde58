"""From the bytes of an image file to a square uint8 image of the wanted size and channels."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.data.headers import BadImageError, check_size, read_header

MAX_BYTES = 2**29
"""The most pixels that a header may claim, at 8 bytes each."""

Pixels = NDArray[Any]
"""(H, W) grey or (H, W, 3) RGB, uint8 or uint16."""


def read_bytes(path: Path) -> bytes:
    """Raises: BadImageError where ``path`` cannot be opened, is no plain file, or is too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError("not a plain file")
        if status.st_size > MAX_BYTES:
            raise BadImageError(f"larger than {MAX_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError(f"cannot be opened: {error.strerror or error}") from error


def decode(data: bytes) -> Pixels:
    """The image that ``data`` encodes, upright as EXIF says, at 8 or 16 bits a channel.

    Transparent parts are black, as the surround of a radiograph is.

    Raises: BadImageError, or DataError where a DICOM file needs an extra that is not installed.
    """
    header = read_header(data)
    if header.kind == "dicom":
        from lungan.data.dicom import decode_dicom

        return decode_dicom(data)
    check_size(header.width, header.height)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadImageError(f"damaged: OpenCV says {error.err}") from error
    if image is None:
        raise BadImageError(f"damaged: OpenCV cannot decode this {header.kind.upper()} file")
    if image.dtype not in (np.uint8, np.uint16):
        raise BadImageError(f"must have 8 or 16 bits a channel, got {image.dtype}")
    return _turn_upright(_to_grey_or_rgb(image), header.orientation)


def fit(image: Pixels, size: int, channels: int) -> NDArray[np.uint8]:
    """(channels, size, size) uint8: the centre square, resized.

    Pixel areas are averaged when shrinking and interpolated linearly when enlarging, so that no
    value appears that the image does not have. Grey from colour is BT.601 luminance, colour
    from grey its repetition; 16 bits become 8 on the full scale (65535 is 255).
    """
    if channels == 1 and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if square.dtype == np.uint16:
        square = square.astype(np.float32) / 257
    if side != size:
        interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        square = cv2.resize(square, (size, size), interpolation=interpolation)
    if square.dtype != np.uint8:
        square = np.rint(square).astype(np.uint8)
    if square.ndim == 2:
        return np.repeat(square[None], channels, axis=0)
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def _to_grey_or_rgb(image: NDArray[Any]) -> Pixels:
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.shape[2] == 4:
        full = np.iinfo(image.dtype).max
        alpha = image[..., 3:]
        colour = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2RGB)
        if (alpha == full).all():
            return colour
        return np.rint(colour * (alpha / np.float32(full))).astype(image.dtype)
    raise BadImageError(f"must have 1, 3 or 4 channels, got {image.shape[2]}")


def _turn_upright(image: Pixels, orientation: int) -> Pixels:
    """Source: EXIF 2.3, tag 274: the side of the scene at which row 0 and column 0 stand."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
