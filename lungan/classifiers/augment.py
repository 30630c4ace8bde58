"""Classical augmentation: small random changes of position and grey level, drawn for each image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION_DEGREES = 10.0
SCALE = 0.1
SHIFT = 0.07
BRIGHTNESS = 0.1
CONTRAST = 0.1

# No mirroring: a mirrored chest has its heart on the wrong side.


def augment(inputs: Tensor, rng: torch.Generator) -> Tensor:
    """inputs: (B, C, S, S) float32 in [-1, 1] on any device; ``rng`` on the CPU.

    Rotated, scaled and shifted about the centre, edges repeated; then brighter or darker, and with
    more or less contrast.
    """
    draws = (2 * torch.rand(6, len(inputs), generator=rng) - 1).to(inputs.device)
    angle = draws[0] * math.radians(ROTATION_DEGREES)
    scale = 1 + draws[1] * SCALE
    shift = 2 * SHIFT * draws[2:4]  # affine_grid's coordinates run from -1 to 1
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cosine, -sine, shift[0]], 1), torch.stack([sine, cosine, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(inputs.shape), align_corners=False)
    moved = F.grid_sample(inputs, grid, padding_mode="border", align_corners=False)
    shape = (-1, 1, 1, 1)
    contrast = 1 + draws[4].view(shape) * CONTRAST
    brightness = draws[5].view(shape) * BRIGHTNESS
    return (moved * contrast + brightness).clamp(-1, 1)
