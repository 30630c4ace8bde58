"""From factors to radiographs: what each structure of the chest adds to the film, added up.

Only operations that IEEE 754 rounds exactly (+, -, *, /, square root) touch the pixels, no exp or
sine, and sums of products stay within 24 bits: the same factors give the same bytes on any machine.
"""

# numpy's types say Any for float32 arrays times plain numbers.
# mypy: no-warn-return-any

from __future__ import annotations

from functools import cache, cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

DRAWING_VERSION = 1
"""Raised whenever the same config would give other pixels: part of the cache key."""

PIXELS_PER_CHUNK = 2**15
"""Keeps a chunk's fields in the processor's cache; never changes an image."""

Factors: TypeAlias = NDArray[np.void]
"""The known factors, one record an image: ``factors["heart_size"]`` is (N,). See ``phantom``."""

Field: TypeAlias = NDArray[np.float32]


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
        images[start : start + step, 0] = np.rint(np.clip(film * 255, 0, 255))
    return images


class Chest:
    """A chunk of patients: pixel positions in the patient's frame, and what several structures
    share.

    x, y: (N, rows, columns), see ``phantom.FACTORS``. aside: distance from the midline.
    left: 1 on the patient's left, 0 on the right, blended over the spine.
    pixel: the coarser of the two distances between pixels on the film.
    edge: half width of a border: blurred by breathing, and never finer than the pixels.
    clouds, mottle, grain: noise, from coarse to fine.
    """

    def __init__(self, factors: Factors, film_x: Field, film_y: Field, pixel: float) -> None:
        """Shift, turn, scale and bend the film's pixels into the patient's frame."""
        self.factors, self.pixel = factors, pixel
        x, y = film_x - self.value("shift_x"), film_y - self.value("shift_y")
        tilt = self.value("tilt")
        along = 1 / (self.value("scale") * np.sqrt(1 + tilt * tilt))
        across = along / self.value("aspect")
        self.y: Field = y * along - x * (tilt * along)
        bend = self.value("scoliosis") * (self.y * self.y - 0.4)
        self.x: Field = x * across + y * (tilt * across) + bend
        self.aside: Field = np.abs(self.x)
        self.left = ramp(self.x * 5)
        self.edge: Field = np.maximum(self.value("sharpness"), 1.2 * pixel)
        self.clouds, self.mottle, self.grain = map(self.texture, (5, 14, 28))

    def value(self, name: str, index: int | None = None) -> Field:
        """A factor as (N, 1, 1), to be broadcast over the pixels; ``index`` picks an opacity."""
        column: Field = self.factors[name] if index is None else self.factors[name][:, index]
        return column[:, None, None]

    def texture(self, cells: int) -> Field:
        return noise(self.factors["texture_seed"], cells, *self.x.shape[1:])

    @cached_property
    def below_apex(self) -> Field:
        """0 at the top of the lungs, 1 at the diaphragm and below."""
        top = self.value("lung_top")
        return np.clip((self.y - top) / (self.value("diaphragm_y") - top), 0, 1)

    @cached_property
    def lateral(self) -> Field:
        """Where the lung ends and the chest wall begins, as a distance from the midline."""
        top_width, roundness = self.value("lung_top_width"), self.value("lung_roundness")
        wide = self.value("lung_width") + self.value("lung_asymmetry") * (2 * self.left - 1)
        t = self.below_apex
        return top_width + (wide - top_width) * (roundness * np.sqrt(t) + (1 - roundness) * t)

    @cached_property
    def below_diaphragm(self) -> Field:
        """0 above the diaphragm's dome, 1 below; the dome is flat towards the middle."""
        from_top = self.aside - 0.36
        slope = np.where(from_top > 0, np.float32(2.3), np.float32(1.3))
        dome = self.value("diaphragm_dome") * ((from_top * slope) ** 2 - 0.35)
        border = self.value("diaphragm_y") + self.value("diaphragm_lift") * self.left + dome
        return ramp((self.y - border) / self.edge)

    @cached_property
    def bulge(self) -> Field:
        """How far down the heart's border has swung out: 0 above the heart, 1 at its base."""
        return ramp((self.y - self.value("heart_y")) * 3.4)

    @cached_property
    def middle(self) -> Field:
        """Mediastinum and heart as one silhouette."""
        size, shift = self.value("heart_size"), self.value("heart_shift")
        right, left = 0.11 * size - shift, 0.3 * size + shift
        sail = self.y + 0.4
        border = (
            (right + (left - right) * self.left) * self.bulge
            + self.value("mediastinum_width")
            - 0.15 * np.maximum(self.y - 0.3, 0)
            + self.value("thymus") * np.maximum(1 - 11 * sail * sail, 0)
            - np.abs(self.x - self.value("turn"))
        )
        return ramp(border / (1.4 * self.edge))


def draw_body(chest: Chest) -> Field:
    """Soft tissue: trunk, neck, shoulders and arms, thinner towards the skin."""
    aside, y = chest.aside, chest.y
    width = chest.value("body_width") - 0.06 * y
    # The arm hangs from the shoulder; a gap of air opens below the armpit.
    arm = aside - width - chest.value("arm_gap") - 0.1 * y
    outline = np.maximum(ramp((width - aside) * 18), ramp(arm * 18))
    # Shoulders dip beside the neck and rise towards lifted arms.
    shoulders = y - chest.value("shoulder_y") + chest.value("shoulder_rise") * (aside - 0.45)
    outline = outline * np.maximum(ramp(shoulders * 7), ramp((0.3 - aside) * 8))
    return outline * (0.63 - chest.value("body_thinning") * np.minimum((aside / width) ** 2, 1.3))


def draw_air(chest: Chest) -> Field:
    """Air in the lungs, 0 to 1, where no heart, diaphragm or pneumonia takes its place."""
    depth = np.clip((chest.lateral - chest.aside) * 3.5, 0, 1)
    rounding: Field = np.sqrt(chest.below_apex)
    medial = chest.value("lung_top_width") - 0.6 * rounding
    return (
        (0.7 + 0.3 * (2 - depth) * depth)
        * ramp((chest.lateral - chest.aside) / chest.edge)
        * ramp((chest.aside - medial) / chest.edge)
        * np.minimum(chest.below_apex * 20, 1)
        * (1 - chest.below_diaphragm)
        * (1 - chest.middle)
        * (1 - chest.value("markings") * chest.grain)
    )


def draw_clearing(chest: Chest) -> Field:
    """The share of air, 0 to 1, that pneumonia leaves."""
    clear = 1 - chest.value("diffuse_opacity") * (1 + 0.5 * chest.mottle)
    ragged = 1 + 1.6 * chest.clouds + 0.9 * chest.mottle
    for index in range(chest.factors["opacity_x"].shape[1]):
        distance = ellipse(
            chest.x - chest.value("opacity_x", index),
            chest.y - chest.value("opacity_y", index),
            chest.value("opacity_width", index),
            chest.value("opacity_height", index),
        )
        opacity = ramp((ragged - distance) / chest.value("opacity_softness", index))
        clear *= 1 - chest.value("opacity_density", index) * opacity
    return clear


def draw_middle(chest: Chest) -> Field:
    """Heart, great vessels, spine and trachea."""
    x, y = chest.x - chest.value("turn"), chest.y
    heart = chest.middle * (chest.value("heart_density") * (0.7 + 0.4 * chest.bulge))
    knob = np.clip(2 - 2 * ellipse(x - 0.16, y + 0.24, 0.11, 0.13), 0, 1)
    vertebrae = ramp(wave(y * 6.5 + chest.value("rib_phase")) * 4 - 1.6)
    spine = ramp((0.1 - np.abs(x)) * 30) * (0.75 + 0.25 * vertebrae)
    off_centre: Field = np.abs(x + 0.5 * chest.value("turn"))
    trachea = ramp(1.4 - 28 * off_centre) * ramp((-0.24 - y) * 8)
    return (
        heart * (1 - 0.8 * chest.below_diaphragm)
        + chest.value("aortic_knob") * knob
        + chest.value("spine") * spine
        - chest.value("trachea") * trachea
    )


def draw_vessels(chest: Chest, air: Field) -> Field:
    """The hila, and vessels that fan out from them and thin out."""
    x, y = chest.aside - 0.17, chest.y + 0.02
    squared = x * x + y * y
    radius: Field = np.sqrt(squared)
    ray = wave(
        y / (np.maximum(x, 0) + 0.12) * 1.8
        + 0.37 * chest.left
        + (0.2 + 0.9 * radius) * chest.mottle
        + 0.9 * chest.clouds
    )
    vessels = ramp((ray - 0.6 - 0.35 * radius + 0.5 * chest.clouds) * 4)
    vessels = vessels * np.maximum(radius * (6 - 9 * radius), 0) * air
    hilum = np.maximum(1 - squared * 22, 0)
    return chest.value("hilum") * hilum + chest.value("vessels") * vessels


def draw_bones(chest: Chest) -> Field:
    """Ribs with the chest wall, clavicles and shoulder blades."""
    aside, y = chest.aside, chest.y
    spacing, drop = chest.value("rib_spacing"), chest.value("rib_drop")
    phase = chest.value("rib_phase") + chest.value("rib_offset") * chest.left
    bow = aside - 0.22
    level = wave((y - drop * bow * bow) / spacing + phase)
    posterior = ramp((level - 0.52) * 5) * (1.25 - 0.5 * level)
    level = wave((y + (0.25 + drop) * aside) / (1.25 * spacing) + 1.7 * phase)
    anterior = ramp((level - 0.5) * 3) * np.clip(2.2 * aside - 0.66, 0, 0.55)
    outside = aside - chest.lateral
    ribs = np.maximum(posterior, anterior) * ramp((0.06 - outside) * 25)
    ribs *= 1 - 0.65 * np.maximum(chest.below_diaphragm, chest.middle)
    wall = np.maximum(1 - np.abs(outside - 0.075) * 10, 0)
    cage = chest.value("rib_density") * ribs
    cage += chest.value("chest_wall") * wall * (0.7 + 0.5 * posterior)

    along = np.abs(chest.x - chest.value("turn")) - 0.08
    line = chest.value("clavicle_y") - chest.value("clavicle_rise") * along * (1.7 - 2.2 * along)
    clavicle = ramp((0.035 - np.abs(y - line)) / chest.edge)
    clavicle *= ramp(along * 15) * ramp((0.6 - along) * 10)
    blade = ramp(2 - 2 * ellipse(aside - 0.86, y + 0.42, 0.24, 0.36))
    return (
        cage * np.minimum(chest.below_apex * 8, 1)
        + chest.value("clavicle_density") * clavicle
        + chest.value("scapula") * blade
    )


def draw_abdomen(chest: Chest) -> Field:
    """Liver and stomach under the diaphragm, with gas, and the chin above."""
    bowel = np.maximum(chest.mottle, 0) * (0.4 + chest.left) * chest.value("bowel_gas")
    bubble = ellipse(chest.x - 0.45, chest.y - chest.value("diaphragm_y") - 0.24, 0.24, 0.15)
    gas = bowel + chest.value("stomach_gas") * ramp(1.3 - 1.3 * bubble)
    chin = ellipse(chest.x, chest.y - chest.value("chin_y"), 0.36, 0.27)
    return chest.below_diaphragm * (chest.value("abdomen") - gas) + 0.14 * ramp(1.7 - 1.7 * chin)


def draw_lead(chest: Chest) -> Field:
    """A monitor's lead that lies across the chest: a thin bright curve, as bright at any size."""
    width = max(0.014, 1.2 * chest.pixel)
    line = chest.y - chest.value("lead_y") - chest.value("lead_slope") * chest.x
    lead = np.maximum(1 - np.abs(line - 0.5 * chest.x * chest.x) / width, 0)
    return lead * (chest.value("lead_density") * (0.014 / width))


def _draw_chunk(factors: Factors, size: int, rows_per_pixel: int) -> Field:
    film_x, film_y = _positions(size)[None, :], _positions(size * rows_per_pixel)[:, None]
    chest = Chest(factors, film_x, film_y, 2 / size)
    air = draw_air(chest) * draw_clearing(chest)
    film = (
        draw_body(chest)
        - chest.value("lung_air") * air
        + draw_middle(chest)
        + draw_vessels(chest, air)
        + draw_bones(chest)
        + draw_abdomen(chest)
        + draw_lead(chest)
        + chest.value("cloudiness") * (chest.clouds + 0.6 * chest.mottle)
        + (chest.value("haze_x") * film_x + chest.value("haze_y") * film_y)
        + chest.value("grain") * chest.grain
    )
    if size > 64:
        film += chest.value("grain") * chest.texture(90)
    film = (film - 0.56) * chest.value("contrast") + (0.56 + chest.value("brightness"))
    return film + chest.value("curve") * film * (1 - film)


def _positions(count: int) -> Field:
    """Pixel centres from -1 to 1."""
    return ((np.arange(count) + 0.5) * (2 / count) - 1).astype(np.float32)


def ramp(distance: Field) -> Field:
    """A smooth step: 0 below -1, 1 above 1, one half at 0."""
    step = np.clip(distance * 0.5 + 0.5, 0, 1)
    return step * step * (3 - 2 * step)


def wave(phase: Field) -> Field:
    """A triangle wave of period 1: 0 at every integer, 1 halfway between."""
    return 1 - 2 * np.abs(phase - np.floor(phase) - 0.5)


def ellipse(x: Field, y: Field, width: Field | float, height: Field | float) -> Field:
    """Squared distance from the centre of an ellipse, 1 on its border."""
    return (x / width) ** 2 + (y / height) ** 2


def noise(seeds: NDArray[np.uint32], cells: int, rows: int, columns: int) -> Field:
    """Smooth noise (N, rows, columns) in -1..1 on a lattice of ``cells`` a side.

    The same seed and ``cells`` give the same field at any resolution and in any company.
    """
    knots = cells + 3
    index = np.arange(knots * knots, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(cells)
    bits = _scramble(seeds[:, None] ^ _scramble(index)[None])
    # -128..127 times weights of 8 bits, twice, is below 2**24: exact in float32 in any order.
    lattice = ((bits >> np.uint32(24)).astype(np.float32) - 128).reshape(-1, knots, knots)
    field = _spline_weights(cells, rows) @ (lattice @ _spline_weights(cells, columns).T)
    return field * np.float32(1 / (128 * 256 * 256))


def _scramble(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """An integer hash with good avalanche. Source: MurmurHash3's 32-bit finalizer."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


@cache
def _spline_weights(cells: int, resolution: int) -> Field:
    """Uniform cubic B-spline weights (resolution, cells + 3), in whole 256ths that sum to 256."""
    position = (np.arange(resolution) + 0.5) * cells / resolution
    cell = np.floor(position).astype(np.int64)
    part = position - cell
    spline = np.stack(
        [
            (1 - part) ** 3,
            3 * part**3 - 6 * part**2 + 4,
            -3 * part**3 + 3 * part**2 + 3 * part + 1,
            part**3,
        ]
    )
    whole = np.round(spline * (256 / 6))
    whole[1] += 256 - whole.sum(axis=0)
    weights = np.zeros((resolution, cells + 3), dtype=np.float32)
    for offset in range(4):
        weights[np.arange(resolution), cell + offset] = whole[offset]
    return weights
