"""Which weights of a classifier to take, and which recipe, without a look at validation or test.

Real images alone are trained on; every choice is measured on training images that the fraction left
out, which neither train, validation nor test has. ``best_look`` keeps the best of ten looks at the
few validation images of the fraction, as lungan 0.1 did.

    python benchmarks/classifier_weights.py pneumoniamnist.npz --seeds 100,101 --updates 100,200
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from lungan.classifiers.measures import area_under_curve
from lungan.classifiers.network import Classifier, build_classifier
from lungan.classifiers.train import Labelled, Recipe, descend, probabilities_of, shuffled_batches
from lungan.config import compose
from lungan.data.images import LEFT_OUT, keep_fraction
from lungan.device import native_dtype
from lungan.utility.images import TRAIN, VALIDATION, RealImages, Scenario, read_real

CPU = torch.device("cpu")
SHARES = (0.1, 0.25, 0.5)
LOOKS = 10
NUM_MEASURED = 1000
COLUMNS = ("last", *(f"average_{share:g}" for share in SHARES), "best_look")


def auc(network: Classifier, images: Labelled) -> float:
    return area_under_curve(probabilities_of(network, images.images, CPU)[:, 1], images.labels == 1)


def likelihood(network: Classifier, images: Labelled) -> float:
    """What decides between looks of equal AUC."""
    probabilities = probabilities_of(network, images.images, CPU)
    chosen = probabilities[np.arange(len(images)), images.labels]
    return float(np.log(chosen.clip(min=1e-12)).mean())


def compare(real: RealImages, fraction: float, recipe: Recipe, seed: int) -> dict[str, float]:
    """AUC on left-out training images of each way to choose weights, by COLUMNS."""
    train = real.draw(TRAIN, Scenario(fraction), seed)
    validation = real.draw(VALIDATION, Scenario(fraction), seed)
    rest = keep_fraction(real.image_set, [TRAIN], fraction, seed).select([LEFT_OUT], [])
    rows = np.random.default_rng(seed).permutation(len(rest))[:NUM_MEASURED]
    measured = Labelled(rest.images[rows], rest.labels[rows])
    network = build_classifier(recipe.classifier, rest.size, rest.channels, 2, seed)
    images, labels = torch.from_numpy(train.images), torch.from_numpy(train.labels)
    rng = torch.Generator().manual_seed(seed)
    batches = shuffled_batches(len(train), recipe.batch_size, rng)
    dtype = native_dtype(CPU)

    def loss() -> Tensor:
        chosen = next(batches)
        inputs = network.preprocess(images[chosen]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            _, logits = network.classify(inputs)
        return F.cross_entropy(logits.float(), labels[chosen])

    averages = {share: AveragedModel(network, use_buffers=True) for share in SHARES}
    looks: list[tuple[float, float, float]] = []
    for update in descend(network, recipe, recipe.updates, loss):
        for share, average in averages.items():
            if update > recipe.updates - round(share * recipe.updates):
                average.update_parameters(network)
        if update % (recipe.updates // LOOKS) == 0:
            looks.append(
                (auc(network, validation), likelihood(network, validation), auc(network, measured))
            )
            network.train()
    best = max(looks, key=lambda look: look[:2])
    found = [looks[-1][2], *(auc(one.module, measured) for one in averages.values())]
    return dict(zip(COLUMNS, [*found, best[2]], strict=True))


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="pneumoniamnist.npz")
    parser.add_argument("--seeds", type=numbers, default=[100, 101])
    parser.add_argument("--fractions", type=numbers, default=[0.05])
    parser.add_argument("--updates", type=numbers, default=[100, 200])
    parser.add_argument("--peak-lrs", type=numbers, default=[0.05, 0.2])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("results/classifier_weights"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with compose.composer():
        config = compose.compose(["data=pneumoniamnist", f"data.path={options.data}"])
    real = read_real(config.data)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "pneumoniamnist.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fraction", "seed", "batch_size", "updates", "peak_lr", *COLUMNS])
        for seed, fraction, updates, peak_lr in itertools.product(
            options.seeds, options.fractions, options.updates, options.peak_lrs
        ):
            recipe = Recipe(updates=int(updates), batch_size=options.batch_size, peak_lr=peak_lr)
            found = compare(real, fraction, recipe, int(seed))
            row = [fraction, int(seed), options.batch_size, int(updates), peak_lr]
            writer.writerow([*row, *(f"{value:.4f}" for value in found.values())])
            file.flush()


if __name__ == "__main__":
    main()
