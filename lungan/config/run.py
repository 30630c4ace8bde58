"""Config of one run: a choice of every group, and what belongs to none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lungan.config.data import DataConfig
from lungan.config.networks import DiscriminatorConfig, GeneratorConfig
from lungan.config.rules import (
    Part,
    above,
    any_seed,
    at_least,
    check_fields,
    is_part,
    one_of,
    rule,
    schema,
    subset_of,
    types_of,
)
from lungan.config.training import AugmentConfig, LossConfig, OptimizerConfig, ScheduleConfig
from lungan.errors import ConfigError
from lungan.registry import declare, names


@dataclass(kw_only=True, slots=True)
class ScoreConfig(Part):
    """How a generator is scored. ``encoders``: networks whose features the scores are taken in;
    ``auto`` is Inception where its weights are at hand and the in-domain encoder. ``num_images=0``
    means as many as the reference split allows. ``inception_precision`` of ``auto`` is bf16 where
    the hardware computes in it natively. ``floor_splits``: random halves of the real images.
    ``extra``: scores of plug-ins, in every encoder's features."""

    encoders: list[str] = subset_of("auto", group="encoder")
    num_images: int = rule("0, or at least 20", lambda value: value == 0 or value >= 20)
    batch_size: int = at_least(1)
    seed: int = any_seed()
    every_epochs: int = at_least(0)
    inception_weights: str | None
    inception_precision: str = one_of("auto", "fp32", "bf16", neutral="auto")
    require_inception: bool
    inception_splits: int = at_least(1, most=1000)
    nearest_k: int = at_least(1)
    kernel_subsets: int = at_least(1, most=10**5)
    kernel_subset_size: int = at_least(2)
    extrapolate: bool
    memorization: bool
    floor_splits: int = at_least(1, most=1000)
    extra: list[str] = subset_of(group="score", neutral=[])


for _name, _module in {
    "inception": "imagenet",
    "domain": "domain",
    "efficientnet_lite2": "imagenet",
    "spectrum": "texture",
    "contrast": "texture",
}.items():
    declare("encoder", _name, f"lungan.scores.{_module}:build_{_name}")


@dataclass(kw_only=True, slots=True)
class TrackerConfig(Part):
    """Where a run's records go besides its folder. ``also``: more trackers, with the settings that
    conf/ gives them."""

    also: list[str] = subset_of(group="tracker", neutral=[])

    def check(self, _run: RunConfig) -> None:
        if twice := {self.name, "none"} & set(self.also):
            raise ConfigError(
                f"tracker.also must name trackers besides tracker={self.name}, got {min(twice)}"
            )


declare("tracker", "none", "lungan.tracking:no_tracker", TrackerConfig)
declare("tracker", "tensorboard", "lungan.tracking.tensorboard:TensorBoardTracker", TrackerConfig)

WANDB_MODES = ("offline", "online", "disabled")
AGENT_VARIABLE = "WANDB_SWEEP_ID"
"""Set where a W&B agent started the process."""


@dataclass(kw_only=True, slots=True)
class WandbConfig(TrackerConfig):
    """Weights & Biases. What is null is taken from W&B's own environment variables, such as
    ``WANDB_PROJECT``, and where they are not set: mode offline, project lungan, W&B's default
    entity, the sweep's name as group. ``real_images`` sends some of the training images too."""

    mode: str | None = rule(
        f"null or one of {', '.join(WANDB_MODES)}",
        lambda value: value is None or value in WANDB_MODES,
        neutral=None,
    )
    project: str | None = rule(
        "null or a name", lambda value: value is None or bool(value.strip()), neutral=None
    )
    entity: str | None = rule("null or a name", lambda value: value != "", neutral=None)
    group: str | None = rule("null or a name", lambda value: value != "", neutral=None)
    tags: list[str] = rule(neutral=[])
    real_images: bool = rule(neutral=False)


declare("tracker", "wandb", "lungan.tracking.wandb:WandbTracker", WandbConfig)


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One run. ``lr`` is where both learning rates come from unless set one by one. What
    ``threads`` stands for is said by ``device.choose_threads``; a run that goes on from a
    checkpoint keeps the number that the checkpoint was made with, unless one is given."""

    data: DataConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    augment: AugmentConfig
    score: ScoreConfig
    tracker: TrackerConfig
    epochs: int = at_least(1, most=10**6)
    batch_size: int = at_least(2)
    lr: float = above(0)
    seed: int = any_seed()
    precision: str = one_of("auto", "fp32", "bf16")
    device: str = rule(
        "auto, cpu, cuda or cuda:<index>",
        lambda value: re.fullmatch("auto|cpu|cuda(:[0-9]+)?", value) is not None,
    )
    threads: int | str = rule(
        "auto, or a whole number from 0 to 4096",
        lambda value: value == "auto" or (isinstance(value, int) and 0 <= value <= 4096),
    )
    store: str = rule("a folder", lambda value: bool(value.strip()))
    checkpoint_every_epochs: int = at_least(1)
    samples_every_epochs: int = at_least(0)
    retry: str = one_of("never", "diverged")

    def check(self) -> None:
        """Check every field, and what parts demand of each other, before any data is read.

        Raises: ConfigError naming key, rule, value and the way out.
        """
        check_fields(self)
        for group, base in GROUPS.items():
            part = getattr(self, group)
            if schema(base, group, part.name) is not type(part):
                raise ConfigError(
                    f"{group}.name is set by {group}=<choice>, one of "
                    f"{', '.join(names(group))}; got {group}.name={part.name}"
                )
        for group in GROUPS:
            getattr(self, group).check(self)


GROUPS: dict[str, type[Part]] = {
    name: kind for name, kind in types_of(RunConfig).items() if is_part(kind)
}
"""The keys of a run that stand for a choice with settings of its own, and what all these share."""
