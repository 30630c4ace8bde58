"""Training a classifier: what its batches hold, the updates, and the average of its last weights.

``descend`` makes the updates of every classifier here and of the in-domain encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from lungan.classifiers.augment import augment
from lungan.classifiers.network import Classifier, build_classifier
from lungan.errors import ConfigError, DivergedError

MEASURE_BATCH = 256

MIXUP_ALPHA = 0.2
"""Of the beta distribution that mixing shares are drawn from, as for ImageNet in the source."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """What a recipe says of its updates. warmup_fraction: of all updates, on the way up."""

    peak_lr: float
    warmup_fraction: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(frozen=True, kw_only=True)
class Recipe(Descent):
    """How every classifier of a study is trained, whatever its arm; part of every result's id.

    SGD with Nesterov momentum and one cycle of the learning rate up to ``peak_lr``. ``averaged``:
    the share of the updates, the last ones, whose weights are averaged into the result.
    """

    version: int = 2
    classifier: str = "small"
    updates: int = 800
    batch_size: int = 64
    peak_lr: float = 0.2
    averaged: float = 0.25


PEAK_LR = {"small": 0.2, "resnet18": 0.1}


def make_recipe(
    classifier: str, updates: int, batch_size: int, peak_lr: float | None = None
) -> Recipe:
    """peak_lr: None for the classifier's own.

    Raises: ConfigError for an unknown classifier or numbers that cannot be.
    """
    if classifier not in PEAK_LR:
        raise ConfigError(f"--classifier must be one of {', '.join(PEAK_LR)}, got {classifier}")
    if updates < 2:
        raise ConfigError(f"--updates must be at least 2, got {updates}")
    if batch_size < 2:
        raise ConfigError(f"--batch-size must be at least 2, got {batch_size}")
    peak_lr = PEAK_LR[classifier] if peak_lr is None else peak_lr
    if not (math.isfinite(peak_lr) and peak_lr > 0):
        raise ConfigError(f"--peak-lr must be greater than 0, got {peak_lr:g}")
    return Recipe(classifier=classifier, updates=updates, batch_size=batch_size, peak_lr=peak_lr)


@dataclass(frozen=True)
class Labelled:
    """images: (N, C, H, W) uint8. labels: (N,) int64. groups: (N,), a number for each patient,
    None where patients are not known. soft: (N, K) float32, probabilities of the classes, which a
    classifier is taught in place of the labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None
    soft: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Portion:
    """``count`` images of every batch come from ``images``, one shuffled pass after another.
    is_real: whether they are real ones."""

    images: Labelled
    count: int
    is_real: bool = True


@dataclass(frozen=True)
class Phase:
    """``updates`` updates whose batches hold these portions."""

    portions: tuple[Portion, ...]
    updates: int


@dataclass(frozen=True)
class Changes:
    """What is done to batches and loss. classical: ``augment`` moves every image. mixup: images and
    labels of a batch are mixed in pairs. class_weights: of the loss, (K,), None for none.
    Source of mixup: Zhang et al. 2018, arXiv:1710.09412."""

    classical: bool = False
    mixup: bool = False
    class_weights: tuple[float, ...] | None = None


def train_classifier(
    phases: Sequence[Phase],
    *,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    changes: Changes,
    device: torch.device,
    dtype: torch.dtype,
    start: Classifier | None = None,
) -> Classifier:
    """The classifier after all updates of the phases, in evaluation mode. start: the network that
    is trained, None for a new one of the recipe's.

    Its weights are the average over the last ``recipe.averaged`` of the updates, so that no
    validation image chooses them. Weights and order of images follow from ``seed``; torch's global
    random state is left alone. Source of averaging: Izmailov et al. 2018, arXiv:1803.05407.

    Raises: DivergedError where weights are not finite.
    """
    _, channels, size, _ = phases[0].portions[0].images.images.shape
    if start is None:
        start = build_classifier(recipe.classifier, size, channels, num_classes, seed)
    network = start.to(device)
    # With a function of its own: torch's grouped one for GPUs fails on batch norm's counters.
    average = get_swa_avg_fn()  # type: ignore[no-untyped-call]
    averaged = AveragedModel(network, avg_fn=average, use_buffers=True)
    rng = torch.Generator().manual_seed(seed)
    shares = np.random.default_rng([seed, 1])
    weights = changes.class_weights
    class_weights = None if weights is None else torch.tensor(weights, device=device)
    batches = _batches(phases, rng, device)

    def loss() -> Tensor:
        images, labels = next(batches)
        inputs = network.preprocess(images)
        if changes.classical:
            inputs = augment(inputs, rng)
        order, share = None, 1.0
        if changes.mixup:
            order = torch.randperm(len(labels), generator=rng).to(device)
            share = float(shares.beta(MIXUP_ALPHA, MIXUP_ALPHA))
            inputs = share * inputs + (1 - share) * inputs[order]
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            _, logits = network.classify(inputs.to(memory_format=torch.channels_last))
        logits = logits.float()
        own = F.cross_entropy(logits, labels, class_weights)
        if order is None:
            return own
        return share * own + (1 - share) * F.cross_entropy(logits, labels[order], class_weights)

    num_updates = sum(phase.updates for phase in phases)
    first = num_updates - max(1, round(recipe.averaged * num_updates))
    for update in descend(network, recipe, num_updates, loss):
        if update > first:
            averaged.update_parameters(network)
    network.load_state_dict(averaged.module.state_dict())
    if not all(torch.isfinite(value).all() for value in network.parameters()):
        raise DivergedError(f"the classifier's weights are not finite after {num_updates} updates")
    network.eval().requires_grad_(False)
    return network


def descend(
    network: nn.Module, recipe: Descent, num_updates: int, loss: Callable[[], Tensor]
) -> Iterator[int]:
    """``num_updates`` updates of ``network``, each down the gradient of a new ``loss()``; gives the
    number of each, from 1, when it is done.

    SGD with Nesterov momentum; the learning rate rises to ``peak_lr`` and falls to nearly 0. Weight
    decay is for kernels and matrices, not for biases and normalization.
    Source: Smith & Topin 2018, arXiv:1708.07120, as torch has it.
    """
    decayed = [value for value in network.parameters() if value.ndim > 1]
    others = [value for value in network.parameters() if value.ndim == 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others},
    ]
    optimizer = torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.peak_lr,
        total_steps=num_updates,
        pct_start=recipe.warmup_fraction,
        cycle_momentum=False,
    )
    network.train()
    for update in range(1, num_updates + 1):
        with torch.enable_grad():
            value = loss()
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        yield update


def shuffled_batches(num_images: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Indices (batch_size,) int64 without end, from one shuffled pass after another."""
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(num_images, generator=rng)])
        yield left[:batch_size]
        left = left[batch_size:]


def probabilities_of(
    network: Classifier, images: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float64]:
    """(N, K), computed in float32 from float32 weights. The network is left in evaluation mode."""
    array: NDArray[np.float64] = outputs_of(network, images, device)[1].softmax(dim=1).numpy()
    return array


def outputs_of(
    network: nn.Module, images: NDArray[np.uint8], device: torch.device
) -> tuple[NDArray[np.float64], Tensor]:
    """Features (N, D) and logits (N, K), float64 on the CPU, of a network that gives both for
    (B, C, H, W) uint8. The network is left in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(images), MEASURE_BATCH)
        found = [network(batch.to(device)) for batch in batches]
        features, logits = (
            torch.cat([one.double().cpu() for one in of]) for of in zip(*found, strict=True)
        )
    return features.numpy(), logits


def _batches(
    phases: Sequence[Phase], rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of all phases, one after another: images with labels (B,) int64, or where a
    portion has soft ones (B, K) float32."""
    for phase in phases:
        images = [torch.from_numpy(part.images.images).to(device) for part in phase.portions]
        labels = [one.to(device) for one in _targets([part.images for part in phase.portions])]
        passes = [shuffled_batches(len(part.images), part.count, rng) for part in phase.portions]
        for _ in range(phase.updates):
            rows = [next(each).to(device) for each in passes]
            yield (
                torch.cat([part[own] for part, own in zip(images, rows, strict=True)]),
                torch.cat([part[own] for part, own in zip(labels, rows, strict=True)]),
            )


def _targets(portions: Sequence[Labelled]) -> list[Tensor]:
    labels = [torch.from_numpy(one.labels) for one in portions]
    soft = [None if one.soft is None else torch.from_numpy(one.soft) for one in portions]
    num_classes = next((one.shape[1] for one in soft if one is not None), None)
    if num_classes is None:
        return labels
    return [
        F.one_hot(hard, num_classes).float() if one is None else one
        for hard, one in zip(labels, soft, strict=True)
    ]
