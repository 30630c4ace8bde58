"""Latents by block, and how truncation changes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from lungan.errors import DataError
from lungan.models.sampling import BLOCK_SIZE, draw_latents, sample_block


def test_blocks_classes_and_seeds_draw_apart() -> None:
    draws = [draw_latents(3, *key) for key in ((0, None, 0), (0, None, 1), (0, 0, 0), (1, None, 0))]
    assert all(draw.shape == (BLOCK_SIZE, 3) and draw.dtype == np.float32 for draw in draws)
    assert len({draw.tobytes() for draw in draws}) == 4
    assert np.array_equal(draws[0], draw_latents(3, 0, None, 0))


@pytest.mark.parametrize("cut", [0.3, 1.0, 3.0])
def test_truncated_latents_follow_the_truncated_normal(cut: float) -> None:
    latents = draw_latents(100, 0, None, 0, cut).ravel()
    assert np.abs(latents).max() <= cut
    assert kstest(latents, truncnorm(-cut, cut).cdf).pvalue > 0.01


def test_non_finite_pixels_are_an_error() -> None:
    network = torch.nn.Module()
    network.latent_dim = 2
    network.forward = lambda latents: latents[:, :, None, None] / 0  # type: ignore[method-assign]
    with pytest.raises(DataError, match="NaN or infinite"):
        sample_block(network, 0, None, 0, torch.device("cpu"))
