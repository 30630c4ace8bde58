"""What the batches of each arm hold: real images, and images of the generators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lungan.classifiers.augment import augment
from lungan.classifiers.train import Labelled, Phase, Portion
from lungan.models.sampling import BLOCK_SIZE, sample_block, to_floats, to_uint8
from lungan.utility.arms import Arm
from lungan.utility.generators import GeneratorSet

CANDIDATES = 2
"""Filtering draws so many images for each one that it keeps."""

TRUNCATION = 1.0
"""Standard deviations at which latents are cut off where they are truncated."""

LEAST_SYNTHETIC = 1024
"""So many different synthetic images there are at least: unlike real ones they cost little."""

Rate = Callable[[Labelled], NDArray[np.float64]]
"""From images with their classes to a number for each, (N,)."""


class Synthetic:
    """The images of one generator set and seed, class by class; those of a larger number begin with
    those of a smaller one."""

    def __init__(
        self,
        generators: GeneratorSet,
        seed: int,
        device: torch.device,
        truncation: float | None = None,
    ) -> None:
        self._generators = generators
        self._seed = seed
        self._device = device
        self._truncation = truncation
        self._blocks: dict[str, list[NDArray[np.uint8]]] = {}

    def take(self, class_name: str, count: int) -> NDArray[np.uint8]:
        source = self._generators.source(class_name)
        blocks = self._blocks.setdefault(class_name, [])
        source.generator.to(self._device).eval()
        while len(blocks) * BLOCK_SIZE < count:
            label, block = source.label_of(class_name), len(blocks)
            images = sample_block(
                source.generator, self._seed, label, block, self._device, self._truncation
            )
            blocks.append(images.cpu().numpy())
        return np.concatenate(blocks)[:count]

    def images(self, class_names: tuple[str, ...], counts: list[int]) -> Labelled:
        """``counts`` images of each class."""
        parts = [
            self.take(name, count) for name, count in zip(class_names, counts, strict=True) if count
        ]
        return Labelled(np.concatenate(parts), np.repeat(np.arange(len(counts)), counts))

    def filtered(self, class_names: tuple[str, ...], counts: list[int], rate: Rate) -> Labelled:
        """Of twice as many images of each class, those that ``rate`` gives most."""
        candidates = self.images(class_names, [CANDIDATES * count for count in counts])
        rated = rate(candidates)
        keep: list[NDArray[np.intp]] = []
        for label, count in enumerate(counts):
            members = np.flatnonzero(candidates.labels == label)
            order = np.argsort(-rated[members], kind="stable")
            keep.append(np.sort(members[order[:count]]))
        rows = np.concatenate(keep)
        return Labelled(candidates.images[rows], candidates.labels[rows])


def moved(real: Labelled, counts: Sequence[int], seed: int) -> Labelled:
    """``counts`` images of each class: the real ones in turn, each moved in a way of its own."""
    by_class = (np.flatnonzero(real.labels == label) for label in range(len(counts)))
    rows = np.concatenate([np.resize(*pair) for pair in zip(by_class, counts, strict=True)])
    rng = torch.Generator().manual_seed(seed)
    images = to_uint8(augment(to_floats(torch.from_numpy(real.images[rows])), rng))
    return Labelled(images.numpy(), real.labels[rows])


def synthetic_counts(
    real: Labelled, ratio: float, class_names: tuple[str, ...], made: Collection[str]
) -> list[int]:
    """How many different synthetic images of each class there are: in the shares of the real ones,
    ``ratio`` times as many or ``LEAST_SYNTHETIC`` in all; of a rare class that alone is ``made``,
    as many as make it as frequent as the most frequent one; none of a class that is not made."""
    present = np.bincount(real.labels, minlength=len(class_names))
    if set(made) < set(class_names):
        most = max(LEAST_SYNTHETIC, int(present.max()))
        return [
            most - int(count) if name in made else 0
            for name, count in zip(class_names, present, strict=True)
        ]
    scale = max(ratio, LEAST_SYNTHETIC / len(real))
    return [max(1, round(scale * int(count))) for count in present]


def plan_phases(
    arm: Arm, real: Labelled, synthetic: Labelled | None, ratio: float, updates: int, size: int
) -> list[Phase]:
    """What the arm's classifier is trained on, one phase after another.

    synthetic: or what the arm has in their place; None for an arm without either. ratio: of
    synthetic images to real ones in a batch. updates, size: of the study's recipe; batches of
    ``on_top`` are larger, and ``shorter`` and ``longer`` training is so by the share of real images
    in a batch.
    """
    if arm.balanced:
        return [Phase(_balanced(real, synthetic, ratio, size), updates)]
    num_real = _real_part(size, ratio)
    own = Portion(real, size)
    if synthetic is None:
        return [Phase((own,), round(updates * num_real / size) if arm.duration else updates)]
    mixed = (Portion(real, num_real), Portion(synthetic, size - num_real, is_real=False))
    if arm.duration == "longer":
        return [Phase(mixed, round(updates * size / num_real))]
    alone = Portion(synthetic, size, is_real=False)
    if arm.synthetic == "first":
        return [Phase((alone,), updates // 2), Phase((own,), updates - updates // 2)]
    portions = {
        "mixed": mixed,
        "on_top": (own, Portion(synthetic, round(ratio * size), is_real=False)),
        "only": (alone,),
    }
    return [Phase(portions[arm.synthetic], updates)]


def _real_part(size: int, ratio: float) -> int:
    """Of ``size`` images, so many are real, at least one and all but one."""
    return min(max(1, round(size / (1 + ratio))), size - 1)


def _balanced(
    real: Labelled, synthetic: Labelled | None, ratio: float, size: int
) -> tuple[Portion, ...]:
    """Portions of each class, of equal size up to rounding; where there are synthetic images of a
    class, they fill up its portion."""
    classes = np.unique(real.labels)
    portions = []
    for place, label in enumerate(classes):
        count = size // len(classes) + (place < size % len(classes))
        made = None if synthetic is None else _of_class(synthetic, label)
        num_real = _real_part(count, ratio) if made is not None and len(made) else count
        portions.append(Portion(_of_class(real, label), num_real))
        if made is not None and len(made):
            portions.append(Portion(made, count - num_real, is_real=False))
    return tuple(portions)


def _of_class(images: Labelled, label: int) -> Labelled:
    members = images.labels == label
    return Labelled(images.images[members], images.labels[members])


def shown(phases: list[Phase], real: Labelled, class_names: tuple[str, ...]) -> dict[str, float]:
    """How often each real training image is shown on average, of ``all`` and of each class."""
    times = np.zeros(len(class_names))
    counts = np.bincount(real.labels, minlength=len(class_names))
    for phase in phases:
        for portion in phase.portions:
            if portion.is_real:
                often = phase.updates * portion.count / len(portion.images)
                times[np.unique(portion.images.labels)] += often
    whole = float((times * counts).sum() / counts.sum())
    return {"all": whole} | dict(zip(class_names, times.tolist(), strict=True))
