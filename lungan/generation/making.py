"""Make the images that were asked for, block by block: memory does not grow with their number."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lungan.errors import DataError
from lungan.generation.card import Made, write_card
from lungan.generation.rejection import Rejection, build_rejection
from lungan.generation.source import Source, numeric_labels
from lungan.generation.writing import (
    CARD,
    MANIFEST,
    ArchiveWriter,
    FolderWriter,
    Manifest,
    Writer,
    new_folder,
)
from lungan.models.sampling import BLOCK_SIZE, divide, sample_block

MOST_DRAWS = 20
"""How many images are drawn for each one wanted before memorization is taken for the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for. classes: None for all that the generator has."""

    run: Path
    out: Path
    num_images: int
    seed: int
    classes: list[str] | None
    truncation: float | None
    npz: bool
    reject_memorized: bool

    def command(self) -> str:
        """What to type to have the same again, without this machine's paths."""
        words = ["python", "-m", "lungan.generate", self.run.resolve().name]
        words += ["--num-images", str(self.num_images), "--out", self.out.name]
        words += ["--seed", str(self.seed)]
        for name in self.classes or []:
            words += ["--class", name]
        words += [] if self.truncation is None else ["--truncation", f"{self.truncation:g}"]
        words += ["--npz"] if self.npz else []
        words += ["--reject-memorized"] if self.reject_memorized else []
        return shlex.join(words)


def make_images(source: Source, request: Request, device: torch.device) -> Made:
    """Write images, manifest and card into a new folder, all of them or nothing.

    Raises: ConfigError for a class or folder that will not do, DataError where the folder cannot
    be written or nearly all images count as memorized.
    """
    chosen = source.choose(request.classes)
    shares = [source.shares[source.class_names.index(name)] for name in chosen]
    divided = zip(chosen, divide(request.num_images, shares), strict=True)
    counts = {name: count for name, count in divided if count}
    labels = numeric_labels(source) if request.npz else None
    rejection = build_rejection(source, device) if request.reject_memorized else None
    source.generator.to(device).eval()
    first_label = 0 if source.conditional else None
    _, channels, size, _ = sample_block(source.generator, 0, first_label, 0, device).shape
    with new_folder(request.out) as folder:
        writer: Writer = (
            FolderWriter(folder, request.num_images)
            if labels is None
            else ArchiveWriter(folder, size, channels, counts, labels)
        )
        bar: tqdm[Any] = tqdm(total=request.num_images, unit="image", disable=None)
        path = folder / MANIFEST
        with writer, bar, path.open("w", encoding="utf-8", newline="") as stream:
            manifest = Manifest(stream, with_nearness=rejection is not None)
            filling = _Filling(source, request, device, rejection, writer, manifest, bar)
            drawn = sum(filling.fill(name, count) for name, count in counts.items())
            writer.finish()
            stream.flush()
            os.fsync(stream.fileno())
        made = Made(
            counts=counts,
            labels=labels,
            size=size,
            channels=channels,
            seed=request.seed,
            truncation=request.truncation,
            drawn=drawn,
            rejected=None if rejection is None else drawn - request.num_images,
            threshold=None if rejection is None else rejection.threshold,
            similarity=None if rejection is None else rejection.similarity,
            encoder=None if rejection is None else rejection.encoder.name,
            num_held_out=None if rejection is None else rejection.num_held_out,
            command=request.command(),
        )
        write_card(folder / CARD, source, made)
    return made


@dataclass(frozen=True, slots=True)
class _Filling:
    source: Source
    request: Request
    device: torch.device
    rejection: Rejection | None
    writer: Writer
    manifest: Manifest
    bar: tqdm[Any]

    def fill(self, class_name: str, count: int) -> int:
        """Write ``count`` images of a class; gives how many were drawn for that."""
        request, rejection = self.request, self.rejection
        label = self.source.label_of(class_name)
        kept = position = 0
        while True:
            if position > MOST_DRAWS * max(count, BLOCK_SIZE):
                raise DataError(
                    f"{position - kept} of {position} images of {class_name} lie nearer to a "
                    "training image than 99 % of held-out real ones, so --reject-memorized finds "
                    f"no {count}; this generator memorizes: see its scores, and train another"
                )
            images = sample_block(
                self.source.generator,
                request.seed,
                label,
                position // BLOCK_SIZE,
                self.device,
                request.truncation,
            )
            found = None if rejection is None else rejection.examine(images)
            for index, image in enumerate(images):
                position += 1
                if found is not None and found[2][index]:
                    continue
                nearness = None if found is None else (found[0][index], found[1][index])
                name = self.writer.add(image, class_name)
                self.manifest.add(name, class_name, position - 1, image, nearness)
                kept += 1
                self.bar.update()
                if kept == count:
                    return position
