"""Where generated images come from: a finished run, or a generator's file, which is untrusted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lungan.config import RunConfig
from lungan.config.data import NpzConfig
from lungan.data import build as data
from lungan.data.images import ONLY_CLASS
from lungan.errors import ConfigError, DataError, RunFolderError, WeightsError
from lungan.files import is_folder_name
from lungan.models.build import Classes
from lungan.models.sampling import divide
from lungan.models.saving import load_generator
from lungan.runs.folder import GENERATOR, read_config, read_summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A generator with what is known of it.

    path: the run folder or the generator's file, absolute.
    class_names: of a conditional generator in the order of its labels, else the one class that it
    was trained on, or ``all``. shares: how the images to make are divided among them.
    config, summary: None where only the generator's file was given.
    """

    path: Path
    generator: nn.Module
    weights_hash: str
    conditional: bool
    class_names: tuple[str, ...]
    shares: tuple[float, ...]
    config: RunConfig | None
    summary: dict[str, Any] | None

    @property
    def name(self) -> str:
        return self.path.name

    def divide(self, num_images: int, wanted: list[str] | None) -> dict[str, int]:
        """How many images to make of each class of ``wanted``, None for all.

        Raises: ConfigError for a class that the generator cannot make.
        """
        for name in wanted or []:
            if name not in self.class_names:
                have = ", ".join(self.class_names)
                raise ConfigError(f"--class must be among {have} for {self.name}, got {name}")
        chosen = list(dict.fromkeys(wanted or self.class_names))
        shares = [self.shares[self.class_names.index(name)] for name in chosen]
        divided = zip(chosen, divide(num_images, shares), strict=True)
        return {name: count for name, count in divided if count}

    def label_of(self, class_name: str) -> int | None:
        """What a conditional generator calls the class."""
        return self.class_names.index(class_name) if self.conditional else None


def read_source(path: Path) -> Source:
    """The generator of a run folder, or of a .safetensors file.

    Raises: RunFolderError where the run is not done, WeightsError where the generator cannot be
    used or names its classes in a way that is unfit for files.
    """
    weights, config, summary = path, None, None
    if path.is_dir():
        summary = read_summary(path)
        if summary is None or summary["status"] != "done":
            ending = "no finished run" if summary is None else f"a {summary['status']} run"
            raise RunFolderError(f"{path} holds {ending}; give the folder of a finished one")
        weights, config = path / GENERATOR, read_config(path)
    generator = load_generator(weights)
    classes: Any = generator.classes
    if classes is None:
        trained_on = [] if config is None else config.data.classes
        classes = Classes((trained_on[0] if len(trained_on) == 1 else ONLY_CLASS,), (1.0,))
    for class_name in classes.names:  # it becomes a folder's, and must not lead out of its place
        if not is_folder_name(class_name):
            raise WeightsError(
                f"{weights} names a class {class_name!r}, which is unfit for a folder's name; give "
                "another generator, or one trained on classes with names of letters and digits"
            )
    return Source(
        path=path.absolute() if config is None else path.resolve(),
        generator=generator,
        weights_hash=hashlib.sha256(weights.read_bytes()).hexdigest(),
        conditional=generator.classes is not None,
        class_names=classes.names,
        shares=classes.shares,
        config=config,
        summary=summary,
    )


def numeric_labels(source: Source) -> dict[str, int]:
    """The number that stands for each class in the data trained on; its position where the
    generator's file alone is known.

    Raises: DataError where the data's classes cannot be found out.
    """
    known: Sequence[str] = source.class_names
    if source.class_names == (ONLY_CLASS,):
        return {ONLY_CLASS: 0}
    if source.config is not None and source.summary is not None:
        if isinstance(source.config.data, NpzConfig):
            return {name: int(name) if name.isdigit() else 0 for name in source.class_names}
        # A run of lungan 0.1 does not say them.
        known = source.summary.get("class_names") or data.load(source.config.data).class_names
    for name in source.class_names:
        if name not in known:
            have = ", ".join(known)
            raise DataError(
                f"{name} is no class of the training data, which has {have}, so --npz has no "
                "number for it; leave out --npz to write folders"
            )
    return {name: known.index(name) for name in source.class_names}
