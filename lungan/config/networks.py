"""Config of the generator and the discriminator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lungan.config.rules import Part, above, at_least, between, portion, rule, within
from lungan.errors import ConfigError
from lungan.registry import declare

if TYPE_CHECKING:
    from lungan.config.run import RunConfig


def _width() -> Any:
    return rule(
        "a multiple of 8, from 8 to 65536",
        lambda value: 8 <= value <= 65536 and value % 8 == 0,
    )


@dataclass(kw_only=True, slots=True)
class GeneratorConfig(Part):
    """``conditional``: images of a class that is asked for; the discriminator then judges an image
    beside its class. ``ema_half_life_images``: after so many images, what is left of a weight in
    the exponential moving average is half (0: no average); ``ema_ramp_up`` times the images seen
    is the longest half-life, so that the beginning is forgotten soon."""

    latent_dim: int = between(1, 65536, default=100)
    conditional: bool = rule(neutral=False)
    ema_half_life_images: float = at_least(0, neutral=0)
    ema_ramp_up: float = above(0, neutral=0.05)

    def check(self, run: RunConfig) -> None:
        if run.data.classes:
            self.check_classes(run.data.classes)

    def check_classes(self, names: Sequence[str]) -> None:
        """Check that the training images have classes enough. Raises: ConfigError."""
        if self.conditional and len(names) < 2:
            raise ConfigError(
                "generator.conditional=true needs images of at least two classes to train on, got "
                f"{', '.join(names)}; choose more by data.classes=[...], where [] is all"
            )


@dataclass(kw_only=True, slots=True)
class StagedGeneratorConfig(GeneratorConfig):
    """``width`` channels where the image is largest, doubled a stage up to ``max_width``."""

    width: int = _width()
    max_width: int = _width()
    batch_norm_momentum: float = portion()
    batch_norm_epsilon: float = above(0)

    def check(self, run: RunConfig) -> None:
        GeneratorConfig.check(self, run)
        _check_network("generator", self, run.data.size)


@dataclass(kw_only=True, slots=True)
class LeakyGeneratorConfig(StagedGeneratorConfig):
    leaky_slope: float = within(0, 1)


declare("generator", "dcgan", "lungan.models.dcgan:DcganGenerator", LeakyGeneratorConfig)
declare("generator", "resnet", "lungan.models.resnet:ResnetGenerator", StagedGeneratorConfig)
declare("generator", "fastgan", "lungan.models.fastgan:FastganGenerator", LeakyGeneratorConfig)


@dataclass(kw_only=True, slots=True)
class DiscriminatorConfig(Part):
    """``spectral_norm`` divides every kernel by its largest singular value."""

    spectral_norm: bool = rule(neutral=False)


@dataclass(kw_only=True, slots=True)
class StagedDiscriminatorConfig(DiscriminatorConfig):
    """``width`` channels where the image is largest, doubled a stage up to ``max_width``."""

    width: int = _width()
    max_width: int = _width()
    leaky_slope: float = within(0, 1)

    def check(self, run: RunConfig) -> None:
        _check_network("discriminator", self, run.data.size)


@dataclass(kw_only=True, slots=True)
class DcganDiscriminatorConfig(StagedDiscriminatorConfig):
    """``hidden_width``: features of a dense layer before the logit, 0 for none. Without it the
    logit is a sum over places, each seen through a window of the convolutions, and how places far
    from each other fit together goes unseen."""

    dropout: float = within(0, 1)
    hidden_width: int = at_least(0, neutral=0, most=65536)


@dataclass(kw_only=True, slots=True)
class FastganDiscriminatorConfig(StagedDiscriminatorConfig):
    """``hidden_width``: features of the dense layer that sees the whole image."""

    hidden_width: int = between(1, 65536)


for _name, _builder, _config in (
    ("dcgan", "dcgan:DcganDiscriminator", DcganDiscriminatorConfig),
    ("resnet", "resnet:ResnetDiscriminator", StagedDiscriminatorConfig),
    ("fastgan", "fastgan:FastganDiscriminator", FastganDiscriminatorConfig),
):
    declare("discriminator", _name, f"lungan.models.{_builder}", _config)


def stages(size: int) -> tuple[int, int]:
    """How often a map of 7 or 8 pixels doubles to reach ``size`` pixels, and which of the two.

    Raises: ConfigError where neither does.
    """
    for base in (7, 8):
        doublings = round(math.log2(size / base))
        if doublings >= 1 and base * 2**doublings == size:
            return doublings, base
    raise ConfigError(f"data.size must be 7 or 8 times a power of two, got {size}")


def _check_network(group: str, network: Any, size: int) -> None:
    """Check that a network of lungan's own can make or judge images of ``size`` pixels, and that
    ``max_width`` does not silently cut its width. Raises: ConfigError."""
    if size not in (base * 2**doublings for base in (7, 8) for doublings in range(2, 9)):
        raise ConfigError(
            "data.size must be 7 or 8 times a power of two (28, 32, 56, 64, 112, 128, 224, 256) "
            f"for {group}={network.name}, got {size}"
        )
    if network.width > network.max_width:
        raise ConfigError(
            f"{group}.width must be at most {group}.max_width ({network.max_width}), got "
            f"{network.width}; set {group}.max_width too"
        )
