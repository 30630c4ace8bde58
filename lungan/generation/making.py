"""Make the images that were asked for, block by block: memory does not grow with their number.

They lie on disk as PNG by class or as an .npz, with a manifest and a dataset card, which says what
made the images, from which data, how good they are and what they are for; whole or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import os
import secrets
import shlex
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from tqdm import tqdm

import lungan
from lungan.errors import ConfigError, DataError
from lungan.generation.rejection import Rejection, build_rejection
from lungan.generation.source import Source, numeric_labels
from lungan.models.sampling import BLOCK_SIZE, sample_block
from lungan.runs.pictures import encode_png
from lungan.scores.table import format_result

MANIFEST = "manifest.csv"
CARD = "README.md"
ARCHIVE = "images.npz"
PIXELS = "pixels"
"""Where the archive's pixels wait, so that their number costs no memory."""

COLUMNS = ("image", "class", "position", "pixels_sha256")
NEARNESS = ("nearest_training_distance", "pixel_similarity")
"""Columns of the manifest: where an image is, its class, its place in the class's sequence and the
hash of its pixels; with its distance to the nearest training image in the encoder's features and
its similarity to the most similar one in pixels, where these were measured."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one command made. counts: images by class. labels: their numbers in an .npz, else None.
    shape: (C, H, W) of an image. drawn: images of which those found memorized were left out, where
    there is a ``rejection``."""

    counts: dict[str, int]
    labels: dict[str, int] | None
    shape: tuple[int, ...]
    drawn: int
    rejection: Rejection | None

    @property
    def rejected(self) -> int:
        return self.drawn - sum(self.counts.values())


def make_images(source: Source, request: Request, device: torch.device) -> Made:
    """Write images, manifest and card into a new folder, all of them or nothing.

    Raises: ConfigError for a class or folder that will not do, DataError where the folder cannot
    be written or nearly all images count as memorized.
    """
    counts = source.divide(request.num_images, request.classes)
    labels = numeric_labels(source) if request.npz else None
    if labels is not None and max(labels.values()) > np.iinfo(np.uint8).max:
        raise ConfigError("--npz holds at most 256 classes; leave it out to write folders")
    rejection = build_rejection(source, device) if request.reject_memorized else None
    source.generator.to(device).eval()
    with new_folder(request.out) as folder:
        shape, drawn = _write_images(folder, source, request, device, counts, rejection)
        if labels is not None:
            _write_archive(folder, shape, counts, labels)
        made = Made(counts=counts, labels=labels, shape=shape, drawn=drawn, rejection=rejection)
        write_card(folder / CARD, source, request, made)
    return made


def _write_images(
    folder: Path,
    source: Source,
    request: Request,
    device: torch.device,
    counts: dict[str, int],
    rejection: Rejection | None,
) -> tuple[tuple[int, ...], int]:
    """Write the manifest, and ``<class>/000000.png``, numbered within each class, or the pixels of
    an archive; gives an image's shape (C, H, W) and how many images were drawn."""
    digits = max(6, len(str(request.num_images - 1)))
    index = itertools.count()  # over all classes, as in the archive
    drawn = 0
    with (
        tqdm(total=request.num_images, unit="image", disable=None) as bar,
        (folder / MANIFEST).open("w", encoding="utf-8", newline="") as stream,
        (folder / PIXELS).open("wb") if request.npz else contextlib.nullcontext() as pixels,
    ):
        manifest = csv.writer(stream, lineterminator="\n")
        manifest.writerow([*COLUMNS, *(NEARNESS if rejection else ())])
        for name, count in counts.items():
            kept = _draw(source, request, device, rejection, name, count)
            for number, (position, image, nearness) in enumerate(kept):
                rows = image.transpose(1, 2, 0)
                if pixels is not None:
                    written = str(next(index))
                    pixels.write(rows.tobytes())
                else:
                    written = f"{name}/{number:0{digits}d}.png"
                    (folder / name).mkdir(exist_ok=True)
                    (folder / written).write_bytes(encode_png(rows))
                digest = hashlib.sha256(image.tobytes()).hexdigest()
                manifest.writerow([written, name, position, digest, *nearness])
                bar.update()
            drawn += position + 1
        stream.flush()
        os.fsync(stream.fileno())
    return image.shape, drawn


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
    folder = out.parent / f".{out.name[:100]}.{secrets.token_hex(4)}.unfinished"
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
    except OSError as error:
        check_new(out)  # somebody else may have made it in the meantime
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}; nothing is left there: free "
            "space, or give another --out"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_new(out: Path) -> None:
    """Raises: ConfigError where ``out`` is there and is not an empty folder."""
    if not os.path.lexists(out):  # unlike Path.exists, also where the name is too long
        return
    if out.is_symlink() or not out.is_dir() or any(out.iterdir()):
        raise ConfigError(
            f"--out must not exist yet, {out} does; nothing is overwritten: give another name, or "
            "remove it"
        )


def _write_archive(
    folder: Path, shape: tuple[int, ...], counts: dict[str, int], labels: dict[str, int]
) -> None:
    """``images.npz`` as MedMNIST has it: ``train_images`` (N, H, W) or (N, H, W, 3) uint8, and
    ``train_labels`` (N, 1) uint8.

    counts: images of each class, in the order in which they were written. labels: their numbers.
    """
    numbers = np.array([labels[name] for name in counts], dtype=np.uint8)
    all_labels = np.repeat(numbers, list(counts.values()))[:, None]
    channels, height, width = shape
    pixels = (len(all_labels), height, width) + ((3,) if channels == 3 else ())
    images = np.memmap(folder / PIXELS, np.uint8, "r", shape=pixels)
    np.savez_compressed(folder / ARCHIVE, train_images=images, train_labels=all_labels)
    (folder / PIXELS).unlink()


def write_card(path: Path, source: Source, request: Request, made: Made) -> None:
    """Markdown. Text that a generator's file brings is shown as code, never as markup."""
    environment = Environment(
        loader=PackageLoader("lungan.generation"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "code": _code}
    scores = (source.summary or {}).get("scores")
    text = environment.get_template("card.md.j2").render(
        source=source,
        config=source.config,
        summary=source.summary,
        request=request,
        made=made,
        rejection=made.rejection,
        scores=scores and format_result(scores),
        version=lungan.__version__,
    )
    path.write_text(text, encoding="utf-8")


def _code(text: str) -> str:
    """A code span whatever the text holds."""
    return f"`{_plain(text).replace(chr(10), ' ')}`"


def _plain(text: str) -> str:
    return text.replace("`", "'")
