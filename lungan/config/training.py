"""Config of what is trained and how: networks, loss, optimizer, schedule, augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lungan.config.rules import Part, above, at_least, between, one_of, portion, rule, within
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


def widths(
    network: StagedGeneratorConfig | StagedDiscriminatorConfig, num_stages: int
) -> list[int]:
    """Channels of so many stages, from where the image is largest on."""
    return [min(network.width * 2**stage, network.max_width) for stage in range(num_stages)]


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


@dataclass(kw_only=True, slots=True)
class LossConfig(Part):
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

    update: str = one_of("simultaneous", "alternating", default="alternating")
    discriminator_updates: int = at_least(1, default=1, most=1000)
    micro_batches: int = at_least(1, neutral=1)
    r1: float = at_least(0, neutral=0)
    r2: float = at_least(0, neutral=0)
    gradient_penalty: float = at_least(0, neutral=0)
    penalty_every_steps: int = at_least(1, neutral=1)
    lecam: float = at_least(0, neutral=0)
    lecam_decay: float = within(0, 1, neutral=0.99)

    def check(self, run: RunConfig) -> None:
        if self.update == "simultaneous":
            for key in ("discriminator_updates", "micro_batches"):
                if getattr(self, key) != 1:
                    raise ConfigError(
                        f"loss.{key} must be 1 with loss.update=simultaneous, got "
                        f"{getattr(self, key)}; use loss.update=alternating"
                    )
        if self.micro_batches > run.batch_size:
            raise ConfigError(
                f"loss.micro_batches must be at most batch_size ({run.batch_size}), "
                f"got {self.micro_batches}"
            )
        bounded = self.gradient_penalty or self.r1 or run.discriminator.spectral_norm
        if self.name == "wgan_gp" and not bounded:
            raise ConfigError(
                "loss=wgan_gp needs a bounded gradient, or its loss has no end: set "
                "loss.gradient_penalty above 0 (10 is usual) or discriminator.spectral_norm=true"
            )


for _name in ("bce", "hinge", "lsgan", "wgan_gp", "relativistic"):
    declare("loss", _name, f"lungan.training.losses:{_name}", LossConfig)


@dataclass(kw_only=True, slots=True)
class OptimizerConfig(Part):
    """Each network has an optimizer of its own, with a learning rate of its own."""

    generator_lr: float = above(0, follows="lr")
    discriminator_lr: float = above(0, follows="lr")


@dataclass(kw_only=True, slots=True)
class AdamConfig(OptimizerConfig):
    """``epsilon_convention``: where epsilon stands. ``keras`` adds it before bias correction."""

    beta1: float = within(0, 1)
    beta2: float = within(0, 1)
    epsilon: float = above(0)
    epsilon_convention: str = one_of("keras", "torch")
    weight_decay: float = at_least(0)


declare("optimizer", "adam", "lungan.training.optimizers:build_adam", AdamConfig)
declare("optimizer", "adamw", "lungan.training.optimizers:build_adam", AdamConfig)


@dataclass(kw_only=True, slots=True)
class RmspropConfig(OptimizerConfig):
    """``epsilon_convention``: ``keras`` has epsilon inside the square root, ``torch`` outside."""

    decay: float = within(0, 1)
    momentum: float = within(0, 1)
    epsilon: float = above(0)
    epsilon_convention: str = one_of("keras", "torch")


declare("optimizer", "rmsprop", "lungan.training.optimizers:build_rmsprop", RmspropConfig)


@dataclass(kw_only=True, slots=True)
class SgdConfig(OptimizerConfig):
    momentum: float = within(0, 1)


declare("optimizer", "sgd", "lungan.training.optimizers:build_sgd", SgdConfig)


@dataclass(kw_only=True, slots=True)
class ScheduleConfig(Part):
    """A factor on both learning rates, a function of epochs done. ``warmup_epochs`` rise
    linearly from zero before the schedule proper.

    ``sees_horizon``: the factor at an epoch depends on how many epochs the run has, which then
    belong to its trajectory: a longer run cannot go on from a shorter one."""

    sees_horizon: ClassVar[bool] = True

    warmup_epochs: float = at_least(0, default=0.0)

    def check(self, run: RunConfig) -> None:
        if self.warmup_epochs > run.epochs:
            raise ConfigError(
                f"schedule.warmup_epochs must be at most epochs ({run.epochs}), "
                f"got {self.warmup_epochs}"
            )


@dataclass(kw_only=True, slots=True)
class ConstantScheduleConfig(ScheduleConfig):
    sees_horizon: ClassVar[bool] = False


declare("schedule", "constant", "lungan.training.schedules:constant", ConstantScheduleConfig)


@dataclass(kw_only=True, slots=True)
class DecayScheduleConfig(ScheduleConfig):
    """``linear`` and ``cosine``: from 1 to ``final_factor`` at the last epoch of the run."""

    final_factor: float = between(0, 1)


declare("schedule", "linear", "lungan.training.schedules:linear", DecayScheduleConfig)
declare("schedule", "cosine", "lungan.training.schedules:cosine", DecayScheduleConfig)


@dataclass(kw_only=True, slots=True)
class StepScheduleConfig(ScheduleConfig):
    sees_horizon: ClassVar[bool] = False

    every_epochs: int = at_least(1)
    factor: float = portion()


declare("schedule", "step", "lungan.training.schedules:step", StepScheduleConfig)


@dataclass(kw_only=True, slots=True)
class AugmentConfig(Part):
    """What all augmentations have, and all that ``none`` has."""


declare("augment", "none", "lungan.training.augment:unchanged", AugmentConfig)


@dataclass(kw_only=True, slots=True)
class DiffAugmentConfig(AugmentConfig):
    """Random changes of every image that the discriminator sees; 0 leaves one out.

    ``brightness``: at most so much added, of a range of 2. ``contrast``, ``saturation`` (of colour
    images): a factor from 1 less to 1 more of it. ``translation``: at most so much of the image's
    size. ``cutout``: side of the grey square, of the image's size.
    """

    brightness: float = between(0, 2)
    contrast: float = between(0, 1)
    saturation: float = between(0, 1)
    translation: float = between(0, 0.5)
    cutout: float = within(0, 1)

    def check(self, _run: RunConfig) -> None:
        if not any((self.brightness, self.contrast, self.translation, self.cutout)):
            raise ConfigError(
                f"augment={self.name} changes nothing with brightness, contrast, translation and "
                "cutout all 0; give one, or use augment=none"
            )


declare("augment", "diffaugment", "lungan.training.augment:diffaugment", DiffAugmentConfig)


@dataclass(kw_only=True, slots=True)
class AdaptiveConfig(DiffAugmentConfig):
    """Each change with a probability that rises while the overfitting signal (share of real images
    taken for real, less that of those not) is above ``target`` and falls while it is below; it
    would go from 0 to 1 in ``adjust_images`` images."""

    target: float = between(-1, 1)
    adjust_images: float = above(0)


declare("augment", "adaptive", "lungan.training.augment:diffaugment", AdaptiveConfig)
