from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lungan.config import OptimizerConfig, RunConfig
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step

CPU = torch.device("cpu")


def weights(state: TrainingState) -> list[Tensor]:
    return [*state.generator.state_dict().values(), *state.discriminator.state_dict().values()]


def test_weights_are_a_function_of_the_seed(make_config: Callable[..., RunConfig]) -> None:
    first, same, other = (
        weights(build_state(make_config(width=8, seed=seed), 28, 1, CPU)) for seed in (5, 5, 6)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_saved_and_loaded_goes_on_with_the_same_bits(
    name: str,
    precision: str,
    optimizers: dict[str, OptimizerConfig],
    make_config: Callable[..., RunConfig],
    tmp_path: Path,
) -> None:
    config = make_config(width=16, optimizer=optimizers[name])
    batches = torch.randint(0, 256, (4, 6, 1, 28, 28), dtype=torch.uint8)
    whole = build_state(config, 28, 1, CPU)
    step = build_step(config, whole, precision)
    for number, batch in enumerate(batches):
        if number == 2:
            whole.images_seen, whole.epoch_seconds = 12, 1.5
            whole.epoch_totals += 0.1
            torch.save(whole.state_dict(), tmp_path / "checkpoint.pt")
        step(batch)

    continued = build_state(config, 28, 1, CPU)
    continued.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert (continued.step, continued.images_seen, continued.epoch_seconds) == (2, 12, 1.5)
    assert torch.equal(continued.epoch_totals, torch.full_like(continued.epoch_totals, 0.1))
    step = build_step(config, continued, precision)
    for batch in batches[2:]:
        step(batch)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(continued), strict=True))
    continued.begin_epoch()
    assert (continued.epoch_seconds, float(continued.epoch_totals.sum())) == (0, 0)
