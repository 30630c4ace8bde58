"""Stacked convolutions against PyTorch's own, run by run, both forms of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lungan.training.stacked.convolution import (
    block_kernel,
    convolution,
    from_blocks,
    product_convolution,
    transposed_kernel,
)

NUM_RUNS, NUM, NUM_IN, NUM_OUT = 3, 2, 4, 5
Form = Callable[[Tensor, Tensor, Tensor | None, int, int], Tensor]


def random(*shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def apart(maps: Tensor) -> list[Tensor]:
    return list(maps.chunk(NUM_RUNS, dim=1))


@pytest.mark.parametrize("form", [convolution, product_convolution])
@pytest.mark.parametrize(("stride", "size", "padding"), [(1, 5, 2), (1, 3, 1), (2, 5, 2)])
def test_values_and_gradients_are_each_runs_own(
    form: Form, stride: int, size: int, padding: int
) -> None:
    features = random(NUM, NUM_RUNS * NUM_IN, 6, 8).contiguous(memory_format=torch.channels_last)
    weight = random(NUM_RUNS, NUM_OUT, NUM_IN, size, size)
    inputs = [features.requires_grad_(), weight.requires_grad_(), random(NUM_RUNS, NUM_OUT)]
    inputs[2].requires_grad_()
    result = form(*inputs, stride, padding)  # type: ignore[arg-type]
    expected = torch.cat(
        [
            F.conv2d(x, w, b, stride, padding)
            for x, w, b in zip(apart(features), weight, inputs[2], strict=True)
        ],
        dim=1,
    )
    torch.testing.assert_close(result, expected)
    upstream = random(*expected.shape)
    ours = torch.autograd.grad(result, inputs, upstream)
    theirs = torch.autograd.grad(expected, inputs, upstream)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


def test_products_follow_autocast() -> None:
    features, weight = random(NUM, NUM_RUNS * 8, 6, 6), random(NUM_RUNS, 8, 8, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        result = product_convolution(features.float(), weight.float(), None, 1, 1)
    assert result.dtype == torch.bfloat16
    wanted = convolution(features, weight, None, 1, 1)
    assert (result.double() - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_the_transposed_kernel_is_a_transposed_convolution() -> None:
    features, weight = random(NUM, NUM_RUNS * NUM_IN, 6, 6), random(NUM_RUNS, NUM_IN, NUM_OUT, 5, 5)
    result = convolution(features, transposed_kernel(weight), None, 1, 2)
    for ours, x, w in zip(apart(result), apart(features), weight, strict=True):
        torch.testing.assert_close(ours, F.conv_transpose2d(x, w, padding=2))


@pytest.mark.parametrize("before", [1, 2])
def test_blocks_are_the_transposed_convolution_with_stride_two(before: int) -> None:
    features, weight = random(NUM, NUM_RUNS * NUM_IN, 4, 6), random(NUM_RUNS, NUM_IN, NUM_OUT, 5, 5)
    result = from_blocks(convolution(features, block_kernel(weight, before), None, 1, 1), NUM_RUNS)
    assert result.shape == (NUM, NUM_RUNS * NUM_OUT, 8, 12)
    for ours, x, w in zip(apart(result), apart(features), weight, strict=True):
        whole = F.conv_transpose2d(x, w, stride=2)
        torch.testing.assert_close(ours, whole[:, :, before : before + 8, before : before + 12])
