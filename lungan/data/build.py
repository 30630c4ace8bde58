"""From a data config to its images: the closed registry of readers."""

from __future__ import annotations

from lungan.config import (
    SCHEMAS,
    DataConfig,
    FolderConfig,
    NpzConfig,
    PhantomConfig,
    PneumoniaMnistConfig,
)
from lungan.data.images import ImageSet, keep_fraction
from lungan.errors import ConfigError


def load(config: DataConfig, *, progress: bool = True) -> ImageSet:
    """All splits and classes of the data; ``ImageSet.select`` chooses what a GAN trains on.

    With ``data.fraction`` below 1, what is left out of ``data.splits`` is in a split of its own.
    progress: show bars where stderr is a terminal.

    Raises: DataError where the data cannot be had or used.
    """
    image_set = _read(config, progress)
    if config.fraction == 1:
        return image_set
    return keep_fraction(image_set, config.splits, config.fraction, config.fraction_seed)


def _read(config: DataConfig, progress: bool) -> ImageSet:
    # Imported one by one: a reader's packages are not paid for by the others.
    match config:
        case PhantomConfig():
            from lungan.data.phantom import load_phantom

            return load_phantom(config)
        case PneumoniaMnistConfig():
            from lungan.data.medmnist import load_pneumoniamnist

            return load_pneumoniamnist(config, progress=progress)
        case FolderConfig():
            from lungan.data.folder import load_folder

            return load_folder(config, progress=progress)
        case NpzConfig():
            from lungan.data.npz import load_npz

            return load_npz(config)
    raise ConfigError(f"data must be one of {', '.join(SCHEMAS['data'])}, got {config.name}")
