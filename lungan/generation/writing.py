"""Generated images on disk: PNG by class or an .npz, and a manifest, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.errors import ConfigError, DataError

MANIFEST = "manifest.csv"
CARD = "README.md"
ARCHIVE = "images.npz"

_FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # the same images give the same bytes


class Writer(Protocol):
    """Takes images (C, H, W) uint8 class after class; gives each one's name for the manifest."""

    def add(self, image: NDArray[np.uint8], class_name: str) -> str: ...
    def finish(self) -> None: ...
    def __enter__(self) -> Writer: ...
    def __exit__(self, *failure: object) -> None: ...


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


class FolderWriter:
    """``<class>/000000.png``, numbered within each class."""

    def __init__(self, folder: Path, num_images: int) -> None:
        self._folder = folder
        self._digits = max(6, len(str(num_images - 1)))
        self._counts: dict[str, int] = {}

    def add(self, image: NDArray[np.uint8], class_name: str) -> str:
        number = self._counts.get(class_name, 0)
        if not number:
            (self._folder / class_name).mkdir()
        self._counts[class_name] = number + 1
        pixels = image.transpose(1, 2, 0)
        pixels = pixels[..., ::-1] if pixels.shape[2] == 3 else pixels  # OpenCV writes BGR
        _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
        name = f"{class_name}/{number:0{self._digits}d}.png"
        (self._folder / name).write_bytes(encoded.tobytes())
        return name

    def finish(self) -> None:
        """Each image is on its own."""

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        """Nothing is open."""


class ArchiveWriter:
    """``images.npz`` as MedMNIST has it: ``train_images`` (N, H, W) or (N, H, W, 3) uint8, and
    ``train_labels`` (N, 1) uint8; written image by image, so that N costs no memory.

    counts: images of each class, in the order in which they are added. labels: their numbers.
    """

    def __init__(
        self, folder: Path, size: int, channels: int, counts: dict[str, int], labels: dict[str, int]
    ) -> None:
        if max(labels.values()) > np.iinfo(np.uint8).max:
            raise ConfigError("--npz holds at most 256 classes; leave it out to write folders")
        self._counts, self._labels = counts, labels
        self._num_images = sum(counts.values())
        self._added = 0
        self._archive = zipfile.ZipFile(folder / ARCHIVE, "w")
        shape = (self._num_images, size, size) + ((3,) if channels == 3 else ())
        self._images = self._open("train_images", shape)

    def add(self, image: NDArray[np.uint8], class_name: str) -> str:
        del class_name  # the counts say it
        self._images.write(np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes())
        self._added += 1
        return str(self._added - 1)

    def finish(self) -> None:
        self._images.close()
        with self._open("train_labels", (self._num_images, 1)) as stream:
            for class_name, count in self._counts.items():
                for start in range(0, count, 2**16):
                    length = min(2**16, count - start)
                    stream.write(bytes([self._labels[class_name]]) * length)
        self._archive.close()

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, *failure: object) -> None:
        # Where something failed before, the archive is thrown away: closing it may well fail too.
        for opened in (self._images, self._archive):
            with contextlib.suppress(OSError, ValueError):
                opened.close()

    def _open(self, name: str, shape: tuple[int, ...]) -> IO[bytes]:
        entry = zipfile.ZipInfo(f"{name}.npy", _FIRST_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        stream = self._archive.open(entry, "w", force_zip64=True)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream


NEARNESS = ("nearest_training_distance", "pixel_similarity")


class Manifest:
    """A row an image: where it is, its class, its place in the class's sequence, and the SHA-256
    of its pixels; with its distance to the nearest training image in the encoder's features and
    its similarity to the most similar one in pixels, where these were measured."""

    def __init__(self, stream: TextIO, with_nearness: bool) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        columns = ["image", "class", "position", "pixels_sha256"]
        self._writer.writerow([*columns, *(NEARNESS if with_nearness else ())])

    def add(
        self,
        name: str,
        class_name: str,
        position: int,
        image: NDArray[np.uint8],
        nearness: tuple[float, float] | None,
    ) -> None:
        digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        row = [name, class_name, position, digest]
        self._writer.writerow([*row, *(f"{value:.6g}" for value in nearness or ())])


def _unwritable(out: Path, error: OSError) -> DataError:
    return DataError(
        f"{out} cannot be written: {error.strerror or error}; nothing is left there: free space, "
        "or give another --out"
    )
