"""The two pictures that a run leaves: sample grids and loss curves. No run fails for one."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.errors import LunganError
from lungan.files import write_bytes, write_json, write_whole
from lungan.runs.folder import classes_path, real_images_path

if TYPE_CHECKING:
    from lungan.data.images import ImageSet

GRID_COLUMNS = 8
GAP_PIXELS = 2

log = logging.getLogger(__name__)


def grid(images: NDArray[np.uint8], columns: int = GRID_COLUMNS) -> NDArray[np.uint8]:
    """images: (N, C, H, W) uint8 in rows of ``columns``; gives (rows, columns, C) uint8."""
    count, channels, height, width = images.shape
    rows, cell = -(-count // columns), (height + GAP_PIXELS, width + GAP_PIXELS)
    cells = np.full((rows * columns, *cell, channels), 255, dtype=np.uint8)
    cells[:count, :height, :width] = images.transpose(0, 2, 3, 1)
    sheet = cells.reshape(rows, columns, *cell, channels).swapaxes(1, 2)
    return sheet.reshape(rows * cell[0], -1, channels)[:-GAP_PIXELS, :-GAP_PIXELS]


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """image: (H, W, C) uint8, grey or RGB. Raises: RunFolderError where it cannot be written."""
    write_bytes(path, encode_png(image))


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """image: (H, W, C) uint8, grey or RGB."""
    ordered = image[..., ::-1] if image.shape[-1] == 3 else image  # OpenCV writes BGR
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered))
    content: bytes = encoded.tobytes()
    return content


def write_pairs(path: Path, generated: NDArray[np.uint8], training: NDArray[np.uint8]) -> None:
    """Generated images above the training images that they come closest to; both (P, C, H, W).

    Raises: RunFolderError where it cannot be written.
    """
    between, below = (
        np.full((*generated.shape[:2], pixels, generated.shape[3]), 255, dtype=np.uint8)
        for pixels in (GAP_PIXELS, 2 * GAP_PIXELS)
    )
    write_png(path, grid(np.concatenate([generated, between, training, below], axis=2)))


def write_real_images(folder: Path, training_set: ImageSet, seed: int, conditional: bool) -> None:
    """A grid of training images, as many as a sample grid has, and of a conditional generator's
    run in the same classes, whose names are written down beside the grids.

    Raises: RunFolderError where it cannot be written.
    """
    # Here, because reports use the rest of this module without torch.
    from lungan.training.loop import NUM_SAMPLES
    from lungan.training.randomness import fixed_labels

    rows = np.linspace(0, len(training_set) - 1, NUM_SAMPLES).astype(np.int64)
    if conditional:
        present, counts = np.unique(training_set.labels, return_counts=True)
        labels = present[fixed_labels(seed, NUM_SAMPLES, (counts / counts.sum()).tolist()).numpy()]
        for label in present:
            (own,) = np.nonzero(training_set.labels == label)
            rows[labels == label] = np.resize(own, int(np.sum(labels == label)))
        write_json(classes_path(folder), [training_set.class_names[label] for label in labels])
    write_png(real_images_path(folder), grid(training_set.images[rows]))


@contextlib.contextmanager
def spared(what: str) -> Iterator[None]:
    """Where a picture is made: an error there becomes a warning that names ``what``.

    Raises: LunganError, which the user can mend, such as a full disk.
    """
    try:
        yield
    except LunganError:
        raise
    except Exception as error:
        log.warning("no %s: %s: %s", what, type(error).__name__, error)


def import_matplotlib() -> ModuleType:
    """matplotlib, loaded without the backend that ``MPLBACKEND`` names.

    A process that a notebook started inherits the notebook's backend, which may not exist where
    lungan is installed, and then matplotlib cannot be imported. lungan's figures need no backend.
    """
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib  # half a second, and only once a run
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    return matplotlib


def write_loss_curves(path: Path, metrics: Sequence[dict[str, Any]]) -> None:
    """Losses and mean logits by epoch. Raises: RunFolderError where it cannot be written."""
    import_matplotlib()
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in metrics]
    figure = Figure(figsize=(9, 3.6))
    # Fixed margins: a layout engine would draw everything twice, at each run's end.
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.13, top=0.91, wspace=0.16)
    losses, logits = figure.subplots(1, 2)
    for axes, keys, title in (
        (losses, ("loss_generator", "loss_discriminator"), "loss"),
        (logits, ("logit_real", "logit_fake"), "mean logit"),
    ):
        for key in keys:
            label = key.partition("_")[2]
            axes.plot(epochs, [row[key] for row in metrics], label=label, marker=".", ms=3)
        axes.set_title(title, y=1)  # where it would be put, after every label was measured
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with write_whole(path) as stream:
        figure.savefig(stream, format="png", dpi=110)
