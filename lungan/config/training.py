"""Config of what trains the networks: loss, optimizer, schedule, augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from lungan.config.rules import above, at_least, one_of, rule, within


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
