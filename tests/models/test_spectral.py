from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lungan.config import presets
from lungan.models.build import build_discriminator
from lungan.models.layers import SpectralNorm, normalize_spectrally


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_largest_singular_value_becomes_one() -> None:
    layer = nn.Conv2d(6, 10, 5)
    wanted = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    normalize_spectrally(layer, rng())
    for _ in range(200):
        layer(torch.randn(1, 6, 8, 8))
    found = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    torch.testing.assert_close(found, wanted / wanted[0], rtol=1e-4, atol=1e-5)


def test_the_estimate_is_good_from_the_start() -> None:
    layer = nn.Linear(100, 50)
    normalize_spectrally(layer, rng())
    assert float(torch.linalg.svdvals(layer.weight.detach())[0]) == pytest.approx(1, abs=0.1)


def test_gradient_takes_the_singular_vectors_as_constants() -> None:
    """Of <W / s, A> it is (A - <A, W / s> u v^T) / s. Miyato et al. 2018, eq. 12."""
    weight = torch.randn(4, 3, generator=rng(), dtype=torch.float64)
    norm = SpectralNorm(weight, rng()).double().eval()
    left = norm.left
    right = torch.nn.functional.normalize(weight.mT @ left, dim=0)
    sigma = left @ weight @ right
    upstream = torch.randn(4, 3, generator=rng(1), dtype=torch.float64)
    weight.requires_grad_()
    (gradient,) = torch.autograd.grad(norm(weight), weight, upstream)
    inner = (upstream * weight / sigma).sum()
    wanted = (upstream - inner * torch.outer(left, right)) / sigma
    torch.testing.assert_close(gradient, wanted.detach())


def test_evaluation_leaves_the_estimate_alone() -> None:
    config = presets.load("discriminator", "dcgan")
    config.width, config.spectral_norm = 8, True
    network = build_discriminator(config, 28, 1).eval()
    before = copy.deepcopy(network.state_dict())
    network(torch.randn(2, 1, 28, 28))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    network.train()(torch.randn(2, 1, 28, 28))
    assert not all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_biases_are_left_alone_and_all_kernels_taken() -> None:
    config = presets.load("discriminator", "resnet")
    config.width, config.spectral_norm = 8, True
    names = dict(build_discriminator(config, 28, 1).named_parameters())
    kernels = [name for name, value in names.items() if value.ndim >= 2]
    assert len(kernels) == 10
    assert all(name.endswith("parametrizations.weight.original") for name in kernels)
    assert "linear.bias" in names
