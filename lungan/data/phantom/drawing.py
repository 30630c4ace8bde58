"""From factors to radiographs: what each structure of the chest adds to the film, added up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lungan.data.phantom.factors import NUM_OPACITIES, Factors, over_pixels
from lungan.data.phantom.shapes import Field, ellipse, noise, ramp, wave

DRAWING_VERSION = 1
"""Raised whenever the same config would give other pixels: part of the cache key."""

PIXELS_PER_CHUNK = 2**15
"""Keeps a chunk's fields in the processor's cache; never changes an image."""


@dataclass(frozen=True)
class Chest:
    """A chunk of patients: pixel positions in the patient's frame, and what several structures
    share.

    x, y: (N, rows, columns), see FACTORS.
    pixel: the coarser of the two distances between pixels on the film.
    """

    factors: Factors
    x: Field
    y: Field
    pixel: float

    def value(self, name: str, index: int | None = None) -> Field:
        """A factor as (N, 1, 1), to be broadcast over the pixels."""
        return over_pixels(self.factors, name, index)

    def texture(self, cells: int) -> Field:
        return noise(self.factors["texture_seed"], cells, *self.x.shape[1:])

    @cached_property
    def aside(self) -> Field:
        """Distance from the midline."""
        return np.abs(self.x)

    @cached_property
    def left(self) -> Field:
        """1 on the patient's left, 0 on the right, blended over the spine."""
        return ramp(self.x * 5)

    @cached_property
    def edge(self) -> Field:
        """Half width of a border: blurred by breathing, and never finer than the pixels."""
        return np.maximum(self.value("sharpness"), 1.2 * self.pixel)

    @cached_property
    def clouds(self) -> Field:
        return self.texture(5)

    @cached_property
    def mottle(self) -> Field:
        return self.texture(14)

    @cached_property
    def grain(self) -> Field:
        return self.texture(28)

    @cached_property
    def below_apex(self) -> Field:
        """0 at the top of the lungs, 1 at the diaphragm and below."""
        top = self.value("lung_top")
        height = self.value("diaphragm_y") - top
        return np.clip((self.y - top) / height, 0, 1)

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
        dome = self.aside - 0.36
        dome *= np.where(dome > 0, 2.3, 1.3).astype(np.float32)
        dome *= dome
        border = self.value("diaphragm_y") + self.value("diaphragm_lift") * self.left
        border = border + self.value("diaphragm_dome") * (dome - 0.35)
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
        border = (right + (left - right) * self.left) * self.bulge
        border += self.value("mediastinum_width")
        sail = self.y + 0.4
        border -= 0.15 * np.maximum(self.y - 0.3, 0)
        border += self.value("thymus") * np.maximum(1 - 11 * sail * sail, 0)
        border -= np.abs(self.x - self.value("turn"))
        return ramp(border / (1.4 * self.edge))


def draw_body(chest: Chest) -> Field:
    """Soft tissue: trunk, neck, shoulders and arms, thinner towards the skin."""
    aside, y = chest.aside, chest.y
    width = chest.value("body_width") - 0.06 * y
    outline = ramp((width - aside) * 18)
    # The arm hangs from the shoulder; a gap of air opens below the armpit.
    arm = aside - width - chest.value("arm_gap") - 0.1 * y
    np.maximum(outline, ramp(arm * 18), out=outline)
    # Shoulders dip beside the neck and rise towards lifted arms.
    shoulders = y - chest.value("shoulder_y") + chest.value("shoulder_rise") * (aside - 0.45)
    outline *= np.maximum(ramp(shoulders * 7), ramp((0.3 - aside) * 8))
    thickness = aside / width
    thickness *= thickness
    np.minimum(thickness, 1.3, out=thickness)
    thickness *= -chest.value("body_thinning")
    thickness += 0.63
    outline *= thickness
    return outline


def draw_air(chest: Chest) -> Field:
    """Air in the lungs, 0 to 1, where no heart, diaphragm or pneumonia takes its place."""
    air = (chest.lateral - chest.aside) * 3.5
    np.clip(air, 0, 1, out=air)
    air *= 0.3 * (2 - air)
    air += 0.7
    air *= ramp((chest.lateral - chest.aside) / chest.edge)
    rounding: Field = np.sqrt(chest.below_apex)
    medial = chest.value("lung_top_width") - 0.6 * rounding
    air *= ramp((chest.aside - medial) / chest.edge)
    air *= np.minimum(chest.below_apex * 20, 1)
    air *= 1 - chest.below_diaphragm
    air *= 1 - chest.middle
    air *= 1 - chest.value("markings") * chest.grain
    return air


def draw_clearing(chest: Chest) -> Field:
    """The share of air, 0 to 1, that pneumonia leaves."""
    clear = 1 - chest.value("diffuse_opacity") * (1 + 0.5 * chest.mottle)
    ragged = 1 + 1.6 * chest.clouds + 0.9 * chest.mottle
    for index in range(NUM_OPACITIES):
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
    film = chest.middle * (chest.value("heart_density") * (0.7 + 0.4 * chest.bulge))
    film *= 1 - 0.8 * chest.below_diaphragm
    knob = ellipse(x - 0.16, y + 0.24, 0.11, 0.13)
    film += chest.value("aortic_knob") * np.clip(2 - 2 * knob, 0, 1)
    spine = ramp((0.1 - np.abs(x)) * 30)
    vertebrae = wave(y * 6.5 + chest.value("rib_phase"))
    spine *= 0.75 + 0.25 * ramp(vertebrae * 4 - 1.6)
    film += chest.value("spine") * spine
    off_centre: Field = np.abs(x + 0.5 * chest.value("turn"))
    trachea = ramp(1.4 - 28 * off_centre)
    trachea *= ramp((-0.24 - y) * 8)
    film -= chest.value("trachea") * trachea
    return film


def draw_vessels(chest: Chest, air: Field) -> Field:
    """The hila, and vessels that fan out from them and thin out."""
    x, y = chest.aside - 0.17, chest.y + 0.02
    squared = x * x + y * y
    film: Field = chest.value("hilum") * np.maximum(1 - squared * 22, 0)
    radius: Field = np.sqrt(squared)
    ray = y / (np.maximum(x, 0) + 0.12)
    ray = wave(
        ray * 1.8 + 0.37 * chest.left + (0.2 + 0.9 * radius) * chest.mottle + 0.9 * chest.clouds
    )
    ray = ramp((ray - 0.6 - 0.35 * radius + 0.5 * chest.clouds) * 4)
    ray *= np.maximum(radius * (6 - 9 * radius), 0)
    ray *= air
    film += chest.value("vessels") * ray
    return film


def draw_bones(chest: Chest) -> Field:
    """Ribs with the chest wall, clavicles and shoulder blades."""
    aside, y = chest.aside, chest.y
    spacing, drop = chest.value("rib_spacing"), chest.value("rib_drop")
    phase = chest.value("rib_phase") + chest.value("rib_offset") * chest.left
    bow = aside - 0.22
    level = wave((y - drop * bow * bow) / spacing + phase)
    posterior = ramp((level - 0.52) * 5)
    posterior *= 1.25 - 0.5 * level
    level = wave((y + (0.25 + drop) * aside) / (1.25 * spacing) + 1.7 * phase)
    anterior = ramp((level - 0.5) * 3)
    anterior *= np.clip(2.2 * aside - 0.66, 0, 0.55)
    in_cage = np.minimum(chest.below_apex * 8, 1)
    outside = aside - chest.lateral
    ribs = np.maximum(posterior, anterior)
    ribs *= ramp((0.06 - outside) * 25)
    ribs *= 1 - 0.65 * np.maximum(chest.below_diaphragm, chest.middle)
    wall = np.maximum(1 - np.abs(outside - 0.075) * 10, 0)
    film = chest.value("rib_density") * ribs
    film += chest.value("chest_wall") * wall * (0.7 + 0.5 * posterior)
    film *= in_cage

    along = np.abs(chest.x - chest.value("turn")) - 0.08
    line = chest.value("clavicle_y") - chest.value("clavicle_rise") * along * (1.7 - 2.2 * along)
    clavicle = ramp((0.035 - np.abs(y - line)) / chest.edge)
    clavicle *= ramp(along * 15) * ramp((0.6 - along) * 10)
    film += chest.value("clavicle_density") * clavicle
    blade = ellipse(aside - 0.86, y + 0.42, 0.24, 0.36)
    film += chest.value("scapula") * ramp(2 - 2 * blade)
    return film


def draw_abdomen(chest: Chest) -> Field:
    """Liver and stomach under the diaphragm, with gas, and the chin above."""
    gas = np.maximum(chest.mottle, 0) * (0.4 + chest.left) * chest.value("bowel_gas")
    bubble = ellipse(chest.x - 0.45, chest.y - chest.value("diaphragm_y") - 0.24, 0.24, 0.15)
    gas += chest.value("stomach_gas") * ramp(1.3 - 1.3 * bubble)
    film: Field = chest.below_diaphragm * (chest.value("abdomen") - gas)
    chin = ellipse(chest.x, chest.y - chest.value("chin_y"), 0.36, 0.27)
    film += 0.14 * ramp(1.7 - 1.7 * chin)
    return film


def draw_lead(chest: Chest) -> Field:
    """A monitor's lead that lies across the chest: a thin bright curve, as bright at any size."""
    width = max(0.014, 1.2 * chest.pixel)
    line = chest.y - chest.value("lead_y") - chest.value("lead_slope") * chest.x
    line -= 0.5 * chest.x * chest.x
    lead = np.maximum(1 - np.abs(line) / width, 0)
    lead *= chest.value("lead_density") * (0.014 / width)
    return lead


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
    film = draw_body(chest)
    air = draw_air(chest)
    air *= draw_clearing(chest)
    film -= chest.value("lung_air") * air
    film += draw_middle(chest)
    film += draw_vessels(chest, air)
    film += draw_bones(chest)
    film += draw_abdomen(chest)
    film += draw_lead(chest)

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


def _place(factors: Factors, film_x: Field, film_y: Field, pixel: float) -> Chest:
    """Shift, turn, scale and bend the film's pixels into the patient's frame."""
    x = film_x - over_pixels(factors, "shift_x")
    y = film_y - over_pixels(factors, "shift_y")
    tilt = over_pixels(factors, "tilt")
    along = 1 / (over_pixels(factors, "scale") * np.sqrt(1 + tilt * tilt))
    across = along / over_pixels(factors, "aspect")
    patient_x = x * across + y * (tilt * across)
    patient_y = y * along - x * (tilt * along)
    patient_x += over_pixels(factors, "scoliosis") * (patient_y * patient_y - 0.4)
    return Chest(factors, patient_x, patient_y, pixel)
