"""Images of any depth to square uint8 ones: cropped, resized, and scaled so that they compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.data.decode import decode
from lungan.data.images import NUM_NAMED, Facts, many, place_of
from lungan.data.stored import BadImageError, StoredImage, Values, read_bytes

Scale = str | Sequence[float]
"""``auto``, ``dtype``, ``range``, ``percentile``, or the values that become black and white."""

PERCENTILES = (0.5, 99.5)
MAX_SAMPLED = 10**7

SHALLOW = 64
"""Of 256 shades: a set that spans fewer is warned of."""


class FittedImage(NamedTuple):
    """An image cropped to its centre square and resized, and what is known of its file.

    pixels: (channels, size, size), uint8 where the image alone says what is black and white, else
    float32 in the file's own values, for ``scale_images``.
    place, width, height: of the whole image, upright. place: from 0 to 1, by its pixels
    (``images.place_of``).
    stored: what decoding gave, without its values.
    """

    pixels: NDArray[Any]
    place: float
    width: int
    height: int
    stored: StoredImage


class Wanted(NamedTuple):
    """What images are to become. size, channels: None keeps each image's own (the shorter side).
    frame: which of several, from 0."""

    size: int | None = None
    channels: int | None = None
    scale: Scale = "auto"
    frame: int | None = None


class ScaledImages(NamedTuple):
    """images: (N, channels, size, size) uint8. facts: what they were and what was done."""

    images: NDArray[np.uint8]
    facts: Facts


def read_image(
    path: Path,
    size: int | None = None,
    channels: int | None = None,
    scale: Scale = "auto",
    frame: int | None = None,
) -> FittedImage | str:
    """The image at ``path`` as ``Wanted``, or in words why it cannot be used. Call it inside
    ``stored.quiet``.

    Raises: DataError where an extra is not installed.
    """
    try:
        stored = decode(read_bytes(path), frame, use_window=scale == "auto")
        return fit_image(stored, size, channels, scale)
    except BadImageError as error:
        return str(error)


def fit_image(
    image: StoredImage, size: int | None, channels: int | None, scale: Scale = "auto"
) -> FittedImage:
    height, width = image.values.shape[:2]
    ends: tuple[float, float] | None = None
    if not isinstance(scale, str):
        ends = (scale[1], scale[0]) if image.is_negative else (scale[0], scale[1])
    elif scale == "dtype" or (scale == "auto" and image.is_display):
        ends = (image.black, image.white)
    pixels = _square(image.values, channels)
    is_uint8 = pixels.dtype == np.uint8 and ends == (0, 255)
    if not is_uint8:
        pixels = pixels.astype(np.float32) if ends is None else shade(pixels, *ends)
    pixels = _resize(pixels, size or min(height, width), channels)
    if ends is not None and not is_uint8:
        pixels = np.rint(pixels).astype(np.uint8)
    # No view of the values, which would keep them all in memory.
    known = replace(image, values=np.empty(0), mode=_say_grey(image))
    return FittedImage(pixels, place_of(image.values), width, height, known)


def _say_grey(image: StoredImage) -> str:
    """The image's mode; grey where its three channels are one, as in many exported radiographs."""
    values = image.values
    if values.ndim == 3 and (values == values[..., :1]).all():
        return f"{image.mode.replace('colour', 'grey')} stored as colour"
    return image.mode


def fit(values: NDArray[np.uint8], size: int, channels: int | None = None) -> NDArray[np.uint8]:
    """(channels, size, size) uint8: the centre square of ``values``, resized.

    Pixel areas are averaged when shrinking and interpolated linearly when enlarging, so that no
    value appears that the image does not have. Grey from colour is BT.601 luminance, colour from
    grey its repetition.

    values: (H, W) grey or (H, W, 3) RGB. channels: None keeps the image's own.
    """
    return _resize(_square(values, channels), size, channels)


def shade(values: Values, black: float, white: float) -> NDArray[np.float32]:
    """``values`` at 0..255 where ``black`` is 0 and ``white`` 255; what lies beyond is cut off."""
    step = np.float32((white - black) / 255)
    if step == 0:
        return np.zeros(values.shape, np.float32)
    shades: NDArray[np.float32] = (values.astype(np.float32) - np.float32(black)) / step
    return np.clip(shades, 0, 255, out=shades)


def scale_images(images: Sequence[FittedImage], scale: Scale = "auto") -> ScaledImages:
    """All images at uint8: those that cannot say alone what is black and white share one scale,
    each kind of values its own."""
    scaled = np.empty((len(images), *images[0].pixels.shape), dtype=np.uint8)
    scaling, warnings = [], _say_some_windowed(images)
    num_of_kind = Counter(image.stored.kind for image in images)
    for kind in sorted(num_of_kind):
        indices = [index for index, image in enumerate(images) if image.stored.kind == kind]
        pixels = [images[index].pixels for index in indices]
        ends = None
        if _waits(images[indices[0]]):  # as all images of its kind, or none
            low, high = ends = _range(pixels, scale)
            of = "0.5th to 99.5th percentile" if scale == "percentile" else "range"
            scaling.append(
                f"{many(len(indices), 'image')} ({kind}): values from {low:.7g} (black) to "
                f"{high:.7g} (white), the {of} of them all"
            )
        elif scale != "auto":
            how = "the ends of their type" if scale == "dtype" else "{:g} and {:g}".format(*scale)
            scaling.append(f"{many(len(indices), 'image')} ({kind}): black and white are {how}")
        for index, one in zip(indices, pixels, strict=True):
            is_negative = images[index].stored.is_negative
            scaled[index] = (
                np.rint(shade(one, *(ends[::-1] if is_negative else ends))) if ends else one
            )
        of_kind = scaled if len(indices) == len(images) else scaled[indices]
        darkest, brightest = int(of_kind.min()), int(of_kind.max())
        if brightest - darkest < SHALLOW:
            warnings.append(
                f"only the shades {darkest} to {brightest} of 0 to 255 occur in "
                f"{many(len(indices), 'image')} ({kind}), nearly one grey; data.scale=range "
                "stretches them"
            )
    if len(num_of_kind) > 1 and any(_waits(image) for image in images):
        kinds = ", ".join(f"{kind} ({number})" for kind, number in num_of_kind.most_common())
        warnings.append(
            f"black and white are of their own for each of {len(num_of_kind)} kinds of values, so "
            f"their greys may not compare: {kinds}; data.scale=[black,white] is one for all"
        )
    facts = Facts(
        sizes=_count_sizes(images),
        modes=dict(Counter(image.stored.mode for image in images).most_common()),
        num_cropped=sum(image.width != image.height for image in images),
        scaling=scaling,
        notes=_say_changed(images),
        warnings=warnings,
    )
    return ScaledImages(scaled, facts)


def _count_sizes(images: Sequence[FittedImage]) -> dict[str, int]:
    """By ``width x height``, the ten most frequent; the others together."""
    counts = Counter((image.width, image.height) for image in images).most_common()
    named = {f"{width}x{height}": count for (width, height), count in counts[:NUM_NAMED]}
    if others := counts[NUM_NAMED:]:
        sides = [side for size, _ in others for side in size]
        text = f"{len(others)} other sizes, sides from {min(sides)} to {max(sides)}"
        named[text] = sum(count for _, count in others)
    return named


def _say_changed(images: Sequence[FittedImage]) -> list[str]:
    num_grey = sum(
        image.stored.mode.startswith("colour") and len(image.pixels) == 1 for image in images
    )
    num_small = sum(min(image.width, image.height) < image.pixels.shape[2] for image in images)
    num_turned = sum(image.stored.is_turned for image in images)
    num_windowed = sum(image.stored.is_windowed for image in images)
    changes = [
        (num_grey, "image", "in colour made grey; data.channels=3 keeps colour"),
        (num_small, "image", "smaller than data.size and enlarged"),
        (num_turned, "image", "turned upright, as EXIF data say"),
        (num_windowed, "DICOM image", "seen through the file's own window"),
    ]
    return [f"{many(number, noun)} {change}" for number, noun, change in changes if number]


def _say_some_windowed(images: Sequence[FittedImage]) -> list[str]:
    """A warning where only some images of one mode are seen through a window."""
    warnings = []
    stored = [image.stored for image in images]
    for mode in sorted({image.mode for image in stored if image.is_windowed}):
        windowed = [image.is_windowed for image in stored if image.mode == mode]
        if not all(windowed):
            warnings.append(
                f"{sum(windowed)} of {many(len(windowed), 'image')} ({mode}) have a window of "
                "their own and the others not, so their greys do not compare; data.scale=range or "
                "data.scale=[black,white] treats all alike"
            )
    return warnings


def _waits(image: FittedImage) -> bool:
    return image.pixels.dtype != np.uint8


def _range(pixels: Sequence[NDArray[Any]], scale: Scale) -> tuple[float, float]:
    if scale != "percentile":
        return min(float(part.min()) for part in pixels), max(float(part.max()) for part in pixels)
    # Of many images every n-th pixel, as the percentiles need a copy of them all.
    step = 1 + sum(part.size for part in pixels) // MAX_SAMPLED
    sample = np.concatenate([part.ravel()[::step] for part in pixels])
    low, high = np.percentile(sample, PERCENTILES)
    return float(low), float(high)


def _square(values: Values, channels: int | None) -> Values:
    """The centre square; its luminance where one channel is wanted."""
    height, width = values.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = values[top : top + side, left : left + side]
    if channels != 1 or square.ndim == 2:
        return square
    if square.dtype not in (np.uint8, np.uint16):
        square = square.astype(np.float32)
    return cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)


def _resize(square: Values, size: int, channels: int | None) -> NDArray[Any]:
    side = square.shape[0]
    if side != size:
        interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        square = cv2.resize(square, (size, size), interpolation=interpolation)
    if square.ndim == 2:
        return np.repeat(square[None], channels or 1, axis=0)
    return np.ascontiguousarray(square.transpose(2, 0, 1))
