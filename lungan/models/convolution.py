"""Convolution of channels-last maps on CPUs: gradients faster than oneDNN's, to second order.

oneDNN's own gradients take most of a training step in bfloat16: the one for the kernel runs at a
third of the speed of a matrix product, and the one for the input of a strided convolution at half.
PyTorch's gradients of gradients, which gradient penalties need, convolve with whole feature maps
as kernels.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_CHANNELS = 16
"""Fewer make matrices so narrow that oneDNN's own gradient for the kernel is as fast."""


def convolution(
    features: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """``F.conv2d``, on a CPU the same function by other means. ``weight`` gets a gradient in its
    own precision under autocast too, and one that cannot be differentiated.

    stride 2 is for kernels of 5x5 and features of even height and width.
    """
    if features.device.type != "cpu":
        return F.conv2d(features, weight, bias, stride, padding)
    low = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if low else weight.dtype
    kernel = weight.detach().to(dtype)
    return _Convolution.apply(features.to(dtype), weight, bias, kernel, stride, padding)  # type: ignore[no-any-return, no-untyped-call]


@contextlib.contextmanager
def no_kernel_gradients() -> Iterator[None]:
    """Inside, backward passes leave out the gradients for convolutions' kernels and biases.

    For gradients with respect to images: autograd does not tell its functions what was asked for.
    """
    _wanted.kernels = False
    try:
        yield
    finally:
        _wanted.kernels = True


class _Wanted(threading.local):
    kernels = True


_wanted = _Wanted()


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
    """``kernel`` is ``weight`` in the precision to compute in."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        kernel: Tensor,
        stride: int,
        padding: int,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, kernel)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(
            features, kernel, None if bias is None else bias.to(kernel.dtype), stride, padding
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, kernel = ctx.saved_tensors
        gradient, sizes = gradients[0], (ctx.stride, ctx.padding)
        for_features = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_features = _FeaturesGradient.apply(gradient, weight, kernel, *sizes)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1] and _wanted.kernels:
            for_weight = _KernelGradient.apply(features, gradient, kernel, weight.dtype, *sizes)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[2] and _wanted.kernels:
            for_bias = gradient.sum((0, 2, 3), dtype=weight.dtype)
        return for_features, for_weight, for_bias, None, None, None


class _FeaturesGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, kernel: Tensor, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(gradient, weight, kernel)
        ctx.stride, ctx.padding = stride, padding
        return _features_gradient(gradient, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight, kernel = ctx.saved_tensors
        direction, sizes = directions[0], (ctx.stride, ctx.padding)
        for_gradient = for_weight = None
        if ctx.needs_input_grad[0]:
            for_gradient = _Convolution.apply(direction, weight, None, kernel, *sizes)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1] and _wanted.kernels:
            for_weight = _KernelGradient.apply(direction, gradient, kernel, weight.dtype, *sizes)  # type: ignore[no-untyped-call]
        return for_gradient, for_weight, None, None, None


class _KernelGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        _: Any,
        features: Tensor,
        gradient: Tensor,
        kernel: Tensor,
        dtype: torch.dtype,
        stride: int,
        padding: int,
    ) -> Tensor:
        if kernel.dtype == torch.bfloat16 and len(kernel) >= FEW_CHANNELS:
            return _kernel_gradient(features, gradient, kernel.shape[-1], stride, padding)
        wanted = [False, True, False]
        return _own_gradients(gradient, features, kernel, stride, padding, wanted)[1].to(dtype)

    @staticmethod
    def backward(*_: Any) -> tuple[None, ...]:
        raise RuntimeError("a kernel's gradient cannot be differentiated")


def _features_gradient(gradient: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    low = kernel.dtype == torch.bfloat16
    if stride == 2 and (low or kernel.shape[1] < FEW_CHANNELS):
        return from_blocks(F.conv2d(gradient, block_kernel(kernel, before=padding), padding=1))
    if stride == 1 and low:
        turned = kernel.flip(2, 3).transpose(0, 1)
        return F.conv2d(gradient, turned, padding=kernel.shape[-1] - 1 - padding)
    num, _, height, width = gradient.shape
    features = gradient.new_empty(1).expand(num, kernel.shape[1], stride * height, stride * width)
    return _own_gradients(gradient, features, kernel, stride, padding, [True, False, False])[0]


def _own_gradients(
    gradient: Tensor,
    features: Tensor,
    kernel: Tensor,
    stride: int,
    padding: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """oneDNN's gradients for features, kernel and bias."""
    strides, paddings = [stride] * 2, [padding] * 2
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, features, kernel, None, strides, paddings, [1, 1], False, [0, 0], 1, wanted
    )


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
