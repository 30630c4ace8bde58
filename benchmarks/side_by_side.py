"""Real images beside the sample grids of runs, in one picture.

PYTHONPATH=. python benchmarks/side_by_side.py --out sheet.png RUN [RUN ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungan.data import build as data
from lungan.runs import folder as names
from lungan.runs import pictures
from lungan.training.loop import NUM_SAMPLES

SCALE = 2
HEADING_PIXELS = 26
GAP_PIXELS = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args()
    config = names.read_config(options.runs[0]).data
    real = data.load(config).select(config.splits, config.classes).images
    chosen = real[np.random.default_rng(0).choice(len(real), NUM_SAMPLES, replace=False)]
    parts = [_headed(pictures.grid(chosen), "real")]
    for run in options.runs:
        summary = names.read_summary(run)
        if summary is None:
            parser.error(f"{run} is not finished")
        sheet = cv2.imread(str(names.sample_path(run, summary["epochs_done"])))
        channels = real.shape[1]
        title = f"{summary['config']['optimizer']['name']}, {summary['epochs_done']} epochs"
        parts.append(_headed(sheet[..., ::-1][..., :channels], title))
    gap = np.full((parts[0].shape[0], GAP_PIXELS, parts[0].shape[2]), 255, np.uint8)
    row = [piece for part in parts for piece in (gap, part)][1:]
    pictures.write_png(options.out, np.hstack(row))


def _headed(sheet: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """The sheet enlarged, under its title."""
    large = sheet.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    heading = np.full((HEADING_PIXELS, *large.shape[1:]), 255, np.uint8)
    cv2.putText(heading, title, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([heading, large])


if __name__ == "__main__":
    main()
