"""Convolution of channels-last maps, with gradients that suit CPUs which multiply in bfloat16.

oneDNN's own gradients take most of a training step there: the one for the kernel runs at a third
of the speed of a matrix product, and the one for the input of a strided convolution at half.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolution(
    features: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """``F.conv2d``, the same function by other means where bfloat16 autocast is on for a CPU."""
    on_cpu = features.device.type == "cpu"
    if not (on_cpu and torch.is_autocast_enabled("cpu") and len(weight) >= 16):
        return F.conv2d(features, weight, bias, stride, padding)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return _Convolution.apply(features, weight, bias, stride, padding)  # type: ignore[no-any-return, no-untyped-call]


def block_kernel(weight: Tensor, before: int) -> Tensor:
    """The kernel (4 * out, in, 3, 3) that makes of one feature a 2x2 block of a map twice as large.

    It is the transposed convolution with stride 2 and ``weight`` (in, out, 5, 5), of which
    ``before`` rows and columns are cropped before and 3 - ``before`` after. Channels of the result
    are (row in block, column in block, out). Of a 5-tap kernel, one row or column of a block reads
    three taps and the other two, so that a zero makes three pairs.

    Source: Shi et al. 2016, arXiv:1609.07009, that both forms are the same function.
    """
    num_in, num_out = weight.shape[:2]
    zero = (1, 0) if before == 1 else (0, 1)
    pairs = F.pad(weight, zero + zero).reshape(num_in, num_out, 3, 2, 3, 2).flip(2, 4)
    kernel = pairs.permute(3, 5, 1, 0, 2, 4).reshape(4 * num_out, num_in, 3, 3)
    return kernel.contiguous(memory_format=torch.channels_last)


def from_blocks(blocks: Tensor) -> Tensor:
    """(N, 2 * 2 * C, H, W) to (N, C, 2H, 2W), channels-last."""
    num, channels, height, width = blocks.shape
    parts = blocks.permute(0, 2, 3, 1).reshape(num, height, width, 2, 2, channels // 4)
    images = parts.permute(0, 1, 3, 2, 4, 5).reshape(num, 2 * height, 2 * width, channels // 4)
    return images.permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """Kernel and bias come in float32, and so do their gradients."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int
    ) -> Tensor:
        low = torch.bfloat16
        features, kernel = features.to(low), weight.to(low)
        ctx.save_for_backward(features, kernel)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(features, kernel, bias.to(low), stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, kernel = ctx.saved_tensors
        gradient = gradients[0]
        for_features = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_features = _features_gradient(gradient, kernel, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            for_weight = _kernel_gradient(
                features, gradient, kernel.shape[-1], ctx.stride, ctx.padding
            )
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3), dtype=torch.float32)
        return for_features, for_weight, for_bias, None, None


def _features_gradient(gradient: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    if stride == 1:
        turned = kernel.flip(2, 3).transpose(0, 1)
        return F.conv2d(gradient, turned, padding=kernel.shape[-1] - 1 - padding)
    return from_blocks(F.conv2d(gradient, block_kernel(kernel, before=padding), padding=1))


def _kernel_gradient(
    features: Tensor, gradient: Tensor, size: int, stride: int, padding: int
) -> Tensor:
    """A sum of matrix products, one for each column of the result, over batch and rows.

    With features laid out (column, kernel row, channel), all that a column of the result reads is
    one slice, and taps that fall outside the image to the left and right cost nothing.
    """
    num, channels, height, width = features.shape
    num_out, out_height, out_width = gradient.shape[1:]
    padded = features.new_zeros(height + 2 * padding, width, channels, num)
    padded[padding : padding + height] = features.permute(2, 3, 1, 0)
    row, column, channel, image = padded.stride()
    windows = padded.as_strided(
        (width, size, channels, out_height, num), (column, row, channel, stride * row, image)
    ).reshape(width, size * channels, out_height * num)
    columns = gradient.permute(3, 2, 0, 1).reshape(out_width, out_height * num, num_out)
    total = features.new_zeros(size, size * channels, num_out, dtype=torch.float32)
    for x in range(out_width):
        left = stride * x - padding
        first, end = max(left, 0), min(left + size, width)
        product = windows[first:end].flatten(0, 1) @ columns[x]
        total[first - left : end - left] += product.view(end - first, -1, num_out)
    return total.view(size, size, channels, num_out).permute(3, 2, 1, 0)
