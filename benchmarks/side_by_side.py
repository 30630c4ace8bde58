"""Real images beside the sample grids of runs, in one picture.

PYTHONPATH=. python benchmarks/side_by_side.py --out sheet.png [--rows N] [TITLE=]RUN [...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lungan.data import build as data
from lungan.runs import pictures
from lungan.runs.folder import read_config, read_summary, sample_path
from lungan.training.loop import NUM_SAMPLES

SCALE = 2
HEADING_PIXELS = 26
GAP_PIXELS = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="[TITLE=]RUN", help="finished runs")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    parser.add_argument("--columns", type=int, default=2, metavar="N", help="sheets in a row (2)")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="of eight images (4)")
    options = parser.parse_args()
    runs = [_titled(text) for text in options.runs]
    config = read_config(runs[0][1]).data
    real = data.load(config).select(config.splits, config.classes).images
    chosen = real[np.random.default_rng(0).choice(len(real), NUM_SAMPLES, replace=False)]
    height = options.rows * (real.shape[2] + pictures.GAP_PIXELS) - pictures.GAP_PIXELS
    parts = [_headed(pictures.grid(chosen)[:height], "real")]
    for title, run in runs:
        summary = read_summary(run)
        if summary is None:
            parser.error(f"{run} is not finished")
        sheet = cv2.imread(str(sample_path(run, summary["epochs_done"])))
        channels = real.shape[1]
        title = title or summary["config"]["optimizer"]["name"]
        heading = f"{title}, {summary['epochs_done']} epochs"
        parts.append(_headed(sheet[:height, :, ::-1][..., :channels], heading))
    blank = np.full_like(parts[0], 255)
    parts += [blank] * (-len(parts) % options.columns)
    gap = np.full((parts[0].shape[0], GAP_PIXELS, parts[0].shape[2]), 255, np.uint8)
    rows = []
    for first in range(0, len(parts), options.columns):
        row = parts[first : first + options.columns]
        rows.append(np.hstack([piece for part in row for piece in (gap, part)][1:]))
    # Pillow finds that enlarged pixels repeat: half the size that OpenCV's file has.
    whole = np.vstack(rows)
    Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole).save(
        options.out, optimize=True
    )


def _titled(text: str) -> tuple[str, Path]:
    title, _, run = text.rpartition("=")
    return title, Path(run)


def _headed(sheet: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """The sheet enlarged, under its title."""
    large = sheet.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    heading = np.full((HEADING_PIXELS, *large.shape[1:]), 255, np.uint8)
    cv2.putText(heading, title, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([heading, large])


if __name__ == "__main__":
    main()
