"""Which real images count for what in a scoring, and what to say of them and of the generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.scores.comparison import FEWEST_SPLITS, kernel_subset_size
from lungan.scores.encoders import Encoder
from lungan.scores.memorization import distinct, unseen

SMALL_PART = 50
"""Images in a part of an Inception Score below which its limit is said."""


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
