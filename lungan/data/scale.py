"""Images of any depth to square uint8 ones: cropped, resized, and scaled so that they compare."""

from __future__ import annotations

import contextlib
import logging
import stat
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.data.decode import MAX_BYTES, BadImageError, StoredImage, Values, decode
from lungan.data.images import NUM_NAMED, Facts, many, place_of
from lungan.errors import DataError

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
    place: from 0 to 1, by the pixels of the whole image (``images.place_of``).
    width, height: of the whole image, upright. is_negative: whether small values are bright.
    kind, mode, notes: as in ``StoredImage``.
    """

    pixels: NDArray[Any]
    place: float
    width: int
    height: int
    is_negative: bool
    kind: str
    mode: str
    notes: tuple[str, ...]

    @property
    def is_scaled(self) -> bool:
        return bool(self.pixels.dtype == np.uint8)


class Wanted(NamedTuple):
    """What images are to become. size, channels: None keeps each image's own (the shorter side).
    frame: which of several, from 0."""

    size: int | None = None
    channels: int | None = None
    scale: Scale = "auto"
    frame: int | None = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, the libraries' warnings and log lines about single files reach nobody: what matters
    in them is an error. Enter it around the threads that decode, as warnings are the process's."""
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        for name in ("PIL", "imagecodecs", "tifffile", "pydicom", "pylibjpeg"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL + 1)
        yield


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


def read_image(path: Path, wanted: Wanted) -> FittedImage | str:
    """The image at ``path``, or in words why it cannot be used. Call it inside ``quiet``.

    Raises: DataError where an extra is not installed.
    """
    try:
        stored = decode(read_bytes(path), wanted.frame, use_window=wanted.scale == "auto")
        return fit_image(stored, wanted.size, wanted.channels, wanted.scale)
    except BadImageError as error:
        return str(error)


def fit_image(
    image: StoredImage, size: int | None, channels: int | None, scale: Scale = "auto"
) -> FittedImage:
    """The image's centre square, resized.

    Pixel areas are averaged when shrinking and interpolated linearly when enlarging, so that no
    value appears that the image does not have. Grey from colour is BT.601 luminance, colour from
    grey its repetition. size, channels: None keeps the image's own.
    """
    values, mode, notes = image.values, image.mode, list(image.notes)
    height, width = values.shape[:2]
    is_negative = image.black > image.white
    ends: tuple[float, float] | None = None
    if not isinstance(scale, str):
        ends = (scale[1], scale[0]) if is_negative else (scale[0], scale[1])
    elif scale == "dtype" or (scale == "auto" and image.is_display):
        ends = (image.black, image.white)
    pixels = _square(values, channels)
    is_uint8 = pixels.dtype == np.uint8 and ends == (0, 255)
    if not is_uint8:
        pixels = pixels.astype(np.float32) if ends is None else shade(pixels, *ends)
    pixels = _resize(pixels, size or min(height, width), channels)
    if ends is not None and not is_uint8:
        pixels = np.rint(pixels).astype(np.uint8)
    if values.ndim == 3 and (values == values[..., :1]).all():
        mode = f"{mode.replace('colour', 'grey')} stored as colour"
    elif values.ndim == 3 and channels == 1:
        notes.append("in colour made grey; data.channels=3 keeps colour")
    if min(height, width) < pixels.shape[2]:
        notes.append("smaller than data.size and enlarged")
    place = place_of(values)
    return FittedImage(pixels, place, width, height, is_negative, image.kind, mode, tuple(notes))


def check_alike(
    names: Sequence[str], images: Sequence[FittedImage], size: int | None, channels: int | None
) -> None:
    """Raises: DataError where size or channels, which are None, are not those of all images."""
    first = images[0]
    for name, image in zip(names, images, strict=True):
        if size is None and not image.width == image.height == first.width:
            rule, way_out = "square and of one size", "--size 64 crops to the centre and resizes"
        elif channels is None and len(image.pixels) != len(first.pixels):
            rule, way_out = "all grey or all in colour", "--channels 1 makes all grey"
        else:
            continue
        one, other = (
            f"{each.width}x{each.height} {'grey' if len(each.pixels) == 1 else 'in colour'}"
            for each in (first, image)
        )
        raise DataError(f"images must be {rule}: {names[0]} is {one} and {name} {other}; {way_out}")


def shade(values: Values, black: float, white: float) -> NDArray[np.float32]:
    """``values`` at 0..255 where ``black`` is 0 and ``white`` 255; what lies beyond is cut off."""
    step = np.float32((white - black) / 255)
    if step == 0:
        return np.zeros(values.shape, np.float32)
    shades: NDArray[np.float32] = (values.astype(np.float32) - np.float32(black)) / step
    return np.clip(shades, 0, 255, out=shades)


def scale_images(
    images: Sequence[FittedImage], scale: Scale = "auto"
) -> tuple[NDArray[np.uint8], Facts]:
    """All images as (N, channels, size, size) uint8, and what they were and what was done. Those
    that cannot say alone what is black and white share one scale, each kind of values its own."""
    scaled = np.empty((len(images), *images[0].pixels.shape), dtype=np.uint8)
    changes = Counter(note for image in images for note in image.notes)
    facts = Facts(
        sizes=_count_sizes(images),
        modes=dict(Counter(image.mode for image in images).most_common()),
        num_cropped=sum(image.width != image.height for image in images),
        notes=[f"{many(number, 'image')} {note}" for note, number in changes.items()],
        warnings=_say_some_windowed(images),
    )
    num_of_kind = Counter(image.kind for image in images)
    for kind, number in sorted(num_of_kind.items()):
        members = [index for index, image in enumerate(images) if image.kind == kind]
        are, ends = f"{many(number, 'image')} ({kind})", None
        if not images[members[0]].is_scaled:  # as all images of its kind, or none
            low, high = ends = _range([images[index].pixels for index in members], scale)
            of = "0.5th to 99.5th percentile" if scale == "percentile" else "range"
            facts.scaling.append(
                f"{are}: values from {low:.7g} (black) to {high:.7g} (white), the {of} of them all"
            )
        elif scale != "auto":
            how = "the ends of their type" if scale == "dtype" else "{:g} and {:g}".format(*scale)
            facts.scaling.append(f"{are}: black and white are {how}")
        for index in members:
            pixels, is_negative = images[index].pixels, images[index].is_negative
            if ends:
                pixels = np.rint(shade(pixels, *(ends[::-1] if is_negative else ends)))
            scaled[index] = pixels
        darkest = min(int(scaled[index].min()) for index in members)
        brightest = max(int(scaled[index].max()) for index in members)
        if brightest - darkest < SHALLOW:
            facts.warnings.append(
                f"only the shades {darkest} to {brightest} of 0 to 255 occur in {are}, nearly one "
                "grey; data.scale=range (of files) stretches them"
            )
    if len(num_of_kind) > 1 and not all(image.is_scaled for image in images):
        kinds = ", ".join(f"{kind} ({number})" for kind, number in num_of_kind.most_common())
        facts.warnings.append(
            f"each of {len(num_of_kind)} kinds of values has its own black and white, so that "
            f"their greys may not compare: {kinds}; data.scale=[black,white] sets one for all"
        )
    return scaled, facts


def _count_sizes(images: Sequence[FittedImage]) -> dict[str, int]:
    """By ``width x height``, the ten most frequent; the others together."""
    counts = Counter((image.width, image.height) for image in images).most_common()
    named = {f"{width}x{height}": count for (width, height), count in counts[:NUM_NAMED]}
    if others := counts[NUM_NAMED:]:
        sides = [side for size, _ in others for side in size]
        text = f"{len(others)} other sizes, sides from {min(sides)} to {max(sides)}"
        named[text] = sum(count for _, count in others)
    return named


def _say_some_windowed(images: Sequence[FittedImage]) -> list[str]:
    """A warning where images of one mode are of several kinds: some are seen through a window."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        kinds[image.mode][image.kind] += 1
    return [
        f"{sum(n for kind, n in counts.items() if kind.endswith('window'))} of "
        f"{many(counts.total(), 'image')} ({mode}) have a window of their own and the others not, "
        "so their greys do not compare; data.scale=range or data.scale=[black,white] treats all "
        "alike"
        for mode, counts in sorted(kinds.items())
        if len(counts) > 1
    ]


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
