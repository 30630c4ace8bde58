"""What the arms add to the real images: duplicates of them, or images of the generators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from lungan.classifiers.train import Labelled
from lungan.models.sampling import BLOCK_SIZE, sample_block
from lungan.results.arms import Arm
from lungan.utility.generators import GeneratorSet

CANDIDATES = 2
"""Filtering draws so many images for each one that it keeps."""

Believe = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From images (N, C, H, W) uint8 to the real-only classifier's probabilities (N, K)."""


class Synthetic:
    """The images of one generator set and seed, class by class; those of a larger ratio begin with
    those of a smaller one."""

    def __init__(self, generators: GeneratorSet, seed: int, device: torch.device) -> None:
        self._generators = generators
        self._seed = seed
        self._device = device
        self._blocks: dict[str, list[NDArray[np.uint8]]] = {}

    def take(self, class_name: str, count: int) -> NDArray[np.uint8]:
        source = self._generators.by_class[class_name]
        blocks = self._blocks.setdefault(class_name, [])
        source.generator.to(self._device).eval()
        while len(blocks) * BLOCK_SIZE < count:
            label = source.label_of(class_name)
            blocks.append(
                sample_block(source.generator, self._seed, label, len(blocks), self._device)
            )
        return np.concatenate(blocks)[:count]

    def images(self, class_names: tuple[str, ...], counts: list[int]) -> Labelled:
        """``counts`` images of each class."""
        parts = [
            self.take(name, count) for name, count in zip(class_names, counts, strict=True) if count
        ]
        return Labelled(np.concatenate(parts), np.repeat(np.arange(len(counts)), counts))

    def filtered(
        self, class_names: tuple[str, ...], counts: list[int], believe: Believe
    ) -> Labelled:
        """Of twice as many images, those that ``believe`` finds likeliest to be of their class."""
        candidates = self.images(class_names, [CANDIDATES * count for count in counts])
        probabilities = believe(candidates.images)
        likely = probabilities[np.arange(len(candidates)), candidates.labels]
        keep: list[NDArray[np.intp]] = []
        for label, count in enumerate(counts):
            members = np.flatnonzero(candidates.labels == label)
            order = np.argsort(-likely[members], kind="stable")
            keep.append(np.sort(members[order[:count]]))
        rows = np.concatenate(keep)
        return Labelled(candidates.images[rows], candidates.labels[rows])


def extra_counts(real: Labelled, ratio: float, num_classes: int) -> list[int]:
    """How many images of each class are added: ``ratio`` times the real ones, at least one."""
    present = np.bincount(real.labels, minlength=num_classes)
    return [max(1, round(ratio * int(count))) for count in present]


def duplicates(real: Labelled, counts: list[int], seed: int) -> Labelled:
    """``counts`` real images of each class, each image as often as any other or once more."""
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.intp]] = []
    for label, count in enumerate(counts):
        members = np.flatnonzero(real.labels == label)
        whole, rest = divmod(count, len(members))
        rows += [np.tile(members, whole), rng.permutation(members)[:rest]]
    chosen = np.concatenate(rows)
    return Labelled(real.images[chosen], real.labels[chosen])


def phases(arm: Arm, real: Labelled, extra: Labelled | None) -> list[Labelled]:
    """What the arm's classifier is trained on, one after the other."""
    if extra is None:
        return [real]
    if arm.pretrain:
        return [extra, real]
    if not arm.real:
        return [extra]
    images = np.concatenate([real.images, extra.images])
    return [Labelled(images, np.concatenate([real.labels, extra.labels]))]
