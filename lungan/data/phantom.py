"""data=phantom: procedural chest radiographs, so that everything runs with no download."""

from __future__ import annotations

import hashlib
import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungan import memory
from lungan.config.data import PhantomConfig
from lungan.data.cache import Arrays, load_or_make
from lungan.data.images import SPLITS, ImageSet
from lungan.data.phantom_drawing import DRAWING_VERSION, Factors, draw_images

log = logging.getLogger(__name__)

NORMAL, PNEUMONIA = 0, 1
CLASS_NAMES = ("normal", "pneumonia")

NUM_OPACITIES = 3
"""Focal opacities an image has at most; one of density 0 is absent."""


class Factor(NamedTuple):
    """How one factor is distributed: normal around ``mean``, clipped to ``low`` and ``high``.

    infant: correlation with a latent "smallness of the child", which is no factor of its own.
    sick_shift: added to the mean for pneumonia; those films are taken of sicker, smaller children,
        lying down, breathing in less far.
    sick_spread: factor on the spread for pneumonia.
    """

    name: str
    mean: float
    spread: float
    low: float
    high: float
    infant: float = 0.0
    sick_shift: float = 0.0
    sick_spread: float = 1.0


# Lengths are in half image widths before `scale`, in the patient's frame: x from the midline to
# the right of the film, which is the patient's left; y down from the middle of the chest.
# Brightness is in units of the full grey range.
FACTORS = (
    # How the child lies on the film.
    Factor("shift_x", 0.02, 0.05, -0.3, 0.3, 0.0, 0.01, 2.1),
    Factor("shift_y", 0.0, 0.06, -0.3, 0.3, 0.2, 0.02, 1.8),
    Factor("scale", 1.0, 0.055, 0.75, 1.45, 0.2, 0.07, 1.9),
    Factor("aspect", 1.0, 0.05, 0.8, 1.3, 0.5, 0.05, 1.3),
    Factor("tilt", 0.0, 0.03, -0.3, 0.3, 0.0, 0.0, 2.4),
    Factor("turn", 0.0, 0.03, -0.22, 0.22, 0.0, 0.0, 2.2),
    Factor("scoliosis", 0.0, 0.03, -0.2, 0.2, 0.0, 0.0, 2.0),
    # The outline of the body.
    Factor("body_width", 1.02, 0.09, 0.86, 1.35, 0.2, 0.06, 1.3),
    Factor("shoulder_y", -1.04, 0.1, -1.4, -0.75, -0.2, -0.02, 1.0),
    Factor("shoulder_rise", 0.35, 0.45, -0.5, 1.4, 0.4, 0.2, 1.0),
    Factor("arm_gap", 0.0, 0.14, -0.3, 0.4, 0.0, -0.05, 1.0),
    Factor("body_thinning", 0.25, 0.08, 0.05, 0.45, 0.0, -0.03, 1.2),
    Factor("chin_y", -1.2, 0.13, -1.6, -0.85, 0.5, -0.02, 1.1),
    # The lungs, right and left.
    Factor("lung_top", -0.7, 0.05, -0.9, -0.45, 0.2, 0.02, 1.4),
    Factor("lung_width", 0.83, 0.03, 0.65, 0.95, 0.0, -0.01, 1.4),
    Factor("lung_top_width", 0.37, 0.03, 0.25, 0.5, 0.0, 0.0, 1.2),
    Factor("lung_roundness", 0.85, 0.12, 0.3, 1.1, 0.4, 0.0, 1.2),
    Factor("lung_asymmetry", 0.0, 0.02, -0.12, 0.12, 0.0, 0.0, 2.0),
    Factor("lung_air", 0.3, 0.04, 0.15, 0.45, -0.3, -0.03, 1.3),
    Factor("diaphragm_y", 0.49, 0.055, 0.2, 0.75, -0.3, -0.03, 1.9),
    Factor("diaphragm_lift", 0.05, 0.03, -0.06, 0.16, 0.0, 0.0, 1.4),
    Factor("diaphragm_dome", 0.14, 0.04, 0.02, 0.28, 0.2, 0.0, 1.2),
    Factor("sharpness", 0.03, 0.008, 0.015, 0.07, 0.0, 0.012, 1.6),
    # The middle.
    Factor("heart_size", 1.0, 0.11, 0.65, 1.5, 0.4, 0.1, 1.15),
    Factor("heart_shift", 0.0, 0.03, -0.1, 0.1, 0.0, 0.0, 1.5),
    Factor("heart_y", 0.0, 0.05, -0.15, 0.15, 0.0, -0.03, 1.3),
    Factor("heart_density", 0.1, 0.02, 0.03, 0.18, 0.0, 0.0, 1.0),
    Factor("mediastinum_width", 0.17, 0.02, 0.1, 0.28, 0.4, 0.015, 1.4),
    Factor("thymus", 0.03, 0.035, 0.0, 0.16, 0.6, 0.01, 1.3),
    Factor("aortic_knob", 0.03, 0.02, 0.0, 0.1, -0.5, -0.01, 1.0),
    Factor("trachea", 0.06, 0.025, 0.0, 0.14, -0.2, -0.01, 1.0),
    Factor("spine", 0.05, 0.02, 0.0, 0.12, -0.2, -0.01, 1.1),
    Factor("hilum", 0.06, 0.02, 0.0, 0.14, 0.0, 0.02, 1.2),
    Factor("vessels", 0.085, 0.03, 0.0, 0.18, 0.0, 0.01, 1.2),
    Factor("markings", 0.35, 0.1, 0.0, 0.9, 0.0, 0.1, 1.2),
    # Bones, and what lies under the diaphragm.
    Factor("rib_spacing", 0.155, 0.012, 0.115, 0.2, -0.3, 0.0, 1.2),
    Factor("rib_drop", 0.42, 0.13, 0.05, 0.85, -0.6, -0.03, 1.2),
    Factor("rib_phase", 0.0, 0.5, -1.5, 1.5),
    Factor("rib_offset", 0.0, 0.12, -0.5, 0.5, 0.0, 0.0, 1.5),
    Factor("rib_density", 0.1, 0.028, 0.02, 0.2, -0.1, -0.01, 1.3),
    Factor("chest_wall", 0.1, 0.03, 0.0, 0.18, 0.0, -0.03, 1.2),
    Factor("clavicle_y", -0.6, 0.05, -0.85, -0.4, 0.1, -0.01, 1.4),
    Factor("clavicle_rise", 0.3, 0.1, 0.0, 0.6, -0.2, 0.0, 1.2),
    Factor("clavicle_density", 0.09, 0.03, 0.01, 0.17, 0.0, -0.03, 1.0),
    Factor("scapula", 0.05, 0.03, 0.0, 0.14, 0.0, -0.01, 1.0),
    Factor("stomach_gas", -0.05, 0.1, 0.0, 0.22, 0.2, 0.0, 1.1),
    Factor("bowel_gas", 0.03, 0.05, 0.0, 0.18, 0.3, 0.0, 1.2),
    Factor("abdomen", 0.16, 0.03, 0.05, 0.27, 0.0, -0.03, 1.3),
    # The film.
    Factor("brightness", -0.02, 0.038, -0.25, 0.25, 0.0, -0.01, 1.9),
    Factor("contrast", 0.98, 0.115, 0.5, 1.5, -0.2, -0.03, 1.5),
    Factor("curve", 0.0, 0.12, -0.4, 0.4),
    Factor("haze_x", 0.0, 0.02, -0.12, 0.12, 0.0, 0.0, 1.8),
    Factor("haze_y", 0.0, 0.025, -0.12, 0.12, 0.0, 0.0, 1.6),
    Factor("cloudiness", 0.035, 0.012, 0.0, 0.09, 0.0, 0.012, 1.2),
    Factor("grain", 0.018, 0.008, 0.0, 0.05, 0.1, 0.0, 1.2),
    Factor("lead_density", -0.25, 0.25, 0.0, 0.4, 0.2, 0.1, 1.0),
    Factor("lead_y", 0.1, 0.4, -1.0, 1.0),
    Factor("lead_slope", 0.0, 0.5, -1.5, 1.5),
)

FACTOR_DTYPE = np.dtype(
    [("label", np.int64), ("texture_seed", np.uint32)]
    + [(factor.name, np.float32) for factor in FACTORS]
    + [("diffuse_opacity", np.float32)]
    + [
        (f"opacity_{name}", np.float32, (NUM_OPACITIES,))
        for name in ("x", "y", "width", "height", "density", "softness")
    ]
)
"""Besides FACTORS: the class, the seed of the texture, and what makes a pneumonia: an even
``diffuse_opacity`` and focal ones, each a place (x, y), an extent (width, height: half axes), a
density from 0 (absent) to 1 (no air left) and the softness of its border."""

_REAL = ((4708, 3494), (524, 389), (624, 390))
"""PneumoniaMNIST's images and, of these, pneumonias in train, val and test: the phantom keeps their
shares."""


def load_phantom(config: PhantomConfig, *, progress: bool = True) -> ImageSet:  # noqa: ARG001
    """All splits and classes of the phantom, drawn once and then read from the cache.

    Raises: ConfigError for more images than there is memory for.
    """
    memory.check(
        (config.num_images + config.num_test) * (config.size**2 + FACTOR_DTYPE.itemsize),
        f"data.num_images={config.num_images} and data.num_test={config.num_test} at "
        f"data.size={config.size}",
        "choose fewer or smaller images",
    )

    def draw() -> Arrays:
        factors, splits = phantom_factors(config)
        log.info("drawing %d phantom radiographs at %d pixels, once", len(factors), config.size)
        images = draw_images(factors, config.size)
        return {"images": images, "labels": factors["label"].copy(), "splits": splits}

    # Not the whole config: which classes a run picks changes no image.
    content = (DRAWING_VERSION, config.size, config.num_images, config.num_test, config.seed)
    key = f"phantom-{config.size}-{hashlib.sha256(repr(content).encode()).hexdigest()[:32]}"
    arrays = load_or_make(key, {"images", "labels", "splits"}, draw)
    return ImageSet(
        images=arrays["images"],
        labels=arrays["labels"],
        splits=arrays["splits"],
        class_names=CLASS_NAMES,
        split_names=SPLITS,
        source="lungan's phantom: drawn, of no patient",
    )


def phantom_factors(config: PhantomConfig) -> tuple[Factors, NDArray[np.int64]]:
    """The known factors (N,) and the splits (N,) of the images that ``load_phantom`` gives.

    ``config.size`` changes neither: a seed gives the same children at any size.
    """
    (real_train, _), (real_val, _), _ = _REAL
    num_train = round(config.num_images * real_train / (real_train + real_val))
    counts = (num_train, config.num_images - num_train, config.num_test)
    rng = np.random.default_rng(config.seed)
    labels = [
        rng.permutation((np.arange(count) < round(count * (sick / real))).astype(np.int64))
        for count, (real, sick) in zip(counts, _REAL, strict=True)
    ]
    splits = np.repeat(np.arange(len(SPLITS), dtype=np.int64), counts)
    return draw_factors(rng, np.concatenate(labels)), splits


def draw_factors(rng: np.random.Generator, labels: NDArray[np.int64]) -> Factors:
    """One record of factors for each label (0 normal, 1 pneumonia)."""
    num_images = len(labels)
    factors = np.zeros(num_images, dtype=FACTOR_DTYPE)
    sick = labels == PNEUMONIA
    factors["label"] = labels
    factors["texture_seed"] = rng.integers(2**32, size=num_images, dtype=np.uint32)
    infancy = rng.standard_normal(num_images)
    for factor in FACTORS:
        own = rng.standard_normal(num_images) * np.sqrt(1 - factor.infant**2)
        spread = factor.spread * np.where(sick, factor.sick_spread, 1.0)
        value = factor.mean + factor.sick_shift * sick + spread * (own + factor.infant * infancy)
        factors[factor.name] = np.clip(value, factor.low, factor.high)
    _draw_opacities(rng, factors)
    return factors


def _draw_opacities(rng: np.random.Generator, factors: Factors) -> None:
    """One severity an image sets all densities; a mild case is hard to tell from a normal film."""
    num_images = len(factors)
    sick = factors["label"] == PNEUMONIA
    severity = rng.uniform(0.0, 1.0, num_images)
    diffuse_share = rng.uniform(0.0, 1.0, num_images)
    factors["diffuse_opacity"] = sick * 0.7 * severity * diffuse_share

    shape = (num_images, NUM_OPACITIES)
    # Right lung (left of the film) and lower zones are met more often.
    side = np.where(rng.uniform(size=shape) < 0.58, -1.0, 1.0)
    factors["opacity_x"] = side * rng.uniform(0.12, 0.68, shape)
    factors["opacity_y"] = rng.triangular(-0.55, 0.25, 0.45, shape)
    extent = rng.uniform(0.14, 0.6, shape)
    factors["opacity_width"] = extent * rng.uniform(0.7, 1.2, shape)
    factors["opacity_height"] = extent * rng.uniform(0.6, 1.3, shape)
    factors["opacity_softness"] = rng.uniform(0.5, 1.4, shape)
    present = np.arange(NUM_OPACITIES) < rng.integers(1, NUM_OPACITIES + 1, (num_images, 1))
    density = rng.uniform(0.35, 1.0, shape) * (0.35 + 0.65 * severity[:, None])
    factors["opacity_density"] = (sick[:, None] & present) * density
