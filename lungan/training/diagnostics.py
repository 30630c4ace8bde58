"""What tells early that a run goes wrong, taken once an epoch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lungan.config import RunConfig
from lungan.config.training import AdaptiveConfig
from lungan.errors import DivergedError
from lungan.models.modes import evaluating
from lungan.models.pixels import to_floats
from lungan.training.material import Material
from lungan.training.state import TrainingState


@torch.no_grad()
def diagnose(
    config: RunConfig, state: TrainingState, samples: Tensor, material: Material
) -> dict[str, float]:
    """``sample_diversity`` and, where there is something to take them from, ``logit_held_out``,
    ``ema_drift`` (see ExponentialMovingAverage) and ``augment_probability``.

    samples: (N, C, H, W) in [-1, 1], of the generator that is saved.
    """
    found = {"sample_diversity": diversity(samples)}
    if material.held_out is not None:
        found["logit_held_out"] = mean_logit(
            state.discriminator, to_floats(material.held_out), material.held_out_labels
        )
    if state.average is not None:
        found["ema_drift"] = state.average.drift(state.generator)
    if isinstance(config.augment, AdaptiveConfig):
        found["augment_probability"] = state.augment_probability
    return {name: float(value) for name, value in found.items()}


def diversity(samples: Tensor) -> Tensor:
    """Root mean squared pixel difference of two samples, mean over all pairs of them.

    0 where all samples are one image, sqrt(2) times the noise for noise around one image.
    """
    flat = samples.flatten(1).double()
    distance: Tensor = torch.nn.functional.pdist(flat).mean() / flat.shape[1] ** 0.5
    return distance


def check_finite(means: dict[str, float], epoch: int) -> None:
    """Raises: DivergedError for the first of an epoch's means that is not finite."""
    for name, value in means.items():
        if not math.isfinite(value):
            raise DivergedError(
                f"{name} became {value} in epoch {epoch}; try a lower lr or another loss"
            )


def mean_logit(discriminator: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """Without dropout and changes of the images."""
    with evaluating(discriminator):
        logits: Tensor = discriminator(images, None, labels)
    return logits.mean()
