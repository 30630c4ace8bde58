"""The real images of a study, and the check that nothing is tested on what was trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungan.classifiers.train import Labelled
from lungan.config import DataConfig
from lungan.data import build as data
from lungan.data.images import ImageSet, keep_fraction
from lungan.errors import ConfigError, DataError

TRAIN, VALIDATION, TEST = "train", "val", "test"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which real images the classifiers of a study see: ``fraction`` of each class in train and
    val; of the class ``rare``, where one is named, so few that they are the share ``prevalence``
    of the training images."""

    fraction: float
    rare: str = ""
    prevalence: float | None = None

    def fractions(self, image_set: ImageSet) -> dict[str, float]:
        """The fraction of each class.

        Raises: ConfigError for a rare class that is unknown or has too few images.
        """
        found = dict.fromkeys(image_set.class_names, self.fraction)
        if self.prevalence is not None:
            if self.rare not in found:
                raise ConfigError(f"--imbalance must be of {' or '.join(found)}, got {self.rare}")
            train = image_set.members([TRAIN], [])
            counts = np.bincount(image_set.labels[train], minlength=len(found))
            number = image_set.class_names.index(self.rare)
            others = self.fraction * (counts.sum() - counts[number])
            wanted = self.prevalence / (1 - self.prevalence) * others
            found[self.rare] = round(float(wanted / counts[number]), 6)
            if found[self.rare] > 1:
                raise ConfigError(
                    f"--imbalance {self.rare}={self.prevalence:g} needs {wanted:.0f} images of "
                    f"{self.rare} in {TRAIN}, which has {counts[number]}; give a smaller share"
                )
        return found

    def of_generators(self, image_set: ImageSet) -> float:
        """The fraction of its images that a generator is trained on, of the classes it makes."""
        return self.fractions(image_set)[self.rare or image_set.class_names[0]]

    def __str__(self) -> str:
        if self.prevalence is None:
            return f"{self.fraction:g}"
        return f"{self.fraction:g} with {self.prevalence:g} of {self.rare}"


WHOLE = Scenario(1.0)


@dataclass(frozen=True, slots=True)
class RealImages:
    """image_set: all splits; ``data`` says how it was read. validation, test: without images that
    equal one of an earlier split or are of a group (patient) in one; ``num_dropped`` counts what
    that left out, by split. usable: (N,) bool, images that were not left out."""

    image_set: ImageSet
    data: DataConfig
    validation: Labelled
    test: Labelled
    num_dropped: dict[str, int]
    usable: NDArray[np.bool_]

    def draw(self, split: str, scenario: Scenario, seed: int) -> Labelled:
        """The images of ``split`` that a study of this scenario has; at least one of each class."""
        image_set, members = self._drawn(split, scenario, seed)
        return _labelled(image_set.take(members))

    def left_out(self, scenario: Scenario, seed: int) -> Labelled:
        """The training images that a study of this scenario has not."""
        image_set, members = self._drawn(TRAIN, scenario, seed)
        return _labelled(image_set.take(image_set.members([TRAIN], []) & ~members))

    def _drawn(
        self, split: str, scenario: Scenario, seed: int
    ) -> tuple[ImageSet, NDArray[np.bool_]]:
        """All images that may be used, and which of them ``draw`` gives."""
        image_set = self.image_set.take(self.usable)
        members = np.zeros(len(image_set), dtype=bool)
        for class_name, fraction in scenario.fractions(self.image_set).items():
            kept = image_set
            if fraction < 1:
                kept = keep_fraction(kept, [split], fraction, seed)
            members |= kept.members([split], [class_name])
        return image_set, members

    @property
    def num_classes(self) -> int:
        return len(self.image_set.class_names)


def content_hashes(images: NDArray[np.uint8]) -> list[bytes]:
    """One for each image, of its pixels alone."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def whole_data(config: DataConfig) -> DataConfig:
    """All images that those of the config are among."""
    return dataclasses.replace(config, fraction=1.0, fraction_seed=0, splits=[], classes=[])


def read_real(config: DataConfig) -> RealImages:
    """Raises: DataError where images cannot be read, or ``choose_real`` misses some."""
    return choose_real(data.load(config), config)


def choose_real(image_set: ImageSet, config: DataConfig) -> RealImages:
    """Validation and test images that are no copies of what comes before them.

    Raises: DataError where a split or a class in one is missing.
    """
    for name in (TRAIN, VALIDATION, TEST):
        number = image_set.split_names.index(name) if name in image_set.split_names else -1
        present = np.unique(image_set.labels[image_set.splits == number])
        if len(image_set.class_names) < 2 or len(present) < len(image_set.class_names):
            have = [image_set.class_names[label] for label in present]
            raise DataError(
                f"a utility study needs images of at least two classes, all of them in {TRAIN}, "
                f"{VALIDATION} and {TEST}; {name} has {', '.join(have) or 'none'} of "
                f"{', '.join(image_set.class_names)} (data.val_fraction and data.test_fraction "
                "divide data without splits)"
            )
    train = image_set.select([TRAIN], [])
    known, groups = set(content_hashes(train.images)), train.groups
    kept: dict[str, Labelled] = {}
    usable = np.ones(len(image_set), dtype=bool)
    num_dropped = {}
    # Test first: a validation image that is also a test image chooses weights by the test.
    for name in (TEST, VALIDATION):
        split = image_set.select([name], [])
        hashes = content_hashes(split.images)
        fresh = np.array([one not in known for one in hashes], dtype=bool)
        if groups is not None and split.groups is not None:
            fresh &= ~np.isin(split.groups, groups)
            groups = np.union1d(groups, split.groups)
        kept[name] = _labelled(split.take(fresh))
        usable[image_set.members([name], [])] = fresh
        num_dropped[name] = int((~fresh).sum())
        known |= set(hashes)
        if len(np.unique(kept[name].labels)) < len(image_set.class_names):
            raise DataError(
                f"{num_dropped[name]} of {len(split)} images of {name} are copies of images in "
                "other splits, or of the same patients, and without them a class is missing "
                "there; divide the data anew"
            )
    return RealImages(image_set, config, kept[VALIDATION], kept[TEST], num_dropped, usable)


def check_no_leak(
    name: str, trained_on: ImageSet, real: RealImages, allowed: Labelled, scenario: Scenario
) -> None:
    """That a generator saw no image that a classifier is validated or tested on, and no real image
    that the classifiers of its scenario do not see.

    trained_on: the images that the generator of run ``name`` was trained on.

    Raises: DataError naming the run, the split and the way out.
    """
    hashes = set(content_hashes(trained_on.images))
    for split, images in ((VALIDATION, real.validation), (TEST, real.test)):
        leaked = len(hashes & set(content_hashes(images.images)))
        if leaked:
            raise DataError(
                f"{name} was trained on {leaked} of the {len(images)} images of {split}, which "
                f"classifiers are {'selected' if split == VALIDATION else 'tested'} on; train it "
                f"with data.splits=[{TRAIN}]"
            )
    unseen = len(hashes - set(content_hashes(allowed.images)))
    if unseen:
        raise DataError(
            f"{name} was trained on {unseen} real images that the classifiers of fraction "
            f"{scenario} do not see, which would help them unfairly; train it with "
            f"data.splits=[{TRAIN}] data.fraction={scenario.fraction:g}"
        )


def _labelled(image_set: ImageSet) -> Labelled:
    return Labelled(image_set.images, image_set.labels, image_set.groups)
