"""Everything that is measured of one generator's images, beside the floors that it is read with."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.scores import comparison, real_features
from lungan.scores.comparison import Measures
from lungan.scores.encoding import Encoded, Encoder
from lungan.scores.frechet import is_rank_deficient
from lungan.scores.memorization import nearness, suggested_cells
from lungan.scores.pairs import closest_pairs
from lungan.scores.sides import RealSide, check_generated, choose_real, describe

NOT_SHAPING = (
    "name",
    "encoders",
    "batch_size",
    "every_epochs",
    "inception_weights",
    "require_inception",
)
"""Keys of the config that change no number; encoders count by their weights instead."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

OnPairs = Callable[[str, NDArray[np.uint8]], None]
"""Called with an encoder's name and a picture (H, W, C) uint8 of the closest pairs."""


def num_images_a_side(num_reference: int, config: ScoreConfig) -> int:
    """How many generated images to score: at most half of the reference images, so that the floor
    between two disjoint real sets has the same N.

    Raises: DataError where the reference has fewer than 4 images.
    """
    half = num_reference // 2
    if half < 2:
        raise DataError(f"scoring needs at least 4 real images, got {num_reference}")
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
    return real_features.hash_of([*parts, num_images, epoch])


def shaping(config: ScoreConfig) -> dict[str, Any]:
    """The keys of the config that change a number, and their values."""
    return {
        key: value for key, value in dataclasses.asdict(config).items() if key not in NOT_SHAPING
    }


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
    progress: Progress | None = None,
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
    check_generated(generated, real.reference)
    num_images = min(num_images_a_side(len(real.reference), config), len(generated))
    if num_images < 2:
        raise DataError(f"scoring needs at least 2 generated images, got {len(generated)}")
    rows = np.random.default_rng(config.seed).permutation(len(generated))[:num_images]
    pixels = generated[rows]
    generated = pixels.cpu().numpy() if isinstance(pixels, Tensor) else pixels

    values: dict[str, float | None] = {}
    why = dict(reasons or {})
    values.update({f"{name}.inception_score": None for name in why})
    notes = describe(generated, real, config, num_images)
    for encoder in encoders:
        if is_rank_deficient(num_images, encoder.feature_dim):
            notes.append(
                f"{encoder.name}: N = {num_images} is at most the feature dimension "
                f"{encoder.feature_dim}, so covariances lack full rank and frechet_distance lies "
                "far above its limit; read it beside its floor, or read kernel_distance"
            )
        measures = _score_with(encoder, pixels, generated, real, config, progress, on_pairs)
        values.update({f"{encoder.name}.{key}": one for key, one in measures.values.items()})
        why.update({f"{encoder.name}.{key}": one for key, one in measures.reasons.items()})
    for key, value in values.items():
        if value is not None and not math.isfinite(value):
            values[key], why[key] = None, "not a finite number"

    reference = real.reference
    hashes = {encoder.name: encoder.weights_hash for encoder in encoders}
    return {
        "scoring_id": scoring_id(config, hashes, reference.content_hash, num_images, epoch),
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
            "splits": list(real.held_out_splits),
            "num_images": len(real.held_out) if real.held_out else 0,
        },
        "encoders": {
            encoder.name: {
                "weights_hash": encoder.weights_hash,
                "feature_dim": encoder.feature_dim,
                "num_classes": encoder.num_classes,
                "notes": list(encoder.notes),
            }
            for encoder in encoders
        },
        "values": values,
        "reasons": why,
        "notes": notes,
        "seconds": time.perf_counter() - began,
    }


def _score_with(
    encoder: Encoder,
    pixels: NDArray[np.uint8] | Tensor,
    generated: NDArray[np.uint8],
    real: RealSide,
    config: ScoreConfig,
    progress: Progress | None,
    on_pairs: OnPairs | None,
) -> Measures:
    reference = real_features.encode_real(
        real.reference,
        encoder,
        config.batch_size,
        _counter(progress, f"{encoder.name}: real images", len(real.reference)),
    )
    made = encoder.encode(
        pixels,
        config.batch_size,
        _counter(progress, f"{encoder.name}: generated images", len(generated)),
    )
    # Comparison and floors count as one step each.
    count = _counter(progress, f"{encoder.name}: scores", 1 + config.floor_splits)
    first, _ = comparison.halves(len(real.reference), len(generated), config)[0]
    measures = comparison.classify(made, config)
    _merge(measures, comparison.compare(comparison.take(reference, first), made, config))
    if count is not None:
        count(1)
    _merge(measures, _floors(encoder, reference, real.reference, len(generated), config, count))
    if config.memorization:
        _merge(measures, _memorization(encoder, reference, made, generated, real, config, on_pairs))
    return measures


def _floors(
    encoder: Encoder,
    encoded: Encoded,
    reference: ImageSet,
    num_images: int,
    config: ScoreConfig,
    count: Callable[[int], None] | None,
) -> Measures:
    def step() -> None:
        if count is not None:
            count(1)

    # Neither shapes a floor: N stands beside it, and memorization has none.
    parts = {
        key: value
        for key, value in shaping(config).items()
        if key not in ("num_images", "memorization")
    }
    key = real_features.hash_of(
        [real_features.features_key(reference, encoder), num_images, sorted(parts.items())]
    )
    found = real_features.computed_once(
        key,
        lambda: dataclasses.asdict(comparison.compare_halves(encoded, num_images, config, step)),
    )
    return Measures(found["values"], found["reasons"])


def _memorization(
    encoder: Encoder,
    reference: Encoded,
    made: Encoded,
    generated: NDArray[np.uint8],
    real: RealSide,
    config: ScoreConfig,
    on_pairs: OnPairs | None,
) -> Measures:
    measures = Measures()
    if len(real.distinct) < 2:
        keys = [*comparison.RELATIVE, "authenticity"]
        measures.leave_out(keys, "all training images are the same image")
        return measures
    sets = [made.features]
    if real.held_out is not None:
        sets.append(real_features.encode_real(real.held_out, encoder, config.batch_size).features)
    num_held_out = 0 if real.held_out is None else len(real.held_out)
    near = nearness(
        reference.features[real.distinct], sets, suggested_cells(num_held_out), config.seed
    )
    if on_pairs is not None:
        training = real.reference.images[real.distinct]
        on_pairs(encoder.name, closest_pairs(generated, training, near[0]))
    return comparison.compare_nearness(near[0], near[1] if len(near) > 1 else None, config)


def _merge(into: Measures, more: Measures) -> None:
    into.values.update(more.values)
    into.reasons.update(more.reasons)


def _counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count
