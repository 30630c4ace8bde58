"""RunConfig: everything that defines one run, as plain dataclasses with their rules.

No number stands here: values live in conf/, ranges and meanings in this file. The module imports
neither torch nor Hydra, so every part of lungan may import it.

Slots make an unknown key fail; ``frozen`` and ``Literal`` are left out because OmegaConf refuses
them in structured configs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NEUTRAL = "neutral"
"""Field metadata of a key that came after runs had been named without it: its value that means
what was before. At that value the key is left out of every id, so that stores outlive new keys."""


def rule(text: str, holds: Callable[[Any], bool], **metadata: Any) -> Any:
    """A field whose value must satisfy ``holds``; ``text`` follows "must be".

    Without a default, but for a key with a neutral value, which configs saved before it lack.
    """
    default = metadata.get(NEUTRAL, dataclasses.MISSING)
    return dataclasses.field(default=default, metadata={"text": text, "holds": holds, **metadata})


def at_least(low: float, **metadata: Any) -> Any:
    return rule(f"at least {low}", lambda value: math.isfinite(value) and value >= low, **metadata)


def above(low: float, **metadata: Any) -> Any:
    return rule(
        f"greater than {low}", lambda value: math.isfinite(value) and value > low, **metadata
    )


def within(low: float, high: float, **metadata: Any) -> Any:
    """From ``low`` up to, but not including, ``high``."""
    return rule(
        f"at least {low} and less than {high}", lambda value: low <= value < high, **metadata
    )


def switch(neutral: bool) -> Any:
    """A field that is true or false, with its neutral value."""
    return rule("true or false", lambda value: isinstance(value, bool), neutral=neutral)


def one_of(*choices: Any, **metadata: Any) -> Any:
    text = ", ".join(map(str, choices))
    text = text if len(choices) == 1 else f"one of {text}"
    return rule(text, lambda value: value in choices, **metadata)


def subset_of(*choices: str) -> Any:
    return rule(
        f"a list of distinct names from {', '.join(choices)}",
        lambda value: set(value) <= set(choices) and len(set(value)) == len(value),
    )


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What every reader shares. ``splits`` and ``classes`` choose what the GAN trains on; an
    empty list means all. Scores see the whole set.

    ``fraction`` of the images of ``splits``, class by class, are kept there; the others make up a
    split of their own. ``fraction_seed`` draws which."""

    name: str
    size: int
    channels: int = one_of(1, 3)
    splits: list[str]
    classes: list[str]
    fraction: float = rule("greater than 0, at most 1", lambda value: 0 < value <= 1, neutral=1.0)
    fraction_seed: int = within(0, 2**63, neutral=0)


@dataclass(kw_only=True, slots=True)
class PhantomConfig(DataConfig):
    """Procedural chest radiographs drawn from ``seed``; ``num_images`` in train + val."""

    size: int = rule("from 28 to 256", lambda value: 28 <= value <= 256)
    channels: int = one_of(1)
    splits: list[str] = subset_of("train", "val", "test")
    classes: list[str] = subset_of("normal", "pneumonia")
    num_images: int = at_least(20)
    num_test: int = at_least(4)
    seed: int = at_least(0)


@dataclass(kw_only=True, slots=True)
class PneumoniaMnistConfig(DataConfig):
    """PneumoniaMNIST at ``path`` (a file, or a folder that holds it), LUNGAN_DATA, the cache, or
    downloaded where ``download`` allows it."""

    size: int = one_of(28, 64, 128, 224)
    channels: int = one_of(1)
    splits: list[str] = subset_of("train", "val", "test")
    classes: list[str] = subset_of("normal", "pneumonia")
    path: str | None
    download: bool


@dataclass(kw_only=True, slots=True)
class FolderConfig(DataConfig):
    """Image files under ``path``: class folders, split/class folders, or one flat folder."""

    size: int = rule("from 16 to 512", lambda value: 16 <= value <= 512)
    path: str
    on_bad_image: str = one_of("error", "skip")
    val_fraction: float = within(0, 1)
    test_fraction: float = within(0, 1)


@dataclass(kw_only=True, slots=True)
class NpzConfig(DataConfig):
    """An .npz with MedMNIST's keys, or ``images`` and, optionally, ``labels``."""

    size: int = rule("from 16 to 512", lambda value: 16 <= value <= 512)
    path: str
    val_fraction: float = within(0, 1)
    test_fraction: float = within(0, 1)


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
    """``width`` channels after the first layer, doubled a stage up to ``max_width``."""

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    leaky_slope: float = within(0, 1)
    dropout: float = within(0, 1)


@dataclass(kw_only=True, slots=True)
class ResnetDiscriminatorConfig(DiscriminatorConfig):
    """``width`` channels in the first block, doubled a stage up to ``max_width``."""

    width: int = rule("a multiple of 8, at least 8", lambda value: value >= 8 and value % 8 == 0)
    max_width: int = rule("a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
    leaky_slope: float = within(0, 1)


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """The adversarial loss, what is added to the discriminator's, and the form of the step.

    ``update``: ``simultaneous`` is the report's step, both updates from one generator forward;
    ``alternating`` draws new latents for the generator after ``discriminator_updates``.
    ``micro_batches``: the parts that a batch is taken in, for batches too large for the memory.
    ``r1``, ``r2``: weight of half the squared gradient at real and at fake images.
    ``gradient_penalty``: weight of (gradient's length - 1)^2 between real and fake images.
    ``penalty_every_steps``: these three every so many steps only, weighted as many times.
    ``lecam``: weight of the squared distance of logits from the other side's running mean, which
    forgets by ``lecam_decay`` a step. A weight of 0 leaves a term out.
    """

    name: str
    update: str = one_of("simultaneous", "alternating")
    discriminator_updates: int = at_least(1)
    micro_batches: int = at_least(1, neutral=1)
    r1: float = at_least(0, neutral=0)
    r2: float = at_least(0, neutral=0)
    gradient_penalty: float = at_least(0, neutral=0)
    penalty_every_steps: int = at_least(1, neutral=1)
    lecam: float = at_least(0, neutral=0)
    lecam_decay: float = within(0, 1, neutral=0.99)


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    name: str
    generator_lr: float = above(0)
    discriminator_lr: float = above(0)


@dataclass(kw_only=True, slots=True)
class AdamConfig(OptimizerConfig):
    """``epsilon_convention``: where epsilon stands. ``keras`` adds it before bias correction."""

    beta1: float = within(0, 1)
    beta2: float = within(0, 1)
    epsilon: float = above(0)
    epsilon_convention: str = one_of("keras", "torch")
    weight_decay: float = at_least(0)


@dataclass(kw_only=True, slots=True)
class RmspropConfig(OptimizerConfig):
    """``epsilon_convention``: ``keras`` has epsilon inside the square root, ``torch`` outside."""

    decay: float = within(0, 1)
    momentum: float = within(0, 1)
    epsilon: float = above(0)
    epsilon_convention: str = one_of("keras", "torch")


@dataclass(kw_only=True, slots=True)
class SgdConfig(OptimizerConfig):
    momentum: float = within(0, 1)


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """A factor on both learning rates, a function of epochs done. ``warmup_epochs`` rise
    linearly from zero before the schedule proper."""

    name: str
    warmup_epochs: float = at_least(0)


@dataclass(kw_only=True, slots=True)
class DecayScheduleConfig(ScheduleConfig):
    """``linear`` and ``cosine``: from 1 to ``final_factor`` at the last epoch of the run."""

    final_factor: float = rule("from 0 to 1", lambda value: 0 <= value <= 1)


@dataclass(kw_only=True, slots=True)
class StepScheduleConfig(ScheduleConfig):
    every_epochs: int = at_least(1)
    factor: float = rule("greater than 0, at most 1", lambda value: 0 < value <= 1)


@dataclass(kw_only=True, slots=True)
class AugmentConfig:
    name: str


@dataclass(kw_only=True, slots=True)
class DiffAugmentConfig(AugmentConfig):
    """Random changes of every image that the discriminator sees; 0 leaves one out.

    ``brightness``: at most so much added, of a range of 2. ``contrast``, ``saturation`` (of colour
    images): a factor from 1 less to 1 more of it. ``translation``: at most so much of the image's
    size. ``cutout``: side of the grey square, of the image's size.
    """

    brightness: float = rule("from 0 to 2", lambda value: 0 <= value <= 2)
    contrast: float = rule("from 0 to 1", lambda value: 0 <= value <= 1)
    saturation: float = rule("from 0 to 1", lambda value: 0 <= value <= 1)
    translation: float = rule("from 0 to 0.5", lambda value: 0 <= value <= 0.5)
    cutout: float = within(0, 1)


@dataclass(kw_only=True, slots=True)
class AdaptiveConfig(DiffAugmentConfig):
    """Each change with a probability that rises while the overfitting signal (share of real images
    taken for real, less that of those not) is above ``target`` and falls while it is below; it
    would go from 0 to 1 in ``adjust_images`` images."""

    target: float = rule("from -1 to 1", lambda value: -1 <= value <= 1)
    adjust_images: float = above(0)


@dataclass(kw_only=True, slots=True)
class ScoreConfig:
    """How a generator is scored. ``encoders``: networks whose features the scores are taken in;
    ``auto`` is Inception where its weights are at hand and the in-domain encoder for data with
    labels. ``num_images=0`` means as many as the reference split allows. ``inception_precision``
    of ``auto`` is bf16 where the hardware computes in it natively."""

    name: str
    encoders: list[str] = subset_of("auto", "inception", "domain", "efficientnet_lite2")
    num_images: int = rule("0, or at least 20", lambda value: value == 0 or value >= 20)
    batch_size: int = at_least(1)
    seed: int = at_least(0)
    every_epochs: int = at_least(0)
    inception_weights: str | None
    inception_precision: str = one_of("auto", "fp32", "bf16", neutral="auto")
    require_inception: bool
    inception_splits: int = at_least(1)
    nearest_k: int = at_least(1)
    kernel_subsets: int = at_least(1)
    kernel_subset_size: int = at_least(2)
    extrapolate: bool
    memorization: bool
    floor_splits: int = at_least(1)


@dataclass(kw_only=True, slots=True)
class TrackerConfig:
    name: str


@dataclass(kw_only=True, slots=True)
class WandbConfig(TrackerConfig):
    mode: str = one_of("offline", "online", "disabled")
    project: str = rule("a name", lambda value: bool(value.strip()))
    entity: str | None
    group: str | None
    tags: list[str]


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run. ``lr`` is where both learning rates come from unless set one by one; ``threads=0``
    leaves the number of CPU threads to torch."""

    data: DataConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    augment: AugmentConfig
    score: ScoreConfig
    tracker: TrackerConfig
    epochs: int = at_least(1)
    batch_size: int = at_least(2)
    lr: float = above(0)
    seed: int = rule("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)
    precision: str = one_of("auto", "fp32", "bf16")
    device: str
    threads: int = at_least(0)
    store: str = rule("a folder", lambda value: bool(value.strip()))
    checkpoint_every_epochs: int = at_least(1)
    samples_every_epochs: int = at_least(0)
    retry: str = one_of("never", "diverged")


SCHEMAS: dict[str, dict[str, type[Any]]] = {
    "data": {
        "phantom": PhantomConfig,
        "pneumoniamnist": PneumoniaMnistConfig,
        "folder": FolderConfig,
        "npz": NpzConfig,
    },
    "generator": {"dcgan": DcganGeneratorConfig, "resnet": ResnetGeneratorConfig},
    "discriminator": {"dcgan": DcganDiscriminatorConfig, "resnet": ResnetDiscriminatorConfig},
    "loss": {
        "bce": LossConfig,
        "hinge": LossConfig,
        "lsgan": LossConfig,
        "wgan_gp": LossConfig,
        "relativistic": LossConfig,
    },
    "optimizer": {
        "adam": AdamConfig,
        "adamw": AdamConfig,
        "rmsprop": RmspropConfig,
        "sgd": SgdConfig,
    },
    "schedule": {
        "constant": ScheduleConfig,
        "linear": DecayScheduleConfig,
        "cosine": DecayScheduleConfig,
        "step": StepScheduleConfig,
    },
    "augment": {
        "none": AugmentConfig,
        "diffaugment": DiffAugmentConfig,
        "adaptive": AdaptiveConfig,
    },
    "score": {
        "none": ScoreConfig,
        "fast": ScoreConfig,
        "standard": ScoreConfig,
        "full": ScoreConfig,
    },
    "tracker": {"none": TrackerConfig, "wandb": WandbConfig},
}
"""The choices of every group, and the dataclass that each composes against."""


def num_stages(size: int) -> int | None:
    """How often a 7- or 8-pixel map doubles to reach ``size`` pixels; None where it cannot."""
    for base in (7, 8):
        stages = round(math.log2(size / base))
        if stages >= 1 and base * 2**stages == size:
            return stages
    return None
