"""Which encoders a scoring uses, why another can't be had, and building them by name."""

from __future__ import annotations

import functools

import torch

from lungan.config import DataConfig, ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, WeightsError
from lungan.scores.encoding import Encoded, Encoder
from lungan.scores.inception_weights import InceptionWeights, find_weights

__all__ = ["Encoded", "Encoder", "build", "resolve"]


def resolve(
    config: ScoreConfig, data: DataConfig | None, has_labels: bool
) -> tuple[list[str], dict[str, str]]:
    """The names of the encoders to use, and the reason for each wanted one that can't be had.

    ``auto`` is Inception, and the in-domain encoder too where ``has_labels``: where every image has
    one of at least two classes. Weights may be downloaded here, so that what a run will lack is
    known before it trains. data: names the data in the reasons; None for images given as such.

    Raises: WeightsError where ``score.inception_weights`` is given and cannot be used, or Inception
    is required and cannot be had; ConfigError where it is required and not asked for.
    """
    wanted = [
        name
        for given in config.encoders
        for name in (_automatic(has_labels) if given == "auto" else [given])
    ]
    if config.require_inception and "inception" not in wanted:
        raise ConfigError(
            "score.require_inception=true needs auto or inception in score.encoders, got "
            f"{config.encoders}"
        )
    names: list[str] = []
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        reason = _missing(name, config, data, has_labels)
        if reason is None:
            names.append(name)
        else:
            reasons[name] = reason
    return names, reasons


def build(name: str, config: ScoreConfig, image_set: ImageSet, device: torch.device) -> Encoder:
    """The encoder of this name. The in-domain one is trained on ``image_set`` or read from cache.

    image_set: all splits and classes, whatever the generator trained on.

    Raises: WeightsError where weights cannot be had, DataError where ``image_set`` has no two
    classes to train on, ConfigError for an unknown name.
    """
    # Each network's module is imported when used: torchvision alone takes seconds.
    if name == "inception":
        return _inception(
            find_weights(config.inception_weights), device, config.inception_precision
        )
    if name == "domain":
        from lungan.scores import domain

        return domain.load_encoder(image_set, device)
    if name == "efficientnet_lite2":
        return _efficientnet(device)
    raise ConfigError(
        f"score.encoders must be among inception, domain, efficientnet_lite2, got {name}"
    )


# The runs of a sweep are scored with one network, read and folded once.
@functools.lru_cache(maxsize=1)
def _inception(weights: InceptionWeights, device: torch.device, precision: str) -> Encoder:
    from lungan.scores import inception

    return inception.load_encoder(weights, device, precision)


@functools.lru_cache(maxsize=1)
def _efficientnet(device: torch.device) -> Encoder:
    from lungan.scores import efficientnet

    return efficientnet.load_encoder(device)


def _automatic(has_labels: bool) -> list[str]:
    return ["inception", "domain"] if has_labels else ["inception"]


def _missing(
    name: str, config: ScoreConfig, data: DataConfig | None, has_labels: bool
) -> str | None:
    """Why this encoder cannot be had, or None."""
    if name == "inception":
        try:
            find_weights(config.inception_weights)
        except WeightsError as error:
            # A file that was named and cannot be used is a mistake, not a lack.
            if config.require_inception or config.inception_weights is not None:
                raise
            return str(error)
    elif name == "domain" and not has_labels:
        source = "the images have" if data is None else f"data={data.name} has"
        return (
            f"{source} no labels of two or more classes to train the in-domain encoder on; "
            "only the ImageNet encoders apply"
        )
    elif name == "efficientnet_lite2":
        from lungan.scores import efficientnet

        if missing := efficientnet.missing_packages():
            return efficientnet.missing_reason(missing)
    return None
