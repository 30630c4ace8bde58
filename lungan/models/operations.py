"""Transposed convolution and dropout by other means than PyTorch's, which are faster on CPUs.

``benchmarks/tricks.py`` says what each of them saves:

- A transposed convolution of stride 2 is a convolution of stride 1 whose channels are blocks of
  2x2 pixels.
- Dropout compares 16 random bits a feature, in one pass over memory with the leaky ReLU before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

RandomBits: TypeAlias = Callable[[int], Tensor]
"""Gives so many random bits, uniform int16 (count,) on the device of the networks, fresh at every
call."""


def block_kernel(weight: Tensor) -> Tensor:
    """The kernel (4 * out, in, 3, 3) that makes of one feature a 2x2 block of a map twice as large.

    It is the transposed convolution with stride 2 and ``weight`` (in, out, 5, 5), of which SAME
    padding crops one row and column before and two after. Channels of the result are (row in
    block, column in block, out). Of a 5-tap kernel, one row or column of a block reads
    three taps and the other two, so that a zero makes three pairs.

    Source: Shi et al. 2016, arXiv:1609.07009, that both forms are the same function.
    """
    num_in, num_out = weight.shape[:2]
    pairs = F.pad(weight, (1, 0, 1, 0)).reshape(num_in, num_out, 3, 2, 3, 2).flip(2, 4)
    kernel = pairs.permute(3, 5, 1, 0, 2, 4).reshape(4 * num_out, num_in, 3, 3)
    return kernel.contiguous(memory_format=torch.channels_last)


def from_blocks(blocks: Tensor) -> Tensor:
    """(N, 2 * 2 * C, H, W) to (N, C, 2H, 2W), channels-last."""
    num, channels, height, width = blocks.shape
    parts = blocks.permute(0, 2, 3, 1).reshape(num, height, width, 2, 2, channels // 4)
    images = parts.permute(0, 1, 3, 2, 4, 5).reshape(num, 2 * height, 2 * width, channels // 4)
    return images.permute(0, 3, 1, 2)


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
