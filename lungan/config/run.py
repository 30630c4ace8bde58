"""Config of one run, a choice of every group and what belongs to none, and the two hashes that
name what it gives: its trajectory and its run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from lungan import registry
from lungan.config.data import DataConfig
from lungan.config.rules import (
    NEUTRAL,
    Part,
    above,
    any_seed,
    at_least,
    check_fields,
    filled,
    is_part,
    one_of,
    rule,
    schema,
    subset_of,
    types_of,
)
from lungan.config.training import (
    AugmentConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from lungan.errors import ConfigError
from lungan.registry import declare


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

    mode: str | None = one_of(*WANDB_MODES, neutral=None)
    project: str | None = filled("a name", neutral=None)
    entity: str | None = filled("a name", neutral=None)
    group: str | None = filled("a name", neutral=None)
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
    store: str = filled("a folder")
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
                    f"{', '.join(registry.names(group))}; got {group}.name={part.name}"
                )
        for group in GROUPS:
            getattr(self, group).check(self)


GROUPS: dict[str, type[Part]] = {
    name: kind for name, kind in types_of(RunConfig).items() if is_part(kind)
}
"""The keys of a run that stand for a choice with settings of its own, and what all these share."""

SHAPING = ("generator", "discriminator", "loss", "optimizer", "schedule", "augment")
"""The groups whose choices shape the weights; the images' hash stands for the data's."""

RECIPE_VERSION = 2
"""Part of every trajectory id: raised when the same config would train to other weights."""


def trajectory_id(config: RunConfig, data_hash: str, precision: str) -> str:
    """Hash (64 hex digits) of all that shapes the weights step by step.

    Of a plug-in's choice it holds the code too: distribution, version and hash of its source.

    data_hash: ``content_hash`` of the images that the run trains on, which stands for the data
    config: the same images from another path are the same trajectory.
    precision: the resolved one, ``fp32`` or ``bf16``.
    """
    shaping: dict[str, Any] = {
        "recipe": RECIPE_VERSION,
        "data": data_hash,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "precision": precision,
    }
    for group in SHAPING:
        part = getattr(config, group)
        values = {field: getattr(part, field.name) for field in dataclasses.fields(part)}
        shaping[group] = {
            field.name: value
            for field, value in values.items()
            if NEUTRAL not in field.metadata or value != field.metadata[NEUTRAL]
        }
    used = registry.used_by((group, getattr(config, group).name) for group in SHAPING)
    if used:
        shaping["plugins"] = {
            choice: [plugin.name, plugin.version, plugin.sha256] for choice, plugin in used.items()
        }
    if config.schedule.sees_horizon:
        shaping["epochs"] = config.epochs
    return _hash(shaping)


def run_id(trajectory: str, epochs: int) -> str:
    """Hash (64 hex digits) of a trajectory and where on it the run ends."""
    return _hash({"trajectory": trajectory, "epochs": epochs})


def _hash(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plugins(config: RunConfig) -> dict[str, registry.Plugin]:
    """The plug-ins that a run uses, those that do not shape its weights too, by ``group=name``."""
    chosen = [(group, getattr(config, group).name) for group in GROUPS]
    chosen += [("encoder", name) for name in config.score.encoders]
    chosen += [("score", name) for name in config.score.extra]
    chosen += [("tracker", name) for name in config.tracker.also]
    return registry.used_by(chosen)
