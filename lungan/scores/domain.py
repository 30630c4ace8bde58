"""The in-domain encoder: a small network trained on the real images, once for a data set.

Its features know what tells this data apart, which ImageNet's may not (radiographs are grey and all
alike to them), and it needs no download. It learns to recognize an image that was moved, turned or
made brighter, and the classes where the images have labels; features are whitened, so that no few
directions make up a distance: ``docs/encoders.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from lungan.classifiers.augment import augment
from lungan.classifiers.measures import mean_area_under_curve, with_interval
from lungan.classifiers.network import (
    FEATURE_DIM,
    Classifier,
    SmallNetwork,
    build_classifier,
    in_channels_last,
)
from lungan.classifiers.train import Descent, descend, outputs_of, shuffled_batches
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet, draw_share
from lungan.device import native_dtype
from lungan.errors import DataError
from lungan.files import cache_folder, cached
from lungan.scores.encoders import Encoder

NAME = "domain"

_HOLDOUT_FRACTION = 0.2
_MAX_BATCH_SIZE = {"cpu": 128, "cuda": 1024}
_MOST_RECOGNIZED = 400
"""Held-out images that recognition is measured on; its cost grows with their square."""

_WAY_OUT = "use score.encoders=[inception] or [efficientnet_lite2]"

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""What is known of a trained network, kept beside its weights: see ``_train``."""


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


RECIPE = Recipe()


class DomainNetwork(Classifier):
    """A trained network with whitened features; logits are (B, 0) where there were no labels."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, network: SmallNetwork, uses_labels: bool) -> None:
        super().__init__()
        self.network = network
        self.num_classes = network.classifier.out_features if uses_labels else 0
        self.register_buffer("mean", torch.zeros(FEATURE_DIM))
        self.register_buffer("whitening", torch.eye(FEATURE_DIM))

    def preprocess(self, images: Tensor) -> Tensor:
        return self.network.preprocess(images)

    def classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.network.classify(inputs)
        return (features - self.mean) @ self.whitening, logits[:, : self.num_classes]


def build_domain(_: ScoreConfig, image_set: ImageSet, device: torch.device) -> Encoder:
    """Raises: DataError."""
    return load_encoder(image_set, device)


def load_encoder(image_set: ImageSet, device: torch.device, recipe: Recipe = RECIPE) -> Encoder:
    """The encoder of this data set, from the cache folder or else trained and put there.

    image_set: all splits and classes. Trained on the train split (on all images where there is
    none), measured on the test split, else on val, else on a fifth that training leaves out. Where
    the classes turn out to be at chance on those, it is trained again without them.

    Raises: DataError where it recognizes no image that it was not trained on, or there are too few.
    """
    network, record = cached(
        cache_folder() / "encoders" / f"domain-{cache_key(image_set, recipe)}.safetensors",
        lambda path: _read(path, image_set),
        lambda: _train(image_set, device, recipe),
        lambda file, found: _write(file, *found),
    )
    value, low, high = record["recognition"]
    if low <= 0.5:
        raise DataError(
            "the in-domain encoder is at chance and judges nothing: it recognizes images that it "
            f"was not trained on with an AUC of {value:.3f} (95 % interval {low:.3f} to "
            f"{high:.3f}, {record['num_measured_images']} images of {record['measured_on']}); "
            f"{_WAY_OUT}"
        )
    digest = hashlib.sha256()
    for name, weights in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(weights.cpu().contiguous().numpy().tobytes())
    return Encoder(
        name=NAME,
        weights_hash=digest.hexdigest(),
        feature_dim=FEATURE_DIM,
        num_classes=network.num_classes,
        notes=_notes(network, record),
        network=in_channels_last(network.to(device)),
        device=device,
        max_batch_size=_MAX_BATCH_SIZE[device.type],
    )


def cache_key(image_set: ImageSet, recipe: Recipe) -> str:
    """16 hex digits of all that shapes the weights: images, labels, splits, groups and recipe."""
    parts: list[Any] = [image_set.content_hash, dataclasses.asdict(recipe)]
    if image_set.groups is not None:  # they decide which images are held out
        parts.append(hashlib.sha256(image_set.groups.tobytes()).hexdigest())
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _train(
    image_set: ImageSet, device: torch.device, recipe: Recipe
) -> tuple[DomainNetwork, Record]:
    started = time.perf_counter()
    to_train, to_measure, measured_on = _divide(image_set, recipe.seed)
    trained, held_out = image_set.take(to_train), image_set.take(to_measure)
    uses_labels = len(np.unique(trained.labels)) > 1
    network = train(trained, device, recipe, uses_labels)
    features, logits = outputs_of(network, held_out.images, device)
    auc = accuracy = None
    if uses_labels:
        chances, labels = logits.softmax(dim=1).numpy(), held_out.labels
        accuracy = float((chances.argmax(axis=1) == labels).mean())
        auc = with_interval(
            lambda rows: mean_area_under_curve(chances[rows], labels[rows]),
            len(labels),
            held_out.groups,
        )
        if auc is None or auc[1] <= 0.5:
            uses_labels = False
            network = train(trained, device, recipe, uses_labels)
            features, _ = outputs_of(network, held_out.images, device)
    record = {
        "num_train_images": len(trained),
        # The split that the measures are of, or ``holdout``; never trained on.
        "measured_on": measured_on,
        "num_measured_images": len(held_out),
        # Of the classes, with its 95 % interval; None where no two classes are held out.
        "auc": auc,
        "accuracy": accuracy,
        "recognition": _measure_recognition(network, held_out, device),
        "effective_dim": effective_dimension(features),
        "uses_labels": uses_labels,
        "precision": "bf16" if native_dtype(device) == torch.bfloat16 else "fp32",
        "seconds": time.perf_counter() - started,
    }
    notes = "; ".join(_notes(network, record))
    log.info("in-domain encoder: %s, in %.0f s", notes, record["seconds"])
    return network, record


def _divide(image_set: ImageSet, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
    """Indices to train on and to measure on, of other groups, and what the latter are."""
    splits = np.array(image_set.split_names)[image_set.splits]
    is_trained = splits == "train"
    if not is_trained.any():
        is_trained[:] = True
    is_fresh = image_set.of_other_groups(is_trained)
    to_train = np.flatnonzero(is_trained)
    for name in ("test", "val"):
        if (held_out := (splits == name) & is_fresh).any():
            return to_train, np.flatnonzero(held_out), name
    labels = image_set.labels[to_train]
    if image_set.groups is not None:
        kind, groups = "groups (patients)", image_set.groups[to_train]
        drawn = draw_share(image_set, to_train, _HOLDOUT_FRACTION, seed)
        # The only group of a class stays in training, as the only image of one does below.
        unseen = np.setdiff1d(labels, labels[~drawn])
        drawn &= ~np.isin(groups, groups[np.isin(labels, unseen)])
    else:
        kind, drawn = "images", np.zeros(len(to_train), dtype=bool)
        rng = np.random.default_rng(seed)
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            num_held = min(math.ceil(_HOLDOUT_FRACTION * len(rows)), len(rows) - 1)
            drawn[rng.permutation(rows)[:num_held]] = True
    if not drawn.any():
        raise DataError(
            f"the in-domain encoder needs a class of at least two {kind} to measure itself on, and "
            f"the {len(to_train)} images have none; {_WAY_OUT}"
        )
    return to_train[~drawn], to_train[drawn], "holdout"


def _read(path: Path, image_set: ImageSet) -> tuple[DomainNetwork, Record]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record: Record = json.loads(file.metadata()["training"])
    # On the meta device no weights are drawn, which would move the run's random state.
    with torch.device("meta"):
        small = SmallNetwork(image_set.size, image_set.channels, len(image_set.class_names))
        network = DomainNetwork(small, record["uses_labels"])
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False), record


def _write(file: BinaryIO, network: DomainNetwork, record: Record) -> None:
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    file.write(save(tensors, metadata={"training": json.dumps(record)}))


def _notes(network: DomainNetwork, record: Record) -> tuple[str, ...]:
    measured = f"{record['num_measured_images']} images ({record['measured_on']})"
    how = "with labels" if record["uses_labels"] else "without labels"
    notes = [f"trained on {record['num_train_images']} images {how} in {record['precision']}"]

    def interval(key: str) -> str:
        value, low, high = record[key]
        return f"AUC {value:.3f} (95 % interval {low:.3f} to {high:.3f})"

    if record["uses_labels"]:
        notes.append(f"{interval('auc')}, accuracy {record['accuracy']:.3f} on {measured}")
    elif record["auc"] is not None:
        notes.append(f"classes at chance on {measured}, so left out of training: {interval('auc')}")
    notes += [
        f"recognizes moved images with {interval('recognition')}",
        f"effective dimension {record['effective_dim']:.0f} of {FEATURE_DIM}",
    ]
    small = network.network
    if small.working_size != small.image_size:
        notes.append(f"sees images averaged down to {small.working_size} pixels")
    return tuple(notes)


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
    inputs = network.preprocess(torch.from_numpy(images.images).to(device))
    targets = torch.from_numpy(images.labels).to(device)
    network.to(device)
    dtype = native_dtype(device)
    batches = shuffled_batches(len(images), recipe.batch_size, rng)

    def loss() -> Tensor:
        indices = next(batches).to(device)
        batch = inputs[indices]
        views = torch.cat([augment(batch, rng), augment(batch, rng)])
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            features, logits = network.classify(views.to(memory_format=torch.channels_last))
        total = invariance_loss(*features.float().chunk(2))
        if uses_labels:
            labels = targets[indices].repeat(2)
            total = total + recipe.label_weight * F.cross_entropy(logits.float(), labels)
        return total

    wanted = recipe.epochs * len(images) // recipe.batch_size
    num_updates = min(max(wanted, recipe.min_updates), recipe.max_updates)
    updates = descend(network, recipe, num_updates, loss)
    for _ in tqdm(updates, "in-domain encoder", num_updates, unit="update", disable=None):
        pass
    encoder = DomainNetwork(network, uses_labels).to(device).eval().requires_grad_(False)
    features, _ = outputs_of(encoder, images.images, device)
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


def _measure_recognition(
    network: DomainNetwork, held_out: ImageSet, device: torch.device
) -> tuple[float, float, float] | None:
    """How often two views of an image are nearer than views of two images, with its interval."""
    rows = np.random.default_rng(0).permutation(len(held_out))[:_MOST_RECOGNIZED]
    shown = held_out.take(np.sort(rows))
    rng = torch.Generator().manual_seed(0)
    inputs = network.preprocess(torch.from_numpy(shown.images))

    def view() -> Tensor:
        batches = torch.split(augment(inputs, rng), 256)
        return torch.cat(
            [network.classify(batch.to(device))[0].double().cpu() for batch in batches]
        )

    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(view(), view(), compute_mode=exact).numpy()
    own = distances.diagonal()[:, None]
    others = ~np.eye(len(own), dtype=bool)
    nearer = ((own < distances) + 0.5 * (own == distances)) * others
    share = nearer.sum(axis=1) / max(len(own) - 1, 1)
    return with_interval(lambda rows: float(share[rows].mean()), len(own), shown.groups)
