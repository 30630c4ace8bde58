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
from tqdm import tqdm

from lungan import registry
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.scores import comparison, feature_cache, floors, near_copies
from lungan.scores.comparison import Measures
from lungan.scores.encoders import Encoded, Encoder
from lungan.scores.frechet import is_rank_deficient
from lungan.scores.memorization import closest_pairs, nearness, suggested_cells
from lungan.scores.real_images import RealSide, check_generated, choose_real, describe

NOT_SHAPING = (
    "name",
    "encoders",
    "batch_size",
    "every_epochs",
    "inception_weights",
    "require_inception",
)
"""Keys of the config that change no number; encoders count by their weights instead."""

PIXELS: dict[str, Any] = {
    "weights_hash": feature_cache.hash_of([near_copies.NAME, near_copies.VERSION]),
    "feature_dim": near_copies.MOST_COMPONENTS,
    "num_classes": 0,
    "notes": [
        f"no network: correlation of pixels in {len(near_copies.VIEWS)} views (mirrored, shifted, "
        "turned, cropped), at most as high for 99 % of held-out images"
    ],
}
"""What stands for the pixel audit among the encoders of a result."""

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
    return feature_cache.hash_of([*parts, num_images, epoch])


def shaping(config: ScoreConfig) -> dict[str, Any]:
    """The keys of the config that change a number, and their values."""
    keys = {
        key: value for key, value in dataclasses.asdict(config).items() if key not in NOT_SHAPING
    }
    extra = keys.pop("extra")
    if extra:
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
    shown = {encoder.name: _describe_encoder(encoder) for encoder in encoders}
    if config.memorization:
        audit = _audit_pixels(generated, real, config, progress, on_pairs)
        values.update({f"{near_copies.NAME}.{key}": one for key, one in audit.values.items()})
        why.update({f"{near_copies.NAME}.{key}": one for key, one in audit.reasons.items()})
        shown[near_copies.NAME] = PIXELS
    for key, value in values.items():
        if value is not None and not math.isfinite(value):
            values[key], why[key] = None, "not a finite number"

    reference = real.reference
    hashes = {name: str(one["weights_hash"]) for name, one in shown.items()}
    return {
        "scoring_id": scoring_id(config, hashes, reference.content_hash, num_images, epoch),
        "version": feature_cache.VERSION,
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
        "encoders": shown,
        "values": values,
        "reasons": why,
        "notes": notes,
        "seconds": time.perf_counter() - began,
    }


def _describe_encoder(encoder: Encoder) -> dict[str, Any]:
    return {
        "weights_hash": encoder.weights_hash,
        "feature_dim": encoder.feature_dim,
        "num_classes": encoder.num_classes,
        "notes": list(encoder.notes),
    }


def _audit_pixels(
    generated: NDArray[np.uint8],
    real: RealSide,
    config: ScoreConfig,
    progress: Progress | None,
    on_pairs: OnPairs | None,
) -> Measures:
    """The share of near copies and its floor, from pixels alone."""
    measures = Measures()
    key, count = "near_copies", len(generated)
    counter = _counter(progress, "pixels: near copies", 1)
    held_out = real.held_out
    if held_out is None or len(held_out) < floors.FEWEST_HELD_OUT_FOR_SHARE:
        number = 0 if held_out is None else len(held_out)
        measures.leave_out(
            [key],
            f"near copies are judged by at least {floors.FEWEST_HELD_OUT_FOR_SHARE} held-out "
            f"images, got {number}",
        )
        return measures
    if len(real.distinct) < 2:
        measures.leave_out([key], "all training images are the same image")
        return measures
    training = real.reference.images[real.distinct]
    audit = near_copies.PixelAudit(training)
    made, index = audit.compare(generated)
    unseen_images, _ = audit.compare(held_out.images)
    if on_pairs is not None:
        on_pairs(near_copies.NAME, closest_pairs(generated, training, -made, index))
    measures.values[key] = near_copies.share_of_near_copies(made, unseen_images)

    def draw(one: NDArray[np.int64], two: NDArray[np.int64]) -> Measures:
        share = near_copies.share_of_near_copies(unseen_images[one], unseen_images[two])
        return Measures({key: share})

    rng = np.random.default_rng([config.seed, len(held_out), count])
    measures.update(
        floors.bootstrap_floors(draw, len(held_out), count, config, held_out.groups, rng)
    )
    if counter is not None:
        counter(1)
    return measures


def _score_with(
    encoder: Encoder,
    pixels: NDArray[np.uint8] | Tensor,
    generated: NDArray[np.uint8],
    real: RealSide,
    config: ScoreConfig,
    progress: Progress | None,
    on_pairs: OnPairs | None,
) -> Measures:
    reference = feature_cache.encode_real(
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
    # The comparison counts as one step, as each pool of the floors does.
    num_pools = floors.num_pools(len(real.reference), len(generated))
    count = _counter(progress, f"{encoder.name}: scores", 1 + num_pools)
    rows = floors.reference_rows(len(real.reference), len(generated), config, real.reference.groups)
    first = Encoded(reference.features[rows], reference.logits[rows])
    measures = comparison.classify(made, config)
    measures.update(comparison.compare(first, made, config))
    if count is not None:
        count(1)
    measures.update(_floors(encoder, reference, real.reference, len(generated), config, count))
    if config.memorization:
        measures.update(_memorization(encoder, reference, made, generated, real, config, on_pairs))
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
    groups = reference.groups
    key = feature_cache.hash_of(
        [
            feature_cache.features_key(reference, encoder),
            num_images,
            sorted(parts.items()),
            None if groups is None else groups.tolist(),
        ]
    )
    found = feature_cache.computed_once(
        key,
        lambda: dataclasses.asdict(
            floors.compare_halves(encoded, num_images, config, groups, step)
        ),
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
        keys = [*floors.RELATIVE, "authenticity"]
        measures.leave_out(keys, "all training images are the same image")
        return measures
    sets = [made.features]
    if real.held_out is not None:
        sets.append(feature_cache.encode_real(real.held_out, encoder, config.batch_size).features)
    num_held_out = 0 if real.held_out is None else len(real.held_out)
    near = nearness(
        reference.features[real.distinct], sets, suggested_cells(num_held_out), config.seed
    )
    if on_pairs is not None:
        training = real.reference.images[real.distinct]
        on_pairs(encoder.name, closest_pairs(generated, training, near[0].distance, near[0].index))
    groups = None if real.held_out is None else real.held_out.groups
    return floors.compare_nearness(near[0], near[1] if len(near) > 1 else None, config, groups)


def _counter(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count


class ProgressLine:
    """A ``evaluate.Progress``, silent where stderr is no terminal."""

    def __enter__(self) -> ProgressLine:
        self._bar: Any = tqdm(disable=None, leave=False, bar_format="scoring: {desc}")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        self._bar.set_description_str(f"{what} {done}/{total}")
