"""Everything that is measured of one generator's images, beside the floors that it is read with."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lungan import registry
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.files import cache_folder, cached
from lungan.scores import catalogue, comparison, memorization, near_copies, texture
from lungan.scores.comparison import (
    FEWEST_SPLITS,
    Measured,
    Rows,
    bootstrap_floors,
    kernel_subset_size,
)
from lungan.scores.distances import Features
from lungan.scores.encoders import VERSION, Encoded, Encoder, encode_real, hash_of, key_of
from lungan.scores.memorization import distinct, share_near, too_few_for_limit, unseen

NOT_SHAPING = (
    "name",
    "encoders",
    "batch_size",
    "every_epochs",
    "inception_weights",
    "require_inception",
)
"""Keys of the config that change no number; encoders count by their weights instead."""

PAIRS = 16

SMALL_PART = 50
"""Images in a part of an Inception Score below which its limit is said."""

ALL_ALIKE = "all training images are the same image"

OnPairs = Callable[[str, NDArray[np.uint8], NDArray[np.uint8]], None]
"""Called with an encoder's name, the up to 16 generated images (P, C, H, W) uint8 that come closest
to a training image, closest first, and these training images."""

Closest = tuple[Features, Rows]
"""Each generated image's distance to its nearest training image, and which of the distinct ones
that is; both (N,)."""


@dataclass(frozen=True)
class RealSide:
    """The real images of one scoring.

    reference: what the GAN trained on; ``distinct`` indexes its distinct images. held_out: of the
    same classes in other splits, perhaps none; without copies of a reference image or of each
    other, which ``num_leaked`` counts, and without images of groups (patients) that the reference
    has, which ``num_related`` counts.
    """

    reference: ImageSet
    distinct: NDArray[np.int64]
    held_out: ImageSet
    num_leaked: int
    num_related: int


def choose_real(image_set: ImageSet, splits: Sequence[str], classes: Sequence[str]) -> RealSide:
    """The images of ``splits`` and ``classes`` (empty: all), and those held out from them.

    Raises: ConfigError for an unknown name, DataError where no reference image is left.
    """
    reference = image_set.select(splits, classes)
    is_reference = image_set.members(splits, classes)
    is_other = image_set.members([], classes) & ~image_set.members(splits, [])
    is_fresh = is_other & image_set.of_other_groups(is_reference)
    fresh = image_set.take(is_fresh)
    held_out = fresh.take(unseen(fresh.images, reference.images))
    return RealSide(
        reference=reference,
        distinct=distinct(reference.images),
        held_out=held_out,
        num_leaked=len(fresh) - len(held_out),
        num_related=int(is_other.sum() - is_fresh.sum()),
    )


def check_generated(generated: NDArray[np.uint8] | Tensor, reference: ImageSet) -> None:
    """Raises: DataError where images (N, C, H, W) are of other channels or size than the
    reference's."""
    real, made = tuple(reference.images.shape[1:]), tuple(generated.shape[1:])
    if real == made:
        return
    ways_out = ["--channels 1 makes both grey"] if real[0] != made[0] else []
    if real[1:] != made[1:]:
        ways_out.append(f"--size {max(16, min(*real[1:], *made[1:]))} resizes both")
    kinds = {1: "grey (1 channel)", 3: "in colour (3 channels)"}
    one, other = (
        f"{height}x{width} {kinds.get(channels, f'with {channels} channels')}"
        for channels, height, width in (real, made)
    )
    raise DataError(
        "generated and real images must have the same channels and size: real are "
        f"{one}, generated {other}; {', '.join(ways_out)}"
    )


def num_images_a_side(num_reference: int, config: ScoreConfig) -> int:
    """How many generated images to score: at most half of the reference images, so that the floor
    between two disjoint real sets has the same N.

    Raises: DataError where the reference has fewer than 4 images.
    """
    half = num_reference // 2
    if half < 2:
        raise DataError(
            f"scoring needs at least 4 real images, got {num_reference}: choose more splits or "
            "classes, or add images"
        )
    return min(config.num_images, half) if config.num_images else half


def scoring_id(
    config: ScoreConfig,
    weights_hashes: Mapping[str, str],
    reference_hash: str,
    num_images: int,
    epoch: int | None,
) -> str:
    """Hash (64 hex digits) of what shapes a result, given the generator.

    weights_hashes: by encoder name.
    """
    parts = [sorted(shaping(config).items()), sorted(weights_hashes.items()), reference_hash]
    return hash_of(*parts, num_images, epoch)


def shaping(config: ScoreConfig) -> dict[str, Any]:
    """The keys of the config that change a number, and their values."""
    values = dataclasses.asdict(config)
    keys = {key: value for key, value in values.items() if key not in NOT_SHAPING}
    if extra := keys.pop("extra"):
        used = registry.used_by(("score", name) for name in extra)
        keys["extra"] = {choice: plugin.sha256 for choice, plugin in used.items()}
    return keys


def score_images(
    generated: NDArray[np.uint8] | Tensor,
    image_set: ImageSet,
    *,
    splits: Sequence[str],
    classes: Sequence[str],
    config: ScoreConfig,
    encoders: Sequence[Encoder],
    reasons: Mapping[str, str] | None = None,
    epoch: int | None = None,
    on_pairs: OnPairs | None = None,
) -> dict[str, Any]:
    """Score ``generated`` (N, C, H, W) uint8 against the images that the GAN trained on.

    Images on a device go to the encoders from there; the host has a copy for all the rest.

    image_set: all splits and classes; ``splits`` and ``classes`` are those trained on, empty for
    all. Images of those classes in other splits are held out, for the memorization scores.
    reasons: encoders that cannot be had, and why; their scores are recorded as None.
    Both sides of every comparison and of every floor have the same number of images.

    Gives one entry of scores.json, all plain values.

    Raises: DataError where the two sides' images cannot be compared at all.
    """
    began = time.perf_counter()
    real = choose_real(image_set, splits, classes)
    reference, held_out = real.reference, real.held_out
    check_generated(generated, reference)
    num_images = min(num_images_a_side(len(reference), config), len(generated))
    if num_images < 2:
        raise DataError(
            f"scoring needs at least 2 generated images, got {len(generated)}: generate more"
        )
    rows = np.random.default_rng(config.seed).permutation(len(generated))[:num_images]
    pixels = generated[rows]
    made = pixels.cpu().numpy() if isinstance(pixels, Tensor) else pixels

    found = {encoder.name: _score_with(encoder, pixels, real, config) for encoder in encoders}
    if config.memorization:
        found[near_copies.NAME] = *_audit_pixels(made, real, config), near_copies.DESCRIPTION
    missing = dict(reasons or {})
    values: dict[str, float | None] = {f"{name}.inception_score": None for name in missing}
    for name, (measured, near, _) in found.items():
        if near is not None and on_pairs is not None:
            distance, index = near
            chosen = np.argsort(distance, kind="stable")[:PAIRS]
            on_pairs(name, made[chosen], reference.images[real.distinct[index[chosen]]])
        for key, value in measured.items():
            full_key = f"{name}.{key}"
            values[full_key] = None
            if isinstance(value, str):
                missing[full_key] = value
            elif not math.isfinite(value):
                missing[full_key] = "not a finite number"
            else:
                values[full_key] = float(value)

    shown = {name: described for name, (_, _, described) in found.items()}
    hashes = {name: one["weights_hash"] for name, one in shown.items()}
    # What tables and verdicts need where the plug-ins are not at hand.
    extra = {name: dataclasses.asdict(catalogue.describe(name)) for name in config.extra}
    return {
        "scoring_id": scoring_id(config, hashes, reference.content_hash, num_images, epoch),
        "version": VERSION,
        "epoch": epoch,
        "config": dataclasses.asdict(config),
        "num_images": num_images,
        "reference": {
            "splits": list(splits) or list(image_set.split_names),
            "classes": list(classes) or list(image_set.class_names),
            "num_images": len(reference),
            "content_hash": reference.content_hash,
        },
        "held_out": {
            "splits": [image_set.split_names[number] for number in np.unique(held_out.splits)],
            "num_images": len(held_out),
        },
        "encoders": shown,
        "values": values,
        "reasons": missing,
        "notes": describe(made, real, config, num_images, encoders),
        "seconds": time.perf_counter() - began,
    } | ({"extra": extra} if extra else {})


def _score_with(
    encoder: Encoder, pixels: NDArray[np.uint8] | Tensor, real: RealSide, config: ScoreConfig
) -> tuple[Measured, Closest | None, dict[str, Any]]:
    """Scores and floors in one encoder's features, and what scores.json keeps of the encoder."""
    reference = encode_real(real.reference, encoder, config.batch_size)
    made = encoder.encode(pixels, config.batch_size)
    groups, num_images = real.reference.groups, len(pixels)
    rows = comparison.reference_rows(len(real.reference), num_images, config, groups)
    half = Encoded(reference.features[rows], reference.logits[rows])
    measured = comparison.compare(half, made, config)
    # Neither shapes a floor: N stands beside it, and memorization has none.
    left_out = ("num_images", "memorization")
    parts = sorted((key, one) for key, one in shaping(config).items() if key not in left_out)
    names = None if groups is None else groups.tolist()
    key = hash_of("floors", key_of(real.reference, encoder), num_images, parts, names)
    measured |= cached(
        cache_folder() / "floors" / f"{key}.json",
        lambda path: cast(Measured, json.loads(path.read_text(encoding="utf-8"))),
        lambda: comparison.floors(reference, num_images, config, groups),
        lambda file, found: file.write(json.dumps(found).encode()),
    )
    near = None
    if config.memorization:
        audited, near = _audit_features(encoder, reference, made, real, config)
        measured |= audited
    keys = ("weights_hash", "feature_dim", "num_classes")
    shown = {key: getattr(encoder, key) for key in keys} | {"notes": list(encoder.notes)}
    if encoder.name == "spectrum":  # a figure shows them
        shown["spectra"] = texture.spectra(reference.features, made.features)
    return measured, near, shown


def _audit_features(
    encoder: Encoder, reference: Encoded, made: Encoded, real: RealSide, config: ScoreConfig
) -> tuple[Measured, Closest | None]:
    """The memorization scores in the encoder's features, and their floors."""
    if len(real.distinct) < 2:
        return dict.fromkeys([*memorization.RELATIVE, "authenticity"], ALL_ALIKE), None
    held_out, unseen = real.held_out, made.features[:0]
    if len(held_out):
        unseen = encode_real(held_out, encoder, config.batch_size).features
    sets = reference.features[real.distinct], [made.features, unseen]
    num_cells = memorization.suggested_cells(len(held_out))
    near, held_out_near = memorization.nearness(*sets, num_cells, config.seed)
    found = memorization.compare_nearness(near, held_out_near, config, held_out.groups)
    return found, (near.distance, near.index)


def _audit_pixels(
    generated: NDArray[np.uint8], real: RealSide, config: ScoreConfig
) -> tuple[Measured, Closest | None]:
    """The share of near copies and its floor, from pixels alone."""
    key, held_out = near_copies.KEY, real.held_out
    reason = ALL_ALIKE if len(real.distinct) < 2 else too_few_for_limit(len(held_out))
    if reason:
        return {key: reason}, None
    audit = near_copies.PixelAudit(real.reference.images[real.distinct])
    near = audit.nearest(generated)
    unseen, _ = audit.nearest(held_out.images)
    floors = bootstrap_floors(
        lambda one, two, _: {key: share_near(unseen[one], unseen[two])},
        *(len(held_out), len(generated), config, held_out.groups),
    )
    return {key: share_near(near[0], unseen)} | floors, near


def describe(
    generated: NDArray[np.uint8],
    real: RealSide,
    config: ScoreConfig,
    num_images: int,
    encoders: Sequence[Encoder],
) -> list[str]:
    """What a reader of the scores should know of the images and their number, a line each, in the
    words of notes.txt.j2."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("lungan.scores")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True)
    names = real.reference.class_names
    notes = environment.get_template("notes.txt.j2").render(
        config=config,
        num_images=num_images,
        real=real,
        encoders=encoders,
        classes=[" ".join(names[label].split()) for label in np.unique(real.reference.labels)],
        num_distinct=len(distinct(generated)),
        is_constant=(generated == generated[:, :, :1, :1]).all(),
        subset=kernel_subset_size(num_images, config),
        small_part=SMALL_PART,
        fewest_splits=FEWEST_SPLITS,
    )
    return notes.splitlines()
