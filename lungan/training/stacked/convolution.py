"""Convolutions of R networks at once, on maps whose channels are (run, channel).

Maps are (N, R * C, H, W), channels-last: in memory (N, H, W, R, C). On a CPU they are grouped
convolutions. On a GPU, where those leave most of the tensor cores idle, they are batched matrix
products over patches: strides into and out of the products are the map's own, so only patches are
copied.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def convolution(
    features: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """features: (N, R * C, H, W). weight: (R, C', C, k, k). bias: (R, C').

    stride: 1, or 2 with even H and W.
    """
    if features.device.type == "cpu":
        flat_bias = None if bias is None else bias.reshape(-1)
        return F.conv2d(
            features, weight.flatten(0, 1), flat_bias, stride, padding, groups=len(weight)
        )
    return product_convolution(features, weight, bias, stride, padding)


def product_convolution(
    features: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """``convolution`` by matrix products, on any device."""
    device = features.device.type
    dtype = features.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    result: Tensor = _Products.apply(  # type: ignore[no-untyped-call]
        features.to(dtype), weight.to(dtype), stride, padding
    )
    if bias is None:
        return result
    return result + bias.to(dtype).reshape(1, -1, 1, 1)


def transposed_kernel(weight: Tensor) -> Tensor:
    """The kernels (R, C', C, k, k) of convolutions that are the transposed ones with stride 1 and
    ``weight`` (R, C, C', k, k)."""
    return weight.flip(3, 4).transpose(1, 2)


def block_kernel(weight: Tensor, before: int) -> Tensor:
    """The kernels (R, 4 * C', C, 3, 3) that give each feature's 2x2 block of a map twice as large.

    They are the transposed convolutions with stride 2 and ``weight`` (R, C, C', 5, 5), of whose
    result ``before`` rows and columns are cropped before, 3 - ``before`` after.

    Source: Shi et al. 2016, arXiv:1609.07009, that both forms are the same function.
    """
    num_runs, num_in, num_out = weight.shape[:3]
    zero = (1, 0) if before == 1 else (0, 1)
    pairs = F.pad(weight, zero + zero).reshape(num_runs, num_in, num_out, 3, 2, 3, 2).flip(3, 5)
    kernel = pairs.permute(0, 4, 6, 2, 1, 3, 5)
    return kernel.reshape(num_runs, 4 * num_out, num_in, 3, 3)


def from_blocks(blocks: Tensor, num_runs: int) -> Tensor:
    """(N, R * 2 * 2 * C, H, W) to (N, R * C, 2H, 2W), channels-last."""
    num, channels, height, width = blocks.shape
    num_out = channels // (4 * num_runs)
    parts = blocks.permute(0, 2, 3, 1).reshape(num, height, width, num_runs, 2, 2, num_out)
    maps = parts.permute(0, 1, 4, 2, 5, 3, 6)
    return maps.reshape(num, 2 * height, 2 * width, num_runs * num_out).permute(0, 3, 1, 2)


class _Products(torch.autograd.Function):
    """Patches are made anew for the backward pass: kept, they would be most of the memory."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.stride, ctx.padding = stride, padding
        return _convolve(features, weight, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight = ctx.saved_tensors
        size, num_runs = weight.shape[-1], len(weight)
        for_features = for_weight = None
        if ctx.needs_input_grad[0]:
            if ctx.stride == 1:
                kernel = transposed_kernel(weight)
                for_features = _convolve(gradients[0], kernel, 1, size - 1 - ctx.padding)
            else:
                blocks = _convolve(gradients[0], block_kernel(weight, ctx.padding), 1, 1)
                for_features = from_blocks(blocks, num_runs)
        if ctx.needs_input_grad[1]:
            patches = _patches(features, num_runs, size, ctx.stride, ctx.padding)
            product = torch.bmm(patches.transpose(1, 2), _rows(gradients[0], num_runs))
            channels = weight.shape[2]
            for_weight = product.view(num_runs, size, size, channels, -1).permute(0, 4, 3, 1, 2)
        return for_features, for_weight, None, None


def _convolve(features: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    num_runs, num_out, _, size, _ = weight.shape
    num, _, height, width = features.shape
    patches = _patches(features, num_runs, size, stride, padding)
    kernels = weight.permute(0, 3, 4, 2, 1).reshape(num_runs, patches.shape[2], num_out)
    sides = [(side + 2 * padding - size) // stride + 1 for side in (height, width)]
    result = features.new_empty(num, *sides, num_runs, num_out)
    torch.bmm(patches, kernels, out=result.view(-1, num_runs, num_out).transpose(0, 1))
    return result.flatten(3).permute(0, 3, 1, 2)


def _patches(features: Tensor, num_runs: int, size: int, stride: int, padding: int) -> Tensor:
    """What each position of the result reads: (R, N * H' * W', size * size * C)."""
    padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    num, height, width, channels = padded.shape
    maps = padded.reshape(num, height, width, num_runs, channels // num_runs)
    windows = maps.unfold(1, size, stride).unfold(
        2, size, stride
    )  # (N, H', W', R, C, rows, columns)
    return windows.permute(3, 0, 1, 2, 5, 6, 4).reshape(
        num_runs, -1, size * size * (channels // num_runs)
    )


def _rows(maps: Tensor, num_runs: int) -> Tensor:
    """(N, R * C, H, W) as (R, N * H * W, C), without a copy where it is channels-last."""
    flat = maps.permute(0, 2, 3, 1)
    return flat.reshape(-1, num_runs, flat.shape[-1] // num_runs).transpose(0, 1)
