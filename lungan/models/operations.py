"""Convolution and dropout by other means than PyTorch's, which are faster on CPUs.

This is the one place for such means, and ``benchmarks/tricks.py`` says what each of them saves:

- oneDNN's own gradients take most of a training step in bfloat16: the one for the kernel runs at a
  third of the speed of a matrix product, and the one for the input of a strided convolution at
  half. Here both are matrix products or convolutions of stride 1. In float32 they gain nothing,
  and oneDNN's are taken but where there are few channels.
- PyTorch's gradients of gradients, which gradient penalties need, convolve with whole feature maps
  as kernels. Here they are convolutions like any other.
- A transposed convolution of stride 2 is a convolution of stride 1 whose channels are blocks of
  2x2 pixels.
- Dropout compares 16 random bits a feature, in one pass over memory with the leaky ReLU before it.

On a GPU the convolution is PyTorch's; blocks and dropout are the same functions there.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_CHANNELS = 16
"""Fewer make matrices so narrow that oneDNN's own gradient for the kernel is as fast."""


def convolution(
    features: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    """``F.conv2d``, on a CPU the same function by other means. ``weight`` gets a gradient in its
    own precision under autocast too.

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
        ctx.sizes = stride, padding
        bias = None if bias is None else bias.to(kernel.dtype)
        return F.conv2d(features, kernel, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, kernel = ctx.saved_tensors
        (gradient,) = gradients
        for_features = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_features = _FeaturesGradient.apply(gradient, weight, kernel, *ctx.sizes)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1] and _wanted.kernels:
            for_weight = _kernel_gradient(features, gradient, kernel, *ctx.sizes).to(weight.dtype)
        if ctx.needs_input_grad[2] and _wanted.kernels:
            for_bias = gradient.sum((0, 2, 3), dtype=weight.dtype)
        return for_features, for_weight, for_bias, None, None, None


class _FeaturesGradient(torch.autograd.Function):
    """Linear in the gradient and in the kernel, like the convolution that it belongs to."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, kernel: Tensor, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(gradient, weight, kernel)
        ctx.sizes = stride, padding
        low = kernel.dtype == torch.bfloat16
        if stride == 2 and (low or kernel.shape[1] < FEW_CHANNELS):
            return from_blocks(F.conv2d(gradient, block_kernel(kernel, before=padding), padding=1))
        if stride == 1 and low:
            turned = kernel.flip(2, 3).transpose(0, 1)
            return F.conv2d(gradient, turned, padding=kernel.shape[-1] - 1 - padding)
        num, _, height, width = gradient.shape
        shape = (num, kernel.shape[1], stride * height, stride * width)
        features = gradient.new_empty(1).expand(shape)  # only its shape is read
        return _onednn_gradients(gradient, features, kernel, stride, padding)[0]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight, kernel = ctx.saved_tensors
        (direction,) = directions
        for_gradient = for_weight = None
        if ctx.needs_input_grad[0]:
            for_gradient = _Convolution.apply(direction, weight, None, kernel, *ctx.sizes)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1] and _wanted.kernels:
            for_weight = _kernel_gradient(direction, gradient, kernel, *ctx.sizes).to(weight.dtype)
        return for_gradient, for_weight, None, None, None


def _onednn_gradients(
    gradient: Tensor, features: Tensor, kernel: Tensor, stride: int, padding: int, *, of: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """oneDNN's gradients for features (``of=0``) or kernel (``of=1``), at that place."""
    strides, paddings, wanted = [stride] * 2, [padding] * 2, [of == 0, of == 1, False]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, features, kernel, None, strides, paddings, [1, 1], False, [0, 0], 1, wanted
    )


def _kernel_gradient(
    features: Tensor, gradient: Tensor, kernel: Tensor, stride: int, padding: int
) -> Tensor:
    """In bfloat16 a sum of matrix products, float32, one for each column of the result, over batch
    and rows.

    With features laid out (column, kernel row, channel), all that a column of the result reads is
    one slice, and taps that fall outside the image to the left and right cost nothing.
    """
    if kernel.dtype != torch.bfloat16 or len(kernel) < FEW_CHANNELS:
        return _onednn_gradients(gradient, features, kernel, stride, padding, of=1)[1]
    size = kernel.shape[-1]
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
