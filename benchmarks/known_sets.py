"""The scores of sets of images whose nature is known, without any GAN: the table of docs/scores.md.

    python benchmarks/known_sets.py PNEUMONIAMNIST.npz OUT.csv

Reference: the pneumonia images of train and val; held out: those of test, of which the scores of
memorization need 100. A row a score: its value for each set, and the floor's median and 95 % range
at the largest N.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from lungan.config import presets
from lungan.data.build import read_images
from lungan.scores import catalogue
from lungan.scores.domain import load_encoder
from lungan.scores.evaluate import choose_real, score_images
from lungan.scores.memorization import FEWEST_HELD_OUT_FOR_SHARE

SPLITS = ["train", "val"]
NORMAL, PNEUMONIA = "0", "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    options = parser.parse_args()
    images = read_images(options.data)
    num_held_out = len(choose_real(images, SPLITS, [PNEUMONIA]).held_out)
    if num_held_out < FEWEST_HELD_OUT_FOR_SHARE:
        parser.error(
            f"{options.data} must have at least {FEWEST_HELD_OUT_FOR_SHARE} different images of "
            f"class {PNEUMONIA} in test that are in neither train nor val, got {num_held_out}; "
            "give PneumoniaMNIST's .npz, or one with more test images"
        )
    encoder = load_encoder(images, torch.device("cpu"))
    print("; ".join(encoder.notes))
    rng = np.random.default_rng(0)
    pneumonia = images.select(SPLITS, [PNEUMONIA]).images
    training = pneumonia[rng.permutation(len(pneumonia))[: len(pneumonia) // 2]]
    noisy = training + rng.normal(0, 10, training.shape)
    sets = {
        "training images": training,
        "training images + noise of 10 levels": np.rint(noisy).clip(0, 255).astype(np.uint8),
        "unseen test images": images.select(["test"], [PNEUMONIA]).images,
        "normal lungs": images.select(SPLITS, [NORMAL]).images,
        "white noise": rng.integers(0, 256, training.shape, dtype=np.uint8),
    }
    config = presets.load("score", "standard")
    rows: dict[str, dict[str, str]] = {}
    for name, one in sets.items():
        result = score_images(
            one, images, splits=SPLITS, classes=[PNEUMONIA], config=config, encoders=[encoder]
        )
        values = result["values"]
        for key in sorted(filter(catalogue.is_score, values), key=catalogue.order):
            row = rows.setdefault(key, {"score": key})
            for end in ("", "_low", "_high"):
                floor = values.get(f"{catalogue.floor_key(key)}{end}")
                row.setdefault(f"floor{end}", "" if floor is None else f"{floor:.4g}")
            row[f"{name} (N = {result['num_images']})"] = f"{values[key]:.4g}"
        print(name, f"{result['seconds']:.0f} s", flush=True)
    header = {name: None for row in rows.values() for name in row}
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(header), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


if __name__ == "__main__":
    main()
