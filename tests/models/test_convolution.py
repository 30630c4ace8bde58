"""A transposed convolution as blocks against PyTorch's."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from lungan.models.operations import block_kernel, from_blocks


def test_block_kernel_is_the_cropped_transposed_convolution() -> None:
    features, weight = torch.randn(2, 3, 5, 6).double(), torch.randn(3, 4, 5, 5).double()
    full = F.conv_transpose2d(features, weight, stride=2)
    ours = from_blocks(F.conv2d(features, block_kernel(weight), padding=1))
    torch.testing.assert_close(ours, full[:, :, 1:-2, 1:-2])
