"""The CPU's bfloat16 convolution against F.conv2d and its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lungan.models.operations import block_kernel, convolution, from_blocks


def tensors(channels: int, size: int, num_out: int, kernel: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(4, channels, size, size, generator=rng)
    weight = torch.randn(num_out, channels, kernel, kernel, generator=rng)
    bias = torch.randn(num_out, generator=rng)
    # Values that bfloat16 holds, so that only sums and results are rounded.
    return [t.bfloat16().float().requires_grad_() for t in (features, weight, bias)]


@pytest.mark.parametrize(
    ("channels", "size", "num_out", "kernel", "stride", "padding"),
    [(8, 7, 16, 5, 1, 2), (8, 14, 16, 5, 2, 2), (1, 28, 16, 5, 2, 2), (8, 8, 32, 3, 1, 1)],
)
def test_result_and_gradients_equal_float32(
    channels: int, size: int, num_out: int, kernel: int, stride: int, padding: int
) -> None:
    inputs = tensors(channels, size, num_out, kernel)
    wanted = F.conv2d(*inputs, stride=stride, padding=padding)
    upstream = torch.randn_like(wanted).bfloat16().float()
    wanted_gradients = torch.autograd.grad(wanted, inputs, upstream)
    with torch.autocast("cpu", torch.bfloat16):
        result = convolution(*inputs, stride=stride, padding=padding)
    assert result.dtype == torch.bfloat16
    gradients = torch.autograd.grad(result, inputs, upstream.bfloat16())
    for ours, reference in zip((result, *gradients), (wanted, *wanted_gradients), strict=True):
        error = (ours.float() - reference).norm() / reference.norm()
        assert error < 4e-3  # half a unit in bfloat16's last place is 2e-3


def test_without_autocast_it_is_conv2d() -> None:
    inputs = tensors(8, 7, 16, 5)
    assert torch.equal(convolution(*inputs, 1, 2), F.conv2d(*inputs, 1, 2))


@pytest.mark.parametrize("before", [1, 2])
def test_block_kernel_is_the_cropped_transposed_convolution(before: int) -> None:
    features, weight = torch.randn(2, 3, 5, 6).double(), torch.randn(3, 4, 5, 5).double()
    full = F.conv_transpose2d(features, weight, stride=2)
    after = 3 - before
    wanted = full[:, :, before:-after, before:-after]
    ours = from_blocks(F.conv2d(features, block_kernel(weight, before), padding=1))
    torch.testing.assert_close(ours, wanted)
