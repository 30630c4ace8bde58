"""Make the images that were asked for, block by block: memory does not grow with their number."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lungan.errors import DataError
from lungan.generation.card import Made, Request, write_card
from lungan.generation.rejection import Rejection, build_rejection
from lungan.generation.source import Source, numeric_labels
from lungan.generation.writing import (
    CARD,
    MANIFEST,
    ArchiveWriter,
    FolderWriter,
    Manifest,
    new_folder,
)
from lungan.models.sampling import BLOCK_SIZE, divide, sample_block

MOST_DRAWS = 20
"""How many images are drawn for each one wanted before memorization is taken for the rule."""


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
    drawn = 0
    with new_folder(request.out) as folder:
        bar: tqdm[Any] = tqdm(total=request.num_images, unit="image", disable=None)
        writer = (
            FolderWriter(folder, request.num_images)
            if labels is None
            else ArchiveWriter(folder, size, channels, counts, labels)
        )
        with bar, (folder / MANIFEST).open("w", encoding="utf-8", newline="") as stream, writer:
            manifest = Manifest(stream, with_nearness=rejection is not None)
            for name, count in counts.items():
                kept = _draw(source, request, device, rejection, name, count)
                for position, image, nearness in kept:
                    manifest.add(writer.add(image, name), name, position, image, nearness)
                    bar.update()
                drawn += position + 1
            stream.flush()
            os.fsync(stream.fileno())
        made = Made(
            counts=counts,
            labels=labels,
            size=size,
            channels=channels,
            drawn=drawn,
            rejection=rejection,
        )
        write_card(folder / CARD, source, request, made)
    return made


def _draw(
    source: Source,
    request: Request,
    device: torch.device,
    rejection: Rejection | None,
    class_name: str,
    count: int,
) -> Iterator[tuple[int, NDArray[np.uint8], tuple[float, float] | None]]:
    """``count`` images (C, H, W) of a class with their places in its sequence and how near they
    come to training images; those that come too near are left out."""
    label = source.label_of(class_name)
    kept = 0
    for block in itertools.count():
        first = block * BLOCK_SIZE
        if first > MOST_DRAWS * max(count, BLOCK_SIZE):
            raise DataError(
                f"{first - kept} of {first} images of {class_name} lie nearer to a training image "
                "than 99 % of held-out real ones, so --reject-memorized finds no "
                f"{count}; this generator memorizes: see its scores, and train another"
            )
        images = sample_block(
            source.generator, request.seed, label, block, device, request.truncation
        )
        found = None if rejection is None else rejection.examine(images)
        for index, image in enumerate(images):
            if found is not None and found[2][index]:
                continue
            yield (
                first + index,
                image,
                None if found is None else (found[0][index], found[1][index]),
            )
            kept += 1
            if kept == count:
                return
