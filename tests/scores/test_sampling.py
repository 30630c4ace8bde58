from __future__ import annotations

import pytest
import torch
from torch import nn

from lungan.config import presets
from lungan.errors import DataError
from lungan.models.build import build_generator
from lungan.scores.sampling import sample_generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    config = presets.load("generator", "dcgan")
    config.width = 8
    return build_generator(config, 28, 1)


def test_images_follow_from_the_seed_whatever_the_batch_size(generator: nn.Module) -> None:
    whole = sample_generator(generator, 50, seed=3, batch_size=50, device=CPU)
    assert whole.shape == (50, 1, 28, 28)
    assert whole.dtype == torch.uint8
    for batch_size in (1, 7, 64):
        part = sample_generator(generator, 50, seed=3, batch_size=batch_size, device=CPU)
        difference = (part.int() - whole.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < 1e-3
    other = sample_generator(generator, 50, seed=4, batch_size=50, device=CPU)
    assert (other != whole).double().mean() > 0.1


def test_the_first_images_do_not_depend_on_how_many_there_are(generator: nn.Module) -> None:
    few, many = (sample_generator(generator, count, 3, 10, CPU) for count in (20, 40))
    assert (few == many[:20]).double().mean() > 0.999


def test_the_generator_keeps_its_mode_and_statistics(generator: nn.Module) -> None:
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    sample_generator(generator, 10, 0, 5, CPU)
    assert generator.training
    after = generator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class Levels(nn.Module):
    """Three pixels of the given levels, whatever the latent."""

    latent_dim = 1

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.levels.expand(len(latents), 1, 1, -1)


def test_levels_are_rounded_and_clipped_to_bytes() -> None:
    levels = [-1.5, -1.0, -1 + 0.6 / 127.5, 0.0, 1.0, 1.5]
    images = sample_generator(Levels(levels), 2, 0, 2, CPU)
    assert images[0, 0, 0].tolist() == [0, 0, 1, 128, 255, 255]


def test_nan_pixels_are_an_error() -> None:
    with pytest.raises(DataError, match="the generator gives NaN or infinite pixels"):
        sample_generator(Levels([0.0, float("nan")]), 2, 0, 2, CPU)
