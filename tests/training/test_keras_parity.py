"""The report's networks and steps against numbers that Keras computed (../shared/reference)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import lungan.training.randomness
import lungan.training.step
from lungan.config import OptimizerConfig, RunConfig
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step

REPOSITORY = Path(__file__).resolve().parents[2]
Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def reference() -> Arrays:
    data = Path(os.environ.get("LUNGAN_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = data.parent if data.is_file() else data
    path = folder.parent / "reference" / "keras_dcgan.npz"
    if not path.is_file():
        pytest.skip(f"no Keras reference: {path} is absent")
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture
def state(reference: Arrays, make_config: Callable[..., RunConfig]) -> TrainingState:
    return ported_state(reference, make_config(dropout=0.0))


def ported_state(reference: Arrays, config: RunConfig) -> TrainingState:
    state = build_state(config, 28, 1, torch.device("cpu"))
    rng = np.random.default_rng(579)
    port(state.generator, draw(reference["order_g"], rng))
    port(state.discriminator, draw(reference["order_d"], rng))
    return state


def draw(order: NDArray[np.str_], rng: np.random.Generator) -> list[tuple[str, Tensor]]:
    """The reference's weights, drawn by the recipe of its README, as (Keras' name, tensor)."""
    weights = []
    for line in order:
        name, _, shape_text = str(line).partition(" ")
        shape = tuple(int(number) for number in shape_text.strip("(),").split(","))
        kind = name.split("/")[-1]
        if kind == "moving_variance":
            array = rng.uniform(0.5, 1.5, shape)
        elif kind == "gamma":
            array = rng.uniform(0.8, 1.2, shape)
        elif kind in ("beta", "bias", "moving_mean"):
            array = rng.normal(0, 0.05, shape)
        else:
            array = rng.normal(0, 0.03, shape)
        weights.append((kind, torch.from_numpy(array.astype(np.float32))))
    return weights


@torch.no_grad()
def port(network: nn.Module, weights: list[tuple[str, Tensor]]) -> None:
    """Copy Keras' weights, in Keras' order, into modules, which are registered in that order."""
    queue = list(weights)
    turned = network.state_dict().keys() >= {"linear.weight"}  # the discriminator's features
    modules = [m for m in network.modules() if next(m.parameters(recurse=False), None) is not None]
    for module in sorted(modules, key=lambda m: forward_position(network, m)):
        for target in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            kind, source = queue.pop(0)
            if source.ndim == 4:  # (height, width, in or out, out or in)
                source = source.permute(3, 2, 0, 1)
                source = source.flip(2, 3) if turned else source
            elif source.ndim == 2:
                source = (
                    source.flip(0).view(49, 128).flip(1).flatten()[None] if turned else source.T
                )
            assert target.shape == source.shape, kind
            target.copy_(source)
    assert not queue


def forward_position(network: nn.Module, module: nn.Module) -> tuple[int, int]:
    """Convolutions and norms are registered in two lists, and run in turns."""
    name = next(name for name, other in network.named_modules() if other is module)
    part, _, index = name.partition(".")
    parts = ["projection", "projection_norm", "convolutions", "norms", "to_images", "linear"]
    position = parts.index(part)
    if part in ("convolutions", "norms"):
        return (2, 2 * int(index) + (part == "norms"))
    return (position, 0)


def test_forward_equals_keras(reference: Arrays, state: TrainingState) -> None:
    latents = torch.from_numpy(reference["z"])
    images = torch.from_numpy(reference["x"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        trained = state.generator(latents).permute(0, 2, 3, 1).numpy()
        logits = state.discriminator(images).numpy()
    np.testing.assert_allclose(trained, reference["g_train"], rtol=0, atol=5e-6)
    np.testing.assert_allclose(logits, reference["d_eval"][:, 0], rtol=0, atol=5e-6)


def test_generator_with_moving_statistics_equals_keras(
    reference: Arrays, state: TrainingState
) -> None:
    state.generator.eval()
    with torch.no_grad():
        images = state.generator(torch.from_numpy(reference["z"])).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(images, reference["g_eval"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_losses_of_five_steps_equal_keras(
    name: str,
    reference: Arrays,
    make_config: Callable[..., RunConfig],
    optimizers: dict[str, OptimizerConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(dropout=0.0, optimizer=optimizers[name])
    state = ported_state(reference, config)
    real = torch.from_numpy(reference["x"]).permute(0, 3, 1, 2)
    # Keras' real images are no uint8 and its latents no draw of ours.
    monkeypatch.setattr(
        lungan.training.randomness, "latents", lambda *_: torch.from_numpy(reference["z"])
    )
    monkeypatch.setattr(lungan.training.step, "to_floats", lambda *_: real)
    step = build_step(config, state, "fp32")
    outcomes = [step(torch.zeros(8, 1, 28, 28, dtype=torch.uint8)) for _ in range(5)]
    losses = [[float(o.loss_generator), float(o.loss_discriminator)] for o in outcomes]
    np.testing.assert_allclose(losses, reference[f"losses_{name}"], rtol=0, atol=1e-4)
