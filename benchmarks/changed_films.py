"""Do scores see what blur, smoothing and compression took away? Real films changed, without a GAN.

    python benchmarks/changed_films.py FOLDER OUT.csv --size 64 [--encoders A,B]
        [data.key=value ...]

Images of val and test are changed in known ways and scored against those of train, so give
data.group where patients have several films. A row an encoder and a change: Fréchet distance,
precision, recall and coverage, and the distance's floor with its 95 % range.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lungan.config import compose, presets
from lungan.data.build import load
from lungan.scores import encoders
from lungan.scores.evaluate import score_images

Images = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("overrides", nargs="*", metavar="data.key=value")
    parser.add_argument("--size", type=int, required=True, metavar="PIXELS")
    parser.add_argument("--encoders", default="spectrum,contrast", metavar="A,B")
    options = parser.parse_intermixed_args()
    with compose.composer():
        given = [f"data.size={options.size}", *options.overrides]
        settings = compose.compose(["data=folder", "data.path=.", *given]).data
    settings.path = str(options.data)
    images = load(settings, say=print)
    config = presets.load("score", "standard")
    config.memorization = False
    used = [
        encoders.build(name, config, images, torch.device("cpu"))
        for name in options.encoders.split(",")
    ]
    unseen = images.select(["val", "test"], []).images
    rows: list[dict[str, str]] = []
    for name, changed in CHANGES.items():
        result = score_images(
            changed(unseen), images, splits=["train"], classes=[], config=config, encoders=used
        )
        values = result["values"]
        for encoder in used:
            row = {"encoder": encoder.name, "change": name, "num_images": result["num_images"]}
            for score in ("frechet_distance", "precision", "recall", "coverage"):
                row[score] = f"{values[f'{encoder.name}.{score}']:.4g}"
            for end in ("", "_low", "_high"):
                key = f"{encoder.name}.frechet_distance.floor{end}"
                row[f"floor{end}"] = f"{values[key]:.4g}"
            rows.append(row)
            print(*row.values(), flush=True)
    rows.sort(key=lambda row: options.encoders.split(",").index(row["encoder"]))
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def blurred(images: Images, sigma: float) -> Images:
    """sigma: in pixels."""
    return ndimage.gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")


def smoothed(images: Images, side: int) -> Images:
    """The median of ``side`` x ``side`` pixels, which keeps edges."""
    return ndimage.median_filter(images, (1, 1, side, side))


def compressed(images: Images, quality: int) -> Images:
    """Through JPEG; of several channels, each on its own."""
    found = np.empty_like(images)
    for place in np.ndindex(images.shape[:2]):
        stream = io.BytesIO()
        Image.fromarray(images[place]).save(stream, "jpeg", quality=quality)
        found[place] = np.asarray(Image.open(stream))
    return found


def of_two_halves(images: Images) -> Images:
    """The left half of each image beside the right half of the next."""
    found = np.roll(images, 1, axis=0)
    middle = images.shape[3] // 2
    found[..., :middle] = images[..., :middle]
    return found


CHANGES: dict[str, Callable[[Images], Images]] = {
    "unchanged": lambda images: images,
    "blur 0.4": lambda images: blurred(images, 0.4),
    "blur 0.7": lambda images: blurred(images, 0.7),
    "blur 1": lambda images: blurred(images, 1.0),
    "blur 2": lambda images: blurred(images, 2.0),
    "median 3": lambda images: smoothed(images, 3),
    "median 5": lambda images: smoothed(images, 5),
    "JPEG 75": lambda images: compressed(images, 75),
    "JPEG 30": lambda images: compressed(images, 30),
    "JPEG 10": lambda images: compressed(images, 10),
    "mixed halves": of_two_halves,
}


if __name__ == "__main__":
    main()
