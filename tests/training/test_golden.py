"""Losses of 20 steps as they were when this file was written, to notice a changed recipe.

LUNGAN_WRITE_GOLDEN=1 python -m pytest tests/training/test_golden.py writes them anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lungan.config import OptimizerConfig, RunConfig
from lungan.training.state import build_state
from lungan.training.step import build_step

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "step_losses.json"


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_losses_of_twenty_steps(
    update: str,
    optimizer: str,
    optimizers: dict[str, OptimizerConfig],
    make_config: Callable[..., RunConfig],
) -> None:
    config = make_config(width=16, update=update, optimizer=optimizers[optimizer])
    # Batch norm makes some gradients pure rounding noise, which large steps would blow up.
    config.optimizer.generator_lr = config.optimizer.discriminator_lr = 1e-4
    state = build_state(config, 28, 1, torch.device("cpu"))
    for network_optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        assert network_optimizer.param_groups[0]["lr"] == 1e-4
    step = build_step(config, state, "fp32")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 32, 1, 7, 7), dtype=np.uint8)
    batches = torch.from_numpy(coarse.repeat(4, axis=3).repeat(4, axis=4))
    outcomes = [step(batch) for batch in batches]
    losses = [[float(o.loss_generator), float(o.loss_discriminator)] for o in outcomes]

    key = f"{update}/{optimizer}"
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("LUNGAN_WRITE_GOLDEN") == "1":
        golden[key] = [[round(value, 7) for value in pair] for pair in losses]
        lines = [f"{json.dumps(name)}: {json.dumps(golden[name])}" for name in sorted(golden)]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.testing.assert_allclose(losses, golden[key], rtol=1e-3, atol=0)
