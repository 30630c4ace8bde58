"""Config of the generator and the discriminator."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lungan.config.rules import above, at_least, rule, switch, within


@dataclass(kw_only=True, slots=True)
class GeneratorConfig:
    """``conditional``: images of a class that is asked for; the discriminator then judges an image
    beside its class. ``ema_half_life_images``: after so many images, what is left of a weight in
    the exponential moving average is half (0: no average); ``ema_ramp_up`` times the images seen
    is the longest half-life, so that the beginning is forgotten soon."""

    name: str
    latent_dim: int = at_least(1)
    conditional: bool = switch(neutral=False)
    ema_half_life_images: float = at_least(0, neutral=0)
    ema_ramp_up: float = above(0, neutral=0.05)


@dataclass(kw_only=True, slots=True)
class DcganGeneratorConfig(GeneratorConfig):
    """``width`` channels before the last layer, doubled a stage up to ``max_width``."""

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    leaky_slope: float = within(0, 1)
    batch_norm_momentum: float = rule("greater than 0, at most 1", lambda value: 0 < value <= 1)
    batch_norm_epsilon: float = above(0)


@dataclass(kw_only=True, slots=True)
class ResnetGeneratorConfig(GeneratorConfig):
    """``width`` channels in the last block, doubled a stage up to ``max_width``."""

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    batch_norm_momentum: float = rule("greater than 0, at most 1", lambda value: 0 < value <= 1)
    batch_norm_epsilon: float = above(0)


@dataclass(kw_only=True, slots=True)
class DiscriminatorConfig:
    """``spectral_norm`` divides every kernel by its largest singular value."""

    name: str
    spectral_norm: bool = switch(neutral=False)


@dataclass(kw_only=True, slots=True)
class DcganDiscriminatorConfig(DiscriminatorConfig):
    """``width`` channels after the first layer, doubled a stage up to ``max_width``.

    ``hidden_width``: features of a dense layer before the logit, 0 for none. Without it the logit
    is a sum over places, each seen through a window of the convolutions, and how places far from
    each other fit together goes unseen.
    """

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    leaky_slope: float = within(0, 1)
    dropout: float = within(0, 1)
    hidden_width: int = at_least(0, neutral=0)


@dataclass(kw_only=True, slots=True)
class ResnetDiscriminatorConfig(DiscriminatorConfig):
    """``width`` channels in the first block, doubled a stage up to ``max_width``."""

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    leaky_slope: float = within(0, 1)


def num_stages(size: int) -> int | None:
    """How often a 7- or 8-pixel map doubles to reach ``size`` pixels; None where it cannot."""
    for base in (7, 8):
        stages = round(math.log2(size / base))
        if stages >= 1 and base * 2**stages == size:
            return stages
    return None
