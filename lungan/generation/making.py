"""Make the images that were asked for, block by block: memory does not grow with their number.

They lie on disk as PNG by class or as an .npz, with a manifest, whole or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lungan.errors import ConfigError, DataError
from lungan.generation.card import Made, Request, write_card
from lungan.generation.rejection import Rejection, build_rejection
from lungan.generation.source import Source, numeric_labels
from lungan.models.sampling import BLOCK_SIZE, sample_block
from lungan.runs.pictures import encode_png

MANIFEST = "manifest.csv"
CARD = "README.md"
ARCHIVE = "images.npz"

COLUMNS = ("image", "class", "position", "pixels_sha256")
NEARNESS = ("nearest_training_distance", "pixel_similarity")
"""Columns of the manifest: where an image is, its class, its place in the class's sequence and the
hash of its pixels; with its distance to the nearest training image in the encoder's features and
its similarity to the most similar one in pixels, where these were measured."""

MOST_DRAWS = 20
"""How many images are drawn for each one wanted before memorization is taken for the rule."""

Add = Callable[[NDArray[np.uint8], str], str]
"""Writes an image (C, H, W) of a class; gives its name for the manifest."""


def make_images(source: Source, request: Request, device: torch.device) -> Made:
    """Write images, manifest and card into a new folder, all of them or nothing.

    Raises: ConfigError for a class or folder that will not do, DataError where the folder cannot
    be written or nearly all images count as memorized.
    """
    counts = source.divide(request.num_images, request.classes)
    labels = numeric_labels(source) if request.npz else None
    rejection = build_rejection(source, device) if request.reject_memorized else None
    source.generator.to(device).eval()
    first_label = 0 if source.conditional else None
    _, channels, size, _ = sample_block(source.generator, 0, first_label, 0, device).shape
    drawn = 0
    with new_folder(request.out) as folder:
        writer = (
            _write_folders(folder, request.num_images)
            if labels is None
            else _write_archive(folder, size, channels, counts, labels)
        )
        with (
            tqdm(total=request.num_images, unit="image", disable=None) as bar,
            (folder / MANIFEST).open("w", encoding="utf-8", newline="") as stream,
            writer as add,
        ):
            manifest = csv.writer(stream, lineterminator="\n")
            manifest.writerow([*COLUMNS, *(NEARNESS if rejection else ())])
            for name, count in counts.items():
                kept = _draw(source, request, device, rejection, name, count)
                for position, image, nearness in kept:
                    digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
                    manifest.writerow([add(image, name), name, position, digest, *nearness])
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
) -> Iterator[tuple[int, NDArray[np.uint8], tuple[str, ...]]]:
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
        made = sample_block(
            source.generator, request.seed, label, block, device, request.truncation
        )
        images = made.cpu().numpy()
        judged: Iterable[tuple[float, ...] | None]
        judged = itertools.repeat(()) if rejection is None else rejection.judge(images)
        for position, (image, nearness) in enumerate(zip(images, judged, strict=False), first):
            if nearness is None:
                continue
            yield position, image, tuple(f"{value:.6g}" for value in nearness)
            kept += 1
            if kept == count:
                return


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes the name ``out`` at the end, or leaves nothing behind.

    Raises: ConfigError where ``out`` is there already, DataError where it cannot be written.
    """
    check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(
            tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".unfinished", dir=out.parent)
        )
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield folder
        # mkdtemp makes folders that only their owner can read.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        folder.rename(out)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            check_new(out)
        raise _unwritable(out, error) from error
    finally:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def check_new(out: Path) -> None:
    """Raises: ConfigError where ``out`` is there and is not an empty folder."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(
            f"--out must not exist yet, {out} does; nothing is overwritten: give another name, or "
            "remove it"
        )


@contextlib.contextmanager
def _write_folders(folder: Path, num_images: int) -> Iterator[Add]:
    """``<class>/000000.png``, numbered within each class."""
    digits = max(6, len(str(num_images - 1)))
    counts = Counter[str]()

    def add(image: NDArray[np.uint8], class_name: str) -> str:
        path = folder / class_name / f"{counts[class_name]:0{digits}d}.png"
        counts[class_name] += 1
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(image.transpose(1, 2, 0)))
        return f"{class_name}/{path.name}"

    yield add


@contextlib.contextmanager
def _write_archive(
    folder: Path, size: int, channels: int, counts: dict[str, int], labels: dict[str, int]
) -> Iterator[Add]:
    """``images.npz`` as MedMNIST has it: ``train_images`` (N, H, W) or (N, H, W, 3) uint8, and
    ``train_labels`` (N, 1) uint8; pixels wait in a file, so that N costs no memory.

    counts: images of each class, in the order in which they are added. labels: their numbers.
    """
    if max(labels.values()) > np.iinfo(np.uint8).max:
        raise ConfigError("--npz holds at most 256 classes; leave it out to write folders")
    numbers = np.array([labels[name] for name in counts], dtype=np.uint8)
    all_labels = np.repeat(numbers, list(counts.values()))[:, None]
    shape = (len(all_labels), size, size) + ((3,) if channels == 3 else ())
    path = folder / "pixels"
    positions = itertools.count()
    with path.open("wb") as stream:

        def add(image: NDArray[np.uint8], _: str) -> str:
            stream.write(np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes())
            return str(next(positions))

        yield add
    images = np.memmap(path, np.uint8, "r", shape=shape)
    np.savez_compressed(folder / ARCHIVE, train_images=images, train_labels=all_labels)
    path.unlink()


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(
        f"{out} cannot be written: {error.strerror or error}; nothing is left there: free space, "
        "or give another --out"
    )
