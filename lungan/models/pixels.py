"""Pixels as networks take and give them, [-1, 1], and as files hold them, 0 to 255."""

from __future__ import annotations

import torch
from torch import Tensor


def to_floats(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8, or floats from 0 to 255, as floats in [-1, 1]."""
    return (images.float() / 127.5 - 1).to(dtype)


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] as uint8, rounded; what lies outside is clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
