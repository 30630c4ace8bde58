"""Do floors and distances depend on the seed that the in-domain encoder was trained with?

    python benchmarks/encoder_stability.py DATA.npz OUT.csv [--seeds 20] [--updates 150]

Trains the encoder with each seed on the train split, with and without labels, and takes Fréchet
distances between the halves of one class's training images: over random halves (the floor), and
with one half changed in a known way. A row a seed: the encoder's notes, the floor's median, its
97.5 % quantile over the median, and each distance over the median; in the encoder's whitened
features and, as ``raw``, in those before whitening.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lungan.data.build import read_images
from lungan.scores.distances import frechet_distance
from lungan.scores.domain import RECIPE, load_encoder
from lungan.scores.encoders import Encoder

SPLITS = 100

Images = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="an .npz with train_images and train_labels 0, 1")
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--updates", type=int, help="of each training (as many as scoring makes)")
    options = parser.parse_args()
    images = read_images(options.data)
    unlabelled = dataclasses.replace(
        images, labels=np.zeros(len(images), dtype=np.int64), class_names=("all",)
    )
    train = images.select(["train"], [])
    members = train.images[train.labels == 1]
    members = members[np.random.default_rng(0).permutation(len(members))]
    count = len(members) // 2
    changed = change(members[count : 2 * count], train.images[train.labels == 0])
    recipe = RECIPE
    if options.updates:
        updates = options.updates
        recipe = dataclasses.replace(RECIPE, min_updates=updates, max_updates=updates)
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = None
        for seed in range(options.seeds):
            for name, seen in (("with", images), ("without", unlabelled)):
                encoder = load_encoder(
                    seen, torch.device("cpu"), dataclasses.replace(recipe, seed=seed)
                )
                row = {"labels": name, "seed": seed, "notes": "; ".join(encoder.notes)}
                row |= measure(encoder, members[:count], changed)
                if writer is None:
                    writer = csv.DictWriter(stream, row, lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                stream.flush()


def change(images: Images, other_class: Images) -> dict[str, Images]:
    """``images`` (N, C, H, W), and these changed in ways that a score should see more or less."""
    rng = np.random.default_rng(0)
    floats = images.astype(float)
    light = floats.mean(axis=(1, 2, 3))
    tenth = len(images) // 10
    changed = {
        "unchanged": floats,
        "noise_4": floats + rng.normal(0, 4, images.shape),
        "blur_0.7": ndimage.gaussian_filter(floats, (0, 0, 0.7, 0.7)),
        "brightness_10": floats + 10,
        "mirrored": floats[..., ::-1],
        "lighter_half_twice": np.repeat(floats[light > np.median(light)], 2, axis=0),
        "50_repeated": floats[rng.integers(0, 50, len(images))],
        "a_tenth_of_another_class": np.concatenate([floats[tenth:], other_class[:tenth]]),
    }
    return {name: np.rint(one).clip(0, 255).astype(np.uint8) for name, one in changed.items()}


def measure(encoder: Encoder, reference: Images, changed: Mapping[str, Images]) -> dict[str, float]:
    real = encoder.encode(reference, 256).features.astype(np.float64)
    others = {name: encoder.encode(one, 256).features for name, one in changed.items()}
    back = np.linalg.inv(encoder.network.whitening.double().numpy())
    row: dict[str, float] = {}
    for space, matrix in (("whitened", np.eye(len(back))), ("raw", back)):
        whole = np.concatenate([real, others["unchanged"]]) @ matrix
        rng = np.random.default_rng(1)
        orders = [rng.permutation(len(whole)) for _ in range(SPLITS)]
        half = len(real)
        floor = [frechet_distance(whole[one[:half]], whole[one[half:]]) for one in orders]
        median = float(np.median(floor))
        row[f"{space}.floor"] = median
        row[f"{space}.floor_high"] = float(np.quantile(floor, 0.975)) / median
        for name, features in others.items():
            distance = frechet_distance(real @ matrix, features @ matrix)
            row[f"{space}.{name}"] = distance / median
    return {key: float(f"{value:.4g}") for key, value in row.items()}


if __name__ == "__main__":
    main()
