"""What of real images' statistics generated ones lack: how far places fit together, and texture.

    python benchmarks/texture.py RUN [RUN ...] [--num-images N] [--json FILE|-]

left_right: correlation, over images, of the mean brightness of the leftmost and the rightmost
quarter. power: mean power spectrum over the real images', at the highest frequency across
(columns), down (rows) and in both (a checkerboard's); 1 is as real. rings_in_band: share of the
rings of frequencies up to Nyquist's in which the images' mean log power lies between the 2.5th and
97.5th percentile of real images' (the features of the encoder ``spectrum``, which the report of
scored runs draws). Real images are those that the run was trained on.
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
from lungan.generation.source import Source, read_source
from lungan.models.sampling import sample_images
from lungan.scores.texture import RadialSpectrum, spectra


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
    result = {}
    try:
        for run in options.runs:
            real, generated = images_of(read_source(run), options.num_images)
            both = {"real": real, "generated": generated}
            result[str(run)] = {kind: statistics(images, real) for kind, images in both.items()}
    except LunganError as error:
        parser.error(str(error))
    figures.write(result, options.json, print_table)


def images_of(source: Source, num_images: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Real images that the run was trained on, and ``num_images`` of its generator."""
    assert source.config is not None  # a run folder has one
    settings = source.config.data
    real = data.load(settings).select(settings.splits, settings.classes).images
    generated = sample_images(source.generator.eval(), num_images, 0, torch.device("cpu"))
    return real, generated.numpy()


def statistics(images: NDArray[np.uint8], real: NDArray[np.uint8]) -> dict[str, float]:
    quarter = images.shape[3] // 4
    left, right = images[..., :quarter], images[..., -quarter:]
    sides = [side.mean(axis=(1, 2, 3), dtype=np.float64) for side in (left, right)]
    half = images.shape[3] // 2
    places = {"across": (0, half), "down": (half, 0), "checkerboard": (half, half)}
    made, wanted = spectrum(images), spectrum(real)
    curves = spectra(*(radial_spectra(each) for each in (real, images)))
    low, mean, high = (
        np.array(curves[name]) for name in ("real_low", "generated_mean", "real_high")
    )
    return {
        "left_right": float(np.corrcoef(*sides)[0, 1]),
        **{f"power_{name}": float(made[at] / wanted[at]) for name, at in places.items()},
        "rings_in_band": float(((low <= mean) & (mean <= high)).mean()),
    }


def radial_spectra(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features (N, rings + 1) of the encoder ``spectrum``."""
    return RadialSpectrum(*images.shape[2:])(torch.from_numpy(images))[0].numpy()


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
