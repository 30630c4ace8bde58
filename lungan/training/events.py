"""What the training loop says while it runs. A sink is any callable that takes an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # what only listens to a run, or reads it, need not wait for torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class EpochStart:
    """``epoch`` counts from 1; ``num_steps`` batches follow."""

    epoch: int
    num_steps: int


@dataclass(frozen=True, slots=True)
class StepEnd:
    """``step`` of this epoch, from 1, has been issued; on a GPU it may still be under way."""

    epoch: int
    step: int
    num_images: int


@dataclass(frozen=True, slots=True)
class EpochEnd:
    """``metrics``: one line of metrics.jsonl, all finite."""

    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Samples:
    """images: (N, C, H, W) uint8, from the same fixed latents at every epoch."""

    epoch: int
    images: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``generator``: the one that training would give if it ended here, to be read, not kept."""

    epoch: int
    generator: nn.Module


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``state``: the full training state after ``epoch``, to be written before the next step."""

    epoch: int
    state: dict[str, Any]


Event = EpochStart | StepEnd | EpochEnd | Samples | Snapshot | Checkpoint
Sink = Callable[[Event], None]
