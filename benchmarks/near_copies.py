"""Which near copies of training images do the memorization scores find?

    python benchmarks/near_copies.py DATA OUT.csv [--size 64] [--class 1]

DATA: an .npz or a folder, as ``lungan.score --real`` takes it. All images that are not in a test
split, or those of one class, without exact duplicates, are divided at random: half are trained on,
a sixth held out, a third unseen; there must be 600, since the scores need 100 held-out ones. Copies
of training images are disguised in one way each. A row a way, for images that are all disguised
copies and for unseen images with 5 % of them: each score and the end of its floor's 95 % range that
copying would cross; ``found`` where it does. Images of one patient may fall on two sides, since the
files do not name patients.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lungan.config import presets
from lungan.data.build import read_images
from lungan.data.images import ImageSet
from lungan.scores.domain import load_encoder
from lungan.scores.evaluate import score_images
from lungan.scores.memorization import FEWEST_HELD_OUT_FOR_SHARE, distinct

COPIED = 0.05
SCORES = ("pixels.near_copies", "domain.memorization_share", "domain.memorization_c_t")

Images = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("--size", type=int)
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="of this class only")
    options = parser.parse_args()
    whole = read_images(options.data, options.size, 1)
    splits = [name for name in whole.split_names if name != "test"]
    chosen = whole.select(splits, [options.class_name] if options.class_name else [])
    images = chosen.images[distinct(chosen.images)]
    if len(images) < 6 * FEWEST_HELD_OUT_FOR_SHARE:
        parser.error(
            f"{options.data} must have at least {6 * FEWEST_HELD_OUT_FOR_SHARE} different images "
            f"outside of test, a sixth of which are held out, got {len(images)}; leave out "
            "--class, or give more images"
        )
    images = images[np.random.default_rng(0).permutation(len(images))]
    trained, held_out = len(images) // 2, len(images) // 6
    training, rest = images[:trained], images[trained:]
    divided = ImageSet(
        images=np.concatenate([training, rest[:held_out]]),
        labels=np.zeros(trained + held_out, dtype=np.int64),
        splits=np.repeat([0, 1], [trained, held_out]),
        class_names=("all",),
        split_names=("train", "val"),
        source=str(options.data.name),
    )
    unseen = rest[held_out:]
    config = presets.load("score", "standard")
    encoder = load_encoder(divided, torch.device("cpu"))
    number = min(len(unseen), trained // 2)
    few = max(1, round(COPIED * number))
    sets = {"unseen": (unseen[:number], None)}
    for name, copies in disguise(training[:number]).items():
        mixed = np.concatenate([unseen[: number - few], copies[:few]])
        sets[name] = (copies, mixed)
    rows = []
    for name, (alone, mixed) in sets.items():
        row: dict[str, object] = {"images": name, "N": number}
        for suffix, generated in (("", alone), (" 5 %", mixed)):
            if generated is None:
                continue
            values = score_images(
                generated, divided, splits=["train"], classes=[], config=config, encoders=[encoder]
            )["values"]
            for key in SCORES:
                upward = key != "domain.memorization_c_t"
                end = values[f"{key}.floor_{'high' if upward else 'low'}"]
                value = values[key]
                row[f"{key}{suffix}"] = f"{value:.3g}"
                row[f"{key}{suffix} limit"] = f"{end:.3g}"
                row[f"{key}{suffix} found"] = value > end if upward else value < end
        print(row, flush=True)
        rows.append(row)
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[-1], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def disguise(images: Images) -> dict[str, Images]:
    """Copies of ``images`` (N, 1, H, W) in each disguise; a pixel is one of 28 along a side."""
    rng = np.random.default_rng(1)
    floats = images.astype(float)
    pixel = images.shape[-1] / 28

    def turn(degrees: float) -> NDArray[np.float64]:
        return np.asarray(
            ndimage.rotate(floats, degrees, (3, 2), reshape=False, order=1, mode="nearest")
        )

    def crop(pixels: int) -> NDArray[np.float64]:
        width = images.shape[-1]
        cut = round(pixels * pixel)
        inner = floats[..., cut : width - cut, cut : width - cut]
        zoom = width / inner.shape[-1]
        return np.asarray(ndimage.zoom(inner, (1, 1, zoom, zoom), order=1))

    ways = {
        "copied": floats,
        "noise of 2 levels": floats + rng.normal(0, 2, floats.shape),
        "noise of 10 levels": floats + rng.normal(0, 10, floats.shape),
        "noise of 20 levels": floats + rng.normal(0, 20, floats.shape),
        "10 levels brighter": floats + 10,
        "10 % more contrast": (floats - 128) * 1.1 + 128,
        "inverted": 255 - floats,
        "mirrored": floats[..., ::-1],
        "mirrored and noise of 10": floats[..., ::-1] + rng.normal(0, 10, floats.shape),
        "blurred by 1 pixel": ndimage.gaussian_filter(floats, (0, 0, pixel, pixel)),
        "shifted by 1 pixel": np.roll(floats, round(pixel), 3),
        "shifted by 2 and 1 pixels": np.roll(floats, (round(2 * pixel), round(pixel)), (2, 3)),
        "shifted by 4 pixels": np.roll(floats, round(4 * pixel), 3),
        "turned by 5 degrees": turn(5),
        "turned by 15 degrees": turn(15),
        "cropped by 1 pixel": crop(1),
        "cropped by 2 pixels": crop(2),
        "cropped by 5 pixels": crop(5),
        "mean of 2 training images": (floats + np.roll(floats, 1, 0)) / 2,
    }
    return {name: np.rint(one).clip(0, 255).astype(np.uint8) for name, one in ways.items()}


if __name__ == "__main__":
    main()
