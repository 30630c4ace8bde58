"""Phantom beside real radiographs: two contact sheets and a table of how much each varies.

python benchmarks/phantom_sheet.py --real ../shared/data/pneumoniamnist.npz
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray

from lungan.data.phantom import CLASS_NAMES, draw_factors
from lungan.data.phantom_drawing import draw_images

matplotlib.use("Agg")
from matplotlib import pyplot

Images = NDArray[np.uint8]
COMPONENTS = (1, 5, 20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", type=Path, required=True, help="pneumoniamnist.npz at 28 pixels")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    real, labels = read_real(arguments.real)
    factors = draw_factors(np.random.default_rng(arguments.seed), labels)
    start = time.process_time()
    phantom = draw_images(factors, 28)[:, 0]
    seconds = time.process_time() - start
    print(f"{len(phantom)} phantom images at 28 pixels: {seconds:.2f} s of one core\n")
    print_table(real, phantom, labels)

    rng = np.random.default_rng(arguments.seed)
    write_comparison(arguments.out / "phantom_28.png", real, phantom, labels, rng)
    some = np.concatenate([np.flatnonzero(labels == label)[4:12] for label in (0, 1)])
    drawn = draw_images(factors[some], 128)[:, 0]
    sheet = mosaic(drawn, columns=4, gap=2)
    cv2.imwrite(str(arguments.out / "phantom_128.png"), sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def read_real(path: Path) -> tuple[Images, NDArray[np.int64]]:
    with np.load(path, allow_pickle=False) as arrays:
        images = np.concatenate([arrays["train_images"], arrays["val_images"]])
        labels = np.concatenate([arrays["train_labels"], arrays["val_labels"]])
    return images, labels[:, 0].astype(np.int64)


def print_table(real: Images, phantom: Images, labels: NDArray[np.int64]) -> None:
    """Grey levels (0 to 255) unless said otherwise; percentiles over images."""
    print(
        "| class | images | mean p10/p50/p90 | contrast p10/p50/p90 "
        f"| nearest neighbour p10/p50/p90 | total variance | share of {COMPONENTS} components |"
    )
    print("|---|---|---|---|---|---|---|")
    for label, name in enumerate(CLASS_NAMES):
        for source, images in (("real", real), ("phantom", phantom)):
            pixels = images[labels == label].reshape(-1, 28 * 28).astype(np.float32)
            cells = [
                percentiles(pixels.mean(axis=1), 0),
                percentiles(pixels.std(axis=1), 0),
                percentiles(nearest(pixels), 1),
            ]
            spectrum = np.linalg.svd(pixels - pixels.mean(axis=0), compute_uv=False) ** 2
            shares = np.cumsum(spectrum) / spectrum.sum()
            cells.append(f"{spectrum.sum() / len(pixels) / 1000:.0f}e3")
            cells.append("/".join(f"{shares[count - 1]:.2f}" for count in COMPONENTS))
            print(f"| {name} | {source} | {' | '.join(cells)} |")


def percentiles(values: NDArray[np.float32], digits: int) -> str:
    return "/".join(f"{value:.{digits}f}" for value in np.percentile(values, [10, 50, 90]))


def nearest(pixels: NDArray[np.float32], num_images: int = 1200) -> NDArray[np.float32]:
    """Root mean square difference to the nearest other image among the first ``num_images``.

    Equal numbers, so that a larger class has no nearer neighbours for being larger; exact
    duplicates, which the real set has, are left out.
    """
    pixels = pixels[:num_images]
    squares = (pixels**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * pixels @ pixels.T
    distances[distances < 28 * 28] = np.inf
    return np.sqrt(distances.min(axis=1) / pixels.shape[1])


def mosaic(images: Images, columns: int, gap: int) -> Images:
    framed = np.pad(images, ((0, 0), (0, gap), (0, gap)))
    rows = [np.hstack(list(framed[i : i + columns])) for i in range(0, len(framed), columns)]
    return np.vstack(rows)


def write_comparison(
    path: Path,
    real: Images,
    phantom: Images,
    labels: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 4), layout="constrained")
    for row, name in zip(axes, CLASS_NAMES, strict=True):
        members = np.flatnonzero(labels == CLASS_NAMES.index(name))
        for axis, (source, images) in zip(row, (("real", real), ("phantom", phantom)), strict=True):
            some = rng.choice(members, 24, replace=False)
            axis.imshow(mosaic(images[some], columns=8, gap=1), cmap="gray", vmin=0, vmax=255)
            axis.set_title(f"{source}, {name}", fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
