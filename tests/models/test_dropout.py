from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lungan.models.operations import leaky_dropout, survivors_scale, threshold


def counting_bits(count: int) -> Tensor:
    return (torch.arange(count) * 40503 % 65536 - 32768).to(torch.int16)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def features(request: pytest.FixtureRequest) -> Iterator[Tensor]:
    drawn = torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    yield drawn.to(request.param).contiguous(memory_format=torch.channels_last)


def test_values_and_gradients_are_the_masked_leaky_relus(features: Tensor) -> None:
    dropped = counting_bits(features.numel()) < threshold(0.3) - 32768
    keep = (~dropped).view(8, 8, 8, 16).permute(0, 3, 1, 2)
    leaf = features.clone().requires_grad_()
    wanted = F.leaky_relu(leaf, 0.25) * keep
    upstream = torch.randn_like(wanted)
    (wanted_gradient,) = torch.autograd.grad(wanted, leaf, upstream)
    result = leaky_dropout(leaf.clone(), 0.25, 0.3, counting_bits)
    (gradient,) = torch.autograd.grad(result, leaf, upstream)
    assert torch.equal(result, wanted)
    assert torch.equal(gradient, wanted_gradient)
    assert 0.25 < float(dropped.float().mean()) < 0.35


def test_scale_keeps_the_expectation() -> None:
    assert threshold(0.3) == 19661
    assert survivors_scale(0.3) * (1 - 19661 / 65536) == 1
    assert survivors_scale(0.5) == 2
    assert survivors_scale(0.0) == 1
