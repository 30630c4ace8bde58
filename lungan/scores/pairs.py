"""A picture of the generated images that come closest to training images, for the eye to judge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungan.scores.memorization import Nearness

PAIRS = 16
PAIRS_A_ROW = 8
GAP_PIXELS = 2
ROW_GAP_PIXELS = 8


def closest_pairs(
    generated: NDArray[np.uint8], training: NDArray[np.uint8], nearness: Nearness
) -> NDArray[np.uint8]:
    """Up to 16 pairs, closest first, 8 a row: the generated image above its training image.

    generated, training: (N, C, H, W) uint8, ``nearness`` of the first to the second.
    Gives (height, width, C) uint8.
    """
    chosen = np.argsort(nearness.distance, kind="stable")[:PAIRS]
    _, channels, height, width = generated.shape
    pair_height = 2 * height + GAP_PIXELS
    num_rows = -(-len(chosen) // PAIRS_A_ROW)
    num_columns = min(len(chosen), PAIRS_A_ROW)
    sheet = np.full(
        (
            num_rows * (pair_height + ROW_GAP_PIXELS) - ROW_GAP_PIXELS,
            num_columns * (width + GAP_PIXELS) - GAP_PIXELS,
            channels,
        ),
        255,
        dtype=np.uint8,
    )
    for place, index in enumerate(chosen):
        top = place // PAIRS_A_ROW * (pair_height + ROW_GAP_PIXELS)
        left = place % PAIRS_A_ROW * (width + GAP_PIXELS)
        below = top + height + GAP_PIXELS
        columns = slice(left, left + width)
        sheet[top : top + height, columns] = generated[index].transpose(1, 2, 0)
        nearest = training[nearness.index[index]]
        sheet[below : below + height, columns] = nearest.transpose(1, 2, 0)
    return sheet
