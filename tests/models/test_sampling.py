"""Latents by block, and how truncation changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm

from lungan import generate
from lungan.config import presets
from lungan.errors import DataError
from lungan.models.build import build_generator
from lungan.models.sampling import BLOCK_SIZE, divide, draw_latents, sample_block, sample_images
from lungan.models.saving import serialize_generator


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


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def generator() -> torch.nn.Module:
    config = presets.load("generator", "dcgan")
    config.width = 8
    return build_generator(config, 28, 1)


def test_one_seed_gives_the_same_images_to_scores_and_to_generate(
    generator: torch.nn.Module, tmp_path: Path
) -> None:
    config = presets.load("generator", "dcgan")
    config.width = 8
    file = tmp_path / "generator.safetensors"
    file.write_bytes(serialize_generator(generator, config, image_size=28, channels=1))
    out = tmp_path / "made"
    command = [str(file), "--num-images", "70", "--seed", "3", "--out", str(out), "--npz"]
    assert generate.main([*command, "--device", "cpu"]) == 0
    with np.load(out / "images.npz") as archive:
        written = archive[next(key for key in archive.files if key.endswith("images"))]
    scored = sample_images(generator, 70, 3, CPU)
    assert scored.shape == (70, 1, 28, 28)
    assert np.array_equal(written.reshape(scored.shape), scored.numpy())
    assert np.array_equal(sample_block(generator.eval(), 3, None, 0, CPU), scored[:64].numpy())


def test_the_first_images_do_not_depend_on_how_many_there_are(generator: torch.nn.Module) -> None:
    few, many = (sample_images(generator, count, 3, CPU) for count in (20, 140))
    assert torch.equal(few, many[:20])
    assert (sample_images(generator, 20, 4, CPU) != few).double().mean() > 0.1


def test_the_generator_keeps_its_mode_and_statistics(generator: torch.nn.Module) -> None:
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    sample_images(generator, 10, 0, CPU)
    assert generator.training
    after = generator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


class Levels(torch.nn.Module):
    """Three pixels of the given levels, whatever the latent."""

    latent_dim = 1

    def __init__(self, levels: list[float]) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor(levels))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.levels.expand(len(latents), 1, 1, -1)


def test_levels_are_rounded_and_clipped_to_bytes() -> None:
    levels = [-1.5, -1.0, -1 + 0.6 / 127.5, 0.0, 1.0, 1.5]
    images = sample_images(Levels(levels), 2, 0, CPU)
    assert images[0, 0, 0].tolist() == [0, 0, 1, 128, 255, 255]


def test_nan_pixels_are_an_error() -> None:
    with pytest.raises(DataError, match="the generator gives NaN or infinite pixels"):
        sample_images(Levels([0.0, float("nan")]), 2, 0, CPU)


def test_images_are_divided_by_largest_remainders() -> None:
    assert divide(10, [1, 1, 1]) == [4, 3, 3]
    assert divide(7, [0.25, 0.75]) == [2, 5]
    assert divide(1, [0.1, 0.9]) == [0, 1]
