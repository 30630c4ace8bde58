"""The in-domain encoder: a small classifier of the real classes, trained once for a data set.

Its features know what tells this data apart, which ImageNet's may not (radiographs are grey and all
alike to them), and it needs no download. It is blind to what its classes do not need:
``docs/encoders.md``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lungan.classifiers.network import FEATURE_DIM, DomainNetwork, in_channels_last
from lungan.data.images import ImageSet, draw_share
from lungan.device import native_dtype
from lungan.errors import DataError
from lungan.files import atomic_write, cache_folder, lock
from lungan.scores.domain_training import RECIPE, Recipe, measure, train
from lungan.scores.encoders import NetworkEncoder

NAME = "domain"

_HOLDOUT_FRACTION = 0.2
_MAX_BATCH_SIZE = {"cpu": 128, "cuda": 1024}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is known of a trained network, kept beside its weights.

    measured_on: the split that auc and accuracy are of, or ``holdout``; never trained on.
    """

    num_train_images: int
    measured_on: str
    num_measured_images: int
    auc: float | None
    accuracy: float
    precision: str
    seconds: float


def load_encoder(
    image_set: ImageSet, device: torch.device, recipe: Recipe = RECIPE
) -> NetworkEncoder:
    """The encoder of this data set, from the cache folder or else trained and put there.

    image_set: all splits and classes. Trained on the train split (on all images where there is
    none), measured on the test split, else on val, else on a fifth that training leaves out.

    Raises: DataError where the images to train on have fewer than two classes.
    """
    path = cache_folder() / "encoders" / f"domain-{cache_key(image_set, recipe)}.safetensors"
    found = _cached(path, image_set)
    if found is None:
        with lock(path):
            found = _cached(path, image_set) or _train(image_set, device, recipe)
            try:
                if not path.is_file():
                    _write(path, *found)
            except OSError as error:
                log.warning("the in-domain encoder is not cached (set LUNGAN_CACHE): %s", error)
    network, training = found
    return NetworkEncoder(
        name=NAME,
        weights_hash=hash_weights(network),
        feature_dim=FEATURE_DIM,
        num_classes=network.classifier.out_features,
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


def _cached(path: Path, image_set: ImageSet) -> tuple[DomainNetwork, Training] | None:
    """What the cache has; None where it has none. A damaged file is removed."""
    try:
        if not path.is_file():
            return None
        return _read(path, image_set)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        log.warning("the cached in-domain encoder %s is damaged and trained again: %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None


def _train(
    image_set: ImageSet, device: torch.device, recipe: Recipe
) -> tuple[DomainNetwork, Training]:
    started = time.perf_counter()
    to_train, to_measure, measured_on = _divide(image_set, recipe.seed)
    num_present = len(np.unique(image_set.labels[to_train]))
    if num_present < 2:
        raise DataError(
            "the in-domain encoder needs images of at least two classes to train on, got "
            f"{num_present}; use score.encoders=[inception] or [efficientnet_lite2]"
        )
    dtype = native_dtype(device)
    images, labels = image_set.images, image_set.labels
    num_classes = len(image_set.class_names)
    network = train(images[to_train], labels[to_train], num_classes, device, dtype, recipe)
    quality = measure(network, images[to_measure], labels[to_measure], device)
    training = Training(
        num_train_images=len(to_train),
        measured_on=measured_on,
        num_measured_images=len(to_measure),
        auc=quality.auc,
        accuracy=quality.accuracy,
        precision="bf16" if dtype == torch.bfloat16 else "fp32",
        seconds=time.perf_counter() - started,
    )
    log.info(
        "in-domain encoder: %s, in %.0f s", "; ".join(_notes(network, training)), training.seconds
    )
    return network, training


def _divide(image_set: ImageSet, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], str]:
    """Indices to train on and to measure on, of other groups, and what the latter are."""
    members = {
        name: np.flatnonzero(image_set.splits == index)
        for index, name in enumerate(image_set.split_names)
    }
    to_train = members.get("train", np.empty(0, np.intp))
    if not len(to_train):
        to_train = np.arange(len(image_set))
        members = {}
    is_fresh = image_set.of_other_groups(np.isin(np.arange(len(image_set)), to_train))
    for name in ("test", "val"):
        held_out = members.get(name, to_train[:0])
        if len(held_out := held_out[is_fresh[held_out]]):
            return to_train, held_out, name
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
    # On the meta device no weights are drawn, which would move the run's random state.
    with torch.device("meta"):
        network = DomainNetwork(image_set.size, image_set.channels, len(image_set.class_names))
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        training = Training(**json.loads(file.metadata()["training"]))
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False), training


def _write(path: Path, network: DomainNetwork, training: Training) -> None:
    tensors: dict[str, Tensor] = {
        name: value.cpu().contiguous() for name, value in network.state_dict().items()
    }
    record = {"training": json.dumps(dataclasses.asdict(training))}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(save(tensors, metadata=record))


def _notes(network: DomainNetwork, training: Training) -> tuple[str, ...]:
    auc = "AUC undefined" if training.auc is None else f"AUC {training.auc:.3f}"
    notes = [
        f"trained on {training.num_train_images} images in {training.precision}",
        f"{auc}, accuracy {training.accuracy:.3f} on {training.num_measured_images} images "
        f"({training.measured_on})",
    ]
    if network.working_size != network.image_size:
        notes.append(f"sees images averaged down to {network.working_size} pixels")
    return tuple(notes)
