"""What a config stands for on this machine, found out before anything is written."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lungan.config import DataConfig, RunConfig, checks
from lungan.config.identity import trajectory_id
from lungan.data import build as data
from lungan.data.images import ImageSet
from lungan.device import resolve_device, resolve_precision
from lungan.runs.store import RunIdentity, identify
from lungan.training.material import classes_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config with its device, precision, images and identity."""

    config: RunConfig
    device: torch.device
    precision: str
    image_set: ImageSet
    training_set: ImageSet
    identity: RunIdentity
    data_seconds: float


def load_sets(config: DataConfig) -> tuple[ImageSet, ImageSet]:
    """All images of the data, and those to train on. Raises: DataError, ConfigError."""
    image_set = data.load(config, describe=True)
    return image_set, image_set.select(config.splits, config.classes)


def prepare(
    config: RunConfig, load: Callable[[DataConfig], tuple[ImageSet, ImageSet]] = load_sets
) -> Prepared:
    """Resolve device and precision, read the data and name the run.

    load: a sweep's own, which reads each data set once.

    Raises: ConfigError, DataError.
    """
    checks.check(config)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    began = time.perf_counter()
    image_set, training_set = load(config.data)
    checks.check_batch(config, len(training_set))
    names = classes_of(training_set).names
    config.generator.check_classes(names)
    if len(names) > 1 and not config.generator.conditional:
        _say_once(
            f"the generator is unconditional and learns the {len(names)} classes "
            f"({', '.join(names[:10])}) as one: data.classes=[{names[0]}] trains on one, "
            "generator.conditional=true makes images of each"
        )
    identity = identify(config, trajectory_id(config, training_set.content_hash, precision))
    seconds = time.perf_counter() - began
    return Prepared(config, device, precision, image_set, training_set, identity, seconds)


@functools.cache  # the runs of a sweep would all say the same
def _say_once(message: str) -> None:
    log.warning("warning: %s", message)
