"""Leaky ReLU whose signs are constants to gradients of gradients, as they are almost everywhere.

PyTorch's own sends zeros back from there, through all layers before.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def leaky_relu(features: Tensor, slope: float, *, inplace: bool = True) -> Tensor:
    """``F.leaky_relu``; overwrites ``features`` unless told otherwise. slope: positive."""
    return _LeakyRelu.apply(features, slope, inplace)  # type: ignore[no-any-return, no-untyped-call]


class _LeakyRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: float, inplace: bool) -> Tensor:
        result = F.leaky_relu(features, slope, inplace)
        if inplace:
            ctx.mark_dirty(result)
        ctx.save_for_backward(result)
        ctx.slope = slope
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        # Not as autograd's result, which would differentiate with respect to the signs.
        kept = result.detach()
        return torch.ops.aten.leaky_relu_backward(gradients[0], kept, ctx.slope, False), None, None
