"""From factors to radiographs: how much each structure brightens the film, added up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungan.data.phantom import anatomy
from lungan.data.phantom.factors import Factors, over_pixels
from lungan.data.phantom.shapes import Field

DRAWING_VERSION = 1
"""Raised whenever the same config would give other pixels: part of the cache key."""

PIXELS_PER_CHUNK = 2**15
"""Keeps a chunk's fields in the processor's cache; never changes an image."""


def draw_images(
    factors: Factors, size: int, pixels_per_chunk: int = PIXELS_PER_CHUNK
) -> NDArray[np.uint8]:
    """Draw (N, 1, size, size) uint8 radiographs; each depends on its own factors and size only."""
    # Ribs lie across the film: small films are drawn with twice the rows, averaged in pairs.
    rows_per_pixel = 2 if size <= 64 else 1
    images = np.empty((len(factors), 1, size, size), dtype=np.uint8)
    step = max(1, pixels_per_chunk // (size * size * rows_per_pixel))
    for start in range(0, len(factors), step):
        film = _draw_chunk(factors[start : start + step], size, rows_per_pixel)
        if rows_per_pixel == 2:
            film = 0.5 * (film[:, ::2] + film[:, 1::2])
        film *= 255
        images[start : start + step, 0] = np.rint(np.clip(film, 0, 255, out=film))
    return images


def _draw_chunk(factors: Factors, size: int, rows_per_pixel: int) -> Field:
    film_x, film_y = _positions(size)[None, :], _positions(size * rows_per_pixel)[:, None]
    chest = _place(factors, film_x, film_y, 2 / size)
    film = anatomy.draw_body(chest)
    air = anatomy.draw_air(chest)
    air *= anatomy.draw_clearing(chest)
    film -= chest.value("lung_air") * air
    film += anatomy.draw_middle(chest)
    film += anatomy.draw_vessels(chest, air)
    film += anatomy.draw_bones(chest)
    film += anatomy.draw_abdomen(chest)
    film += anatomy.draw_lead(chest)

    film += chest.value("cloudiness") * (chest.clouds + 0.6 * chest.mottle)
    film += chest.value("haze_x") * film_x + chest.value("haze_y") * film_y
    film += chest.value("grain") * chest.grain
    if size > 64:
        film += chest.value("grain") * chest.texture(90)
    film -= 0.56
    film *= chest.value("contrast")
    film += 0.56 + chest.value("brightness")
    film += chest.value("curve") * film * (1 - film)
    return film


def _positions(count: int) -> Field:
    """Pixel centres from -1 to 1."""
    return ((np.arange(count) + 0.5) * (2 / count) - 1).astype(np.float32)


def _place(factors: Factors, film_x: Field, film_y: Field, pixel: float) -> anatomy.Chest:
    """Shift, turn, scale and bend the film's pixels into the patient's frame."""
    x = film_x - over_pixels(factors, "shift_x")
    y = film_y - over_pixels(factors, "shift_y")
    tilt = over_pixels(factors, "tilt")
    along = 1 / (over_pixels(factors, "scale") * np.sqrt(1 + tilt * tilt))
    across = along / over_pixels(factors, "aspect")
    patient_x = x * across + y * (tilt * across)
    patient_y = y * along - x * (tilt * along)
    patient_x += over_pixels(factors, "scoliosis") * (patient_y * patient_y - 0.4)
    return anatomy.Chest(factors, patient_x, patient_y, pixel)
