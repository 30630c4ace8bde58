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
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save

from lungan.classifiers.network import FEATURE_DIM, SmallNetwork, in_channels_last
from lungan.config import ScoreConfig
from lungan.data.images import ImageSet, draw_share
from lungan.device import native_dtype
from lungan.errors import DataError
from lungan.files import cache_folder, cached
from lungan.scores.domain_training import (
    RECIPE,
    DomainNetwork,
    Recipe,
    effective_dimension,
    features_of,
    measure_classes,
    measure_recognition,
    train,
)
from lungan.scores.encoders import Encoder

NAME = "domain"

_HOLDOUT_FRACTION = 0.2
_MAX_BATCH_SIZE = {"cpu": 128, "cuda": 1024}
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is known of a trained network, kept beside its weights.

    measured_on: the split that the measures are of, or ``holdout``; never trained on.
    auc: of the classes, and its 95 % interval; None where there are no two classes.
    recognition: how often two views of one held-out image are nearer to each other than to another
    image, 0.5 being chance, and its 95 % interval.
    effective_dim: participation ratio of the held-out features, at most the feature dimension.
    uses_labels: False where the classes are at chance, so that the network was trained without.
    """

    num_train_images: int
    measured_on: str
    num_measured_images: int
    auc: tuple[float, float, float] | None
    accuracy: float | None
    recognition: tuple[float, float, float]
    effective_dim: float
    uses_labels: bool
    precision: str
    seconds: float


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
    path = cache_folder() / "encoders" / f"domain-{cache_key(image_set, recipe)}.safetensors"
    network, training = cached(
        path,
        lambda path: _read(path, image_set),
        lambda: _train(image_set, device, recipe),
        lambda file, found: _write(file, *found),
    )
    value, low, high = training.recognition
    if low <= 0.5:
        raise DataError(
            "the in-domain encoder is at chance and judges nothing: it recognizes images that it "
            f"was not trained on with an AUC of {value:.3f} (95 % interval {low:.3f} to "
            f"{high:.3f}, {training.num_measured_images} images of {training.measured_on}); use "
            "score.encoders=[inception] or [efficientnet_lite2]"
        )
    return Encoder(
        name=NAME,
        weights_hash=hash_weights(network),
        feature_dim=FEATURE_DIM,
        num_classes=network.num_classes,
        notes=_notes(network, training),
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


def hash_weights(network: torch.nn.Module) -> str:
    """SHA-256 (64 hex digits) of names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _train(
    image_set: ImageSet, device: torch.device, recipe: Recipe
) -> tuple[DomainNetwork, Training]:
    started = time.perf_counter()
    to_train, to_measure, measured_on = _divide(image_set, recipe.seed)
    trained, held_out = image_set.take(to_train), image_set.take(to_measure)
    uses_labels = len(np.unique(trained.labels)) > 1
    network = train(trained, device, recipe, uses_labels)
    auc = accuracy = None
    if uses_labels:
        auc, accuracy = measure_classes(network, held_out, device)
        if auc is None or auc[1] <= 0.5:
            uses_labels = False
            network = train(trained, device, recipe, uses_labels)
    features = features_of(network, held_out.images, device)
    training = Training(
        num_train_images=len(trained),
        measured_on=measured_on,
        num_measured_images=len(held_out),
        auc=auc,
        accuracy=accuracy,
        recognition=measure_recognition(network, held_out, device),
        effective_dim=effective_dimension(features),
        uses_labels=uses_labels,
        precision="bf16" if native_dtype(device) == torch.bfloat16 else "fp32",
        seconds=time.perf_counter() - started,
    )
    log.info(
        "in-domain encoder: %s, in %.0f s", "; ".join(_notes(network, training)), training.seconds
    )
    return network, training


def _divide(image_set: ImageSet, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
    """Indices to train on and to measure on, of other groups, and what the latter are."""
    names = image_set.split_names
    members = {name: image_set.splits == index for index, name in enumerate(names)}
    if "train" not in members or not members["train"].any():
        members = {"train": np.ones(len(image_set), dtype=bool)}
    is_fresh = image_set.of_other_groups(members["train"])
    to_train = np.flatnonzero(members["train"])
    for name in ("test", "val"):
        if name in members and (held_out := members[name] & is_fresh).any():
            return to_train, np.flatnonzero(held_out), name
    if image_set.groups is not None:
        drawn = draw_share(image_set, to_train, _HOLDOUT_FRACTION, seed)
        labels, groups = image_set.labels[to_train], image_set.groups[to_train]
        # The only group of a class stays in training, as the only image of one does below.
        unseen = np.setdiff1d(labels, labels[~drawn])
        drawn &= ~np.isin(groups, groups[np.isin(labels, unseen)])
        if not drawn.any():
            raise DataError(
                "the in-domain encoder needs a class of at least two groups (patients) to measure "
                f"itself on, got {len(np.unique(groups))} in all"
            )
        return to_train[~drawn], to_train[drawn], "holdout"
    rng = np.random.default_rng(seed)
    held: list[NDArray[np.intp]] = []
    for label in np.unique(image_set.labels[to_train]):
        of_class = to_train[image_set.labels[to_train] == label]
        # A class of one stays in training: one that is never seen cannot be told apart.
        num_held = min(math.ceil(_HOLDOUT_FRACTION * len(of_class)), len(of_class) - 1)
        held.append(rng.permutation(of_class)[:num_held])
    to_measure = np.sort(np.concatenate(held))
    if not len(to_measure):
        raise DataError(
            "the in-domain encoder needs a class of at least two images to measure itself on, got "
            f"{len(to_train)} images in as many classes"
        )
    return np.setdiff1d(to_train, to_measure), to_measure, "holdout"


def _read(path: Path, image_set: ImageSet) -> tuple[DomainNetwork, Training]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record = json.loads(file.metadata()["training"])
    for key in ("auc", "recognition"):
        record[key] = None if record[key] is None else tuple(record[key])
    training = Training(**record)
    # On the meta device no weights are drawn, which would move the run's random state.
    with torch.device("meta"):
        small = SmallNetwork(image_set.size, image_set.channels, len(image_set.class_names))
        network = DomainNetwork(small, training.uses_labels)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False), training


def _write(file: BinaryIO, network: DomainNetwork, training: Training) -> None:
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    record = {"training": json.dumps(dataclasses.asdict(training))}
    file.write(save(tensors, metadata=record))


def _notes(network: DomainNetwork, training: Training) -> tuple[str, ...]:
    measured = f"{training.num_measured_images} images ({training.measured_on})"
    how = "with labels" if training.uses_labels else "without labels"
    notes = [f"trained on {training.num_train_images} images {how} in {training.precision}"]
    if training.auc is not None:
        value, low, high = training.auc
        auc = f"AUC {value:.3f} (95 % interval {low:.3f} to {high:.3f})"
        if training.uses_labels:
            notes.append(f"{auc}, accuracy {training.accuracy:.3f} on {measured}")
        else:
            notes.append(f"classes at chance on {measured}, so left out of training: {auc}")
    value, low, high = training.recognition
    notes += [
        f"recognizes moved images with AUC {value:.3f} (95 % interval {low:.3f} to {high:.3f})",
        f"effective dimension {training.effective_dim:.0f} of {FEATURE_DIM}",
    ]
    small = network.network
    if small.working_size != small.image_size:
        notes.append(f"sees images averaged down to {small.working_size} pixels")
    return tuple(notes)
