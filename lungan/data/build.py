"""From a data config to its images, by the reader that is registered for it."""

from __future__ import annotations

from lungan import registry
from lungan.config import DataConfig
from lungan.data.images import ImageSet, keep_fraction


def load(config: DataConfig, *, progress: bool = True) -> ImageSet:
    """All splits and classes of the data; ``ImageSet.select`` chooses what a GAN trains on.

    With ``data.fraction`` below 1, what is left out of ``data.splits`` is in a split of its own.
    progress: show bars where stderr is a terminal.

    Raises: DataError where the data cannot be had or used, ConfigError for an unknown name.
    """
    image_set: ImageSet = registry.find("data", config.name).build(config, progress=progress)
    if config.fraction == 1:
        return image_set
    return keep_fraction(image_set, config.splits, config.fraction, config.fraction_seed)
