"""Training a classifier: the updates, and choosing weights on validation.

``descend`` makes the updates of every classifier here and of the in-domain encoder.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lungan.classifiers.augment import augment
from lungan.classifiers.measures import measure
from lungan.classifiers.network import Classifier, build_classifier
from lungan.errors import ConfigError, DivergedError

MEASURE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How every classifier of a study is trained, whatever its arm; part of every result's id.

    SGD with Nesterov momentum and one cycle of the learning rate up to ``peak_lr``. ``looks``: how
    often, evenly, validation is looked at; the weights with the highest AUC there are kept.
    """

    version: int = 1
    classifier: str = "small"
    updates: int = 800
    batch_size: int = 64
    peak_lr: float = 0.2
    warmup_fraction: float = 0.3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    looks: int = 10


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
    None where patients are not known."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Trained:
    """network: in evaluation mode, with the weights after ``update``. num_updates: all done."""

    network: Classifier
    update: int
    num_updates: int
    validation_auc: float


def train_classifier(
    phases: Sequence[Labelled],
    validation: Labelled,
    *,
    num_classes: int,
    positive: int,
    recipe: Recipe,
    seed: int,
    classical: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Trained:
    """``recipe.updates`` updates, shared evenly among phases that follow each other.

    Weights and order of images follow from ``seed``; torch's global random state is left alone.

    Raises: DivergedError where the classifier gives non-finite numbers.
    """
    _, channels, size, _ = validation.images.shape
    network = build_classifier(recipe.classifier, size, channels, num_classes, seed).to(device)
    rng = torch.Generator().manual_seed(seed)
    looks = {round(recipe.updates * (k + 1) / recipe.looks) for k in range(recipe.looks)}
    best: tuple[float, float] | None = None
    kept: dict[str, Tensor] = {}
    kept_update = 0
    batches = _batches(phases, recipe, rng, device)

    def loss() -> Tensor:
        images, labels = next(batches)
        inputs = network.preprocess(images)
        if classical:
            inputs = augment(inputs, rng)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            _, logits = network.classify(inputs.to(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), labels)

    for update in descend(network, recipe, recipe.updates, loss):
        if update in looks:
            found = _look(network, validation, positive, device, update)
            if best is None or found > best:
                best, kept_update = found, update
                kept = {name: value.clone() for name, value in network.state_dict().items()}
    assert best is not None
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
    return Trained(network, kept_update, recipe.updates, best[0])


class Descent(Protocol):
    """What a recipe says of its updates. warmup_fraction: of all updates, on the way up."""

    @property
    def peak_lr(self) -> float: ...
    @property
    def warmup_fraction(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


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
    network.eval()
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(images), MEASURE_BATCH)
        logits = [
            network.classify(network.preprocess(batch.to(device)))[1].double().cpu()
            for batch in batches
        ]
        array: NDArray[np.float64] = torch.cat(logits).softmax(dim=1).numpy()
    return array


def _look(
    network: Classifier, validation: Labelled, positive: int, device: torch.device, update: int
) -> tuple[float, float]:
    """AUC, and where that ties (a perfect one often does) the likelihood."""
    probabilities = probabilities_of(network, validation.images, device)
    network.train()
    if not np.isfinite(probabilities).all():
        raise DivergedError(f"the classifier's outputs are not finite after update {update}")
    chosen = probabilities[np.arange(len(validation)), validation.labels]
    likelihood = float(np.log(chosen.clip(min=1e-12)).mean())
    return measure(probabilities, validation.labels, positive)["auc"], likelihood


def _batches(
    phases: Sequence[Labelled], recipe: Recipe, rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from one shuffled pass after another, phase after phase, ``updates`` in all."""
    done = 0
    for number, phase in enumerate(phases, start=1):
        images = torch.from_numpy(phase.images).to(device)
        labels = torch.from_numpy(phase.labels).to(device)
        end = round(recipe.updates * number / len(phases))
        batches = shuffled_batches(len(phase), recipe.batch_size, rng)
        for indices in itertools.islice(batches, end - done):
            yield images[indices.to(device)], labels[indices.to(device)]
        done = end
