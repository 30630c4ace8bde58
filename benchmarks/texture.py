"""What of real images' statistics generated ones lack: how far places fit together, and texture.

    python benchmarks/texture.py RUN [RUN ...] [--num-images N] [--json FILE|-]

left_right: correlation, over images, of the mean brightness of the leftmost and the rightmost
quarter. power: mean power spectrum over the real images', at the highest frequency across
(columns), down (rows) and in both (a checkerboard's); 1 is as real. Real images are those that the
run was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch
from numpy.typing import NDArray

from lungan.data import build as data
from lungan.errors import LunganError
from lungan.generation.making import divide
from lungan.generation.source import Source, read_source
from lungan.models.sampling import BLOCK_SIZE, sample_block


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished runs")
    parser.add_argument("--num-images", type=int, default=1792, metavar="N", help="(1792)")
    figures.add_json_option(parser)
    options = parser.parse_args()
    for path in options.runs:
        if not path.is_dir():
            parser.error(f"{path} is not a run folder, which says what it was trained on")
    try:
        result = {str(run): measure(read_source(run), options.num_images) for run in options.runs}
    except LunganError as error:
        parser.error(str(error))
    figures.write(result, options.json, print_table)


def measure(source: Source, num_images: int) -> dict[str, dict[str, float]]:
    assert source.config is not None  # a run folder has one
    settings = source.config.data
    real = data.load(settings).select(settings.splits, settings.classes).images
    generated = made_by(source, num_images)
    return {"real": statistics(real, real), "generated": statistics(generated, real)}


def made_by(source: Source, num_images: int) -> NDArray[np.uint8]:
    """Classes in the shares that the source has."""
    parts = []
    for name, count in divide(num_images, source.class_names, source.shares).items():
        blocks = [
            sample_block(source.generator.eval(), 0, source.label_of(name), k, torch.device("cpu"))
            for k in range(-(-count // BLOCK_SIZE))
        ]
        parts.append(np.concatenate(blocks)[:count])
    return np.concatenate(parts)


def statistics(images: NDArray[np.uint8], real: NDArray[np.uint8]) -> dict[str, float]:
    quarter = images.shape[3] // 4
    left, right = images[..., :quarter], images[..., -quarter:]
    sides = [side.mean(axis=(1, 2, 3), dtype=np.float64) for side in (left, right)]
    power = spectrum(images) / spectrum(real)
    half = images.shape[3] // 2
    return {
        "left_right": float(np.corrcoef(*sides)[0, 1]),
        "power_across": float(power[0, half]),
        "power_down": float(power[half, 0]),
        "power_checkerboard": float(power[half, half]),
    }


def spectrum(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W): power at each frequency, mean over images and channels, each image about its mean."""
    values = images.astype(np.float64)
    values -= values.mean(axis=(2, 3), keepdims=True)
    power: NDArray[np.float64] = (np.abs(np.fft.fft2(values)) ** 2).mean(axis=(0, 1))
    return power


def print_table(result: Any) -> None:
    heads = list(next(iter(result.values()))["real"])
    print(f"{'':64}" + "".join(f"{head:>20}" for head in heads))
    for name, rows in result.items():
        for kind, values in rows.items():
            title = name if kind == "generated" else "real images of the next"
            print(f"{title[-64:]:64}" + "".join(f"{value:20.3f}" for value in values.values()))


if __name__ == "__main__":
    main()
