"""Generated images on disk: PNG by class or an .npz, and a manifest, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.errors import ConfigError, DataError

MANIFEST = "manifest.csv"
CARD = "README.md"
ARCHIVE = "images.npz"


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


class FolderWriter(contextlib.nullcontext[None]):
    """``<class>/000000.png``, numbered within each class."""

    def __init__(self, folder: Path, num_images: int) -> None:
        super().__init__()
        self._folder = folder
        self._digits = max(6, len(str(num_images - 1)))
        self._counts: dict[str, int] = {}

    def add(self, image: NDArray[np.uint8], class_name: str) -> str:
        """Write an image (C, H, W); gives its name for the manifest."""
        number = self._counts.get(class_name, 0)
        self._counts[class_name] = number + 1
        pixels = image.transpose(1, 2, 0)
        pixels = pixels[..., ::-1] if pixels.shape[2] == 3 else pixels  # OpenCV writes BGR
        _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
        path = self._folder / class_name / f"{number:0{self._digits}d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded.tobytes())
        return f"{class_name}/{path.name}"


class ArchiveWriter(contextlib.AbstractContextManager[None]):
    """``images.npz`` as MedMNIST has it: ``train_images`` (N, H, W) or (N, H, W, 3) uint8, and
    ``train_labels`` (N, 1) uint8; pixels wait in a file, so that N costs no memory.

    counts: images of each class, in the order in which they are added. labels: their numbers.
    """

    def __init__(
        self, folder: Path, size: int, channels: int, counts: dict[str, int], labels: dict[str, int]
    ) -> None:
        if max(labels.values()) > np.iinfo(np.uint8).max:
            raise ConfigError("--npz holds at most 256 classes; leave it out to write folders")
        self._labels = np.repeat(
            np.array([labels[name] for name in counts], dtype=np.uint8), list(counts.values())
        )
        self._image_shape = (size, size) + ((3,) if channels == 3 else ())
        self._path = folder / ARCHIVE
        self._pixels = (folder / "pixels").open("wb")
        self._added = 0

    def add(self, image: NDArray[np.uint8], class_name: str) -> str:  # noqa: ARG002
        """Add an image (C, H, W) of the class whose turn it is; gives its name for the manifest."""
        self._pixels.write(np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes())
        self._added += 1
        return str(self._added - 1)

    def __exit__(self, kind: object, *failure: object) -> None:
        if kind is not None:  # all is thrown away; what is left to write may fail as well
            with contextlib.suppress(OSError):
                self._pixels.close()
            return
        self._pixels.close()
        path = Path(self._pixels.name)
        images = np.memmap(path, np.uint8, "r", shape=(self._added, *self._image_shape))
        np.savez_compressed(self._path, train_images=images, train_labels=self._labels[:, None])
        path.unlink()


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
