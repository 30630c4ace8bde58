"""Training the in-domain encoder's network, whitening its features, and measuring it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from lungan.classifiers.augment import augment
from lungan.classifiers.measures import bootstrap_interval, mean_area_under_curve
from lungan.classifiers.network import FEATURE_DIM, SmallNetwork, build_classifier
from lungan.classifiers.train import Descent, descend, shuffled_batches
from lungan.data.images import ImageSet
from lungan.device import native_dtype

_MOST_RECOGNIZED = 400
"""Held-out images that recognition is measured on; its cost grows with their square."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Descent):
    """How the encoder is trained; part of the key it is cached under.

    ``epochs`` within ``min_updates`` and ``max_updates``, so that a small set is trained on long
    enough and a large one not for hours. ``label_weight``: of the classes' cross-entropy beside the
    self-supervised loss. ``shrinkage``: the least share of an even covariance in the whitening.
    """

    version: int = 2
    seed: int = 0
    epochs: int = 6
    min_updates: int = 300
    max_updates: int = 1500
    batch_size: int = 64
    peak_lr: float = 0.1
    label_weight: float = 0.5
    shrinkage: float = 0.01

    def num_updates(self, num_images: int) -> int:
        updates = self.epochs * num_images // self.batch_size
        return min(max(updates, self.min_updates), self.max_updates)


RECIPE = Recipe()


class DomainNetwork(nn.Module):
    """A trained network with whitened features: uint8 images -> (features, logits).

    Logits are (B, 0) where it was trained without labels.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, network: SmallNetwork, uses_labels: bool) -> None:
        super().__init__()
        self.network = network
        self.num_classes = network.classifier.out_features if uses_labels else 0
        self.register_buffer("mean", torch.zeros(FEATURE_DIM))
        self.register_buffer("whitening", torch.eye(FEATURE_DIM))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.network(images)
        return (features - self.mean) @ self.whitening, logits[:, : self.num_classes]


def train(
    images: ImageSet, device: torch.device, recipe: Recipe, uses_labels: bool
) -> DomainNetwork:
    """A network trained on these images, and on their labels where ``uses_labels``.

    Neither reads nor moves torch's global random state, which belongs to the run.
    """
    rng = torch.Generator().manual_seed(recipe.seed)
    num_classes = len(images.class_names)
    network = build_classifier("small", images.size, images.channels, num_classes, recipe.seed)
    assert isinstance(network, SmallNetwork)
    inputs = network.preprocess(torch.from_numpy(images.images))
    targets = torch.from_numpy(images.labels)
    network.to(device)
    dtype = native_dtype(device)
    batches = shuffled_batches(len(images), recipe.batch_size, rng)

    def loss() -> Tensor:
        indices = next(batches)
        batch = inputs[indices]
        views = torch.cat([augment(batch, rng), augment(batch, rng)]).to(device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            features, logits = network.classify(views.to(memory_format=torch.channels_last))
        total = invariance_loss(*features.float().chunk(2))
        if uses_labels:
            labels = targets[indices].repeat(2).to(device)
            total = total + recipe.label_weight * F.cross_entropy(logits.float(), labels)
        return total

    num_updates = recipe.num_updates(len(images))
    updates = descend(network, recipe, num_updates, loss)
    for _ in tqdm(
        updates, total=num_updates, desc="in-domain encoder", unit="update", disable=None
    ):
        pass
    encoder = DomainNetwork(network, uses_labels).to(device).eval().requires_grad_(False)
    features = features_of(encoder, images.images, device)
    mean, whitening = whiten(features, recipe.shrinkage)
    encoder.mean.copy_(torch.from_numpy(mean))
    encoder.whitening.copy_(torch.from_numpy(whitening))
    return encoder


def invariance_loss(first: Tensor, second: Tensor) -> Tensor:
    """Two views' features (B, D) should agree, vary by 1 in each dimension, and not be correlated.

    Source: Bardes, Ponce and LeCun 2022, "VICReg", arXiv:2105.04906, equations 1 to 6 with their
    weights divided by 25, on the features themselves instead of behind a projector.
    """
    total = F.mse_loss(first, second)
    for features in (first, second):
        centered = features - features.mean(dim=0)
        spread = (centered.var(dim=0) + 1e-4).sqrt()
        total = total + F.relu(1 - spread).mean() / 2
        covariance = centered.T @ centered / (len(centered) - 1)
        others = (covariance**2).sum() - (covariance.diagonal() ** 2).sum()
        total = total + others / features.shape[1] / 25
    return total


def whiten(
    features: NDArray[np.float64], least: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean (D,) of features (N, D) and the matrix (D, D) that makes their covariance even.

    The covariance is first drawn towards an even one, by ``least`` or by as much as so few images
    need, so that directions without variance do not grow without bound.
    Source: Ledoit and Wolf 2004, J. Multivariate Analysis 88:365, equation 14 (the shrinkage).
    """
    count, width = features.shape
    mean = features.mean(axis=0)
    centered = features - mean
    covariance = centered.T @ centered / count
    level = float(np.trace(covariance)) / width
    distance = float(((covariance - level * np.eye(width)) ** 2).sum())
    noise = float(((centered**2).sum(axis=1) ** 2).sum()) / count - float((covariance**2).sum())
    share = min(max(least, noise / count / distance if distance > 0 else 1.0), 1.0)
    values, vectors = np.linalg.eigh((1 - share) * covariance + share * level * np.eye(width))
    if level <= 0:  # all images alike: there is nothing to divide by
        return mean, np.eye(width)
    return mean, vectors / np.sqrt(values)


def effective_dimension(features: NDArray[np.float64]) -> float:
    """(sum of the covariance's eigenvalues)² over the sum of their squares, from 1 to D: as many
    equal directions would spread the features (N, D) alike. 0 where they do not vary."""
    centered = features - features.mean(axis=0)
    covariance = centered.T @ centered
    squares = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / squares if squares > 0 else 0.0


def measure_classes(
    network: DomainNetwork, held_out: ImageSet, device: torch.device
) -> tuple[tuple[float, float, float] | None, float]:
    """AUC with its interval, None where one class is held out, and accuracy."""
    _, logits = _outputs(network, held_out.images, device)
    probabilities = logits.softmax(dim=1).cpu().numpy()
    labels = held_out.labels
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    value = mean_area_under_curve(probabilities, labels)
    if value is None:
        return None, accuracy
    low, high = bootstrap_interval(
        lambda rows: mean_area_under_curve(probabilities[rows], labels[rows]),
        len(labels),
        held_out.groups,
    )
    return (value, low, high), accuracy


def measure_recognition(
    network: DomainNetwork, held_out: ImageSet, device: torch.device
) -> tuple[float, float, float]:
    """How often two views of an image are nearer than views of two images, with its interval."""
    rows = np.random.default_rng(0).permutation(len(held_out))[:_MOST_RECOGNIZED]
    shown = held_out.take(np.sort(rows))
    rng = torch.Generator().manual_seed(0)
    small = network.network
    inputs = small.preprocess(torch.from_numpy(shown.images))
    views = []
    for _ in range(2):
        batches = torch.split(augment(inputs, rng), 256)
        found = torch.cat([small.classify(batch.to(device))[0] for batch in batches])
        views.append(((found - network.mean) @ network.whitening).double().cpu())
    first, second = views
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(first, second, compute_mode=exact).numpy()
    own = distances.diagonal()[:, None]
    others = ~np.eye(len(own), dtype=bool)
    nearer = ((own < distances) + 0.5 * (own == distances)) * others
    share = nearer.sum(axis=1) / max(len(own) - 1, 1)
    low, high = bootstrap_interval(lambda rows: float(share[rows].mean()), len(own), shown.groups)
    return float(share.mean()), low, high


def features_of(
    network: DomainNetwork, images: NDArray[np.uint8], device: torch.device
) -> NDArray[np.float64]:
    array: NDArray[np.float64] = _outputs(network, images, device)[0].cpu().numpy()
    return array


def _outputs(
    network: DomainNetwork, images: NDArray[np.uint8], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features and logits in float64, on ``device``."""
    with torch.inference_mode():
        found = [network(batch.to(device)) for batch in torch.split(torch.from_numpy(images), 256)]
        features, logits = zip(*found, strict=True)
        return torch.cat(features).double(), torch.cat(logits).double()
