"""Dropout after a leaky ReLU, in few passes over memory and with random bits from outside."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class RandomBits(Protocol):
    """A source of random bits, fresh at every call."""

    def __call__(self, count: int) -> Tensor:
        """Uniform int16 (count,), on the device of the networks."""
        ...


def threshold(probability: float) -> int:
    """How many of the 65536 values of 16 random bits mean "dropped"."""
    return round(probability * 65536)


def survivors_scale(probability: float) -> float:
    """What keeps the expectation of a dropped-out feature, for the probability as rounded."""
    return 65536 / (65536 - threshold(probability))


def leaky_dropout(features: Tensor, slope: float, probability: float, bits: RandomBits) -> Tensor:
    """Leaky ReLU and dropout without the survivors' scale; overwrites ``features`` (N, C, H, W)."""
    num, channels, height, width = features.shape
    # Compared in place, bits become 0 and 1 of int16, which is vectorized; booleans are not.
    kept = bits(features.numel()).ge_(threshold(probability) - 32768)
    mask = kept.view(num, height, width, channels).permute(0, 3, 1, 2)
    return _LeakyDropout.apply(features, mask, slope)  # type: ignore[no-any-return, no-untyped-call]


class _LeakyDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, mask: Tensor, slope: float) -> Tensor:
        F.leaky_relu_(features, slope)
        _apply_mask(features, mask)
        ctx.mark_dirty(features)
        ctx.save_for_backward(features, mask)
        ctx.slope = slope
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        features, mask = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradients[0], features, ctx.slope, True)
        _apply_mask(gradient, mask)
        return gradient, None, None


def _apply_mask(features: Tensor, mask: Tensor) -> None:
    if features.dtype == torch.bfloat16:
        # The bits of a bfloat16 times 0 or 1 as integers: no conversion, one vectorized pass.
        features.view(torch.int16).mul_(mask)
    else:
        features.mul_(mask)
