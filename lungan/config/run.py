"""Config of one run: a choice of every group, and what belongs to none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lungan.config.data import (
    DataConfig,
    FolderConfig,
    NpzConfig,
    PhantomConfig,
    PneumoniaMnistConfig,
)
from lungan.config.networks import (
    DcganDiscriminatorConfig,
    DcganGeneratorConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    ResnetDiscriminatorConfig,
    ResnetGeneratorConfig,
)
from lungan.config.rules import above, at_least, one_of, rule
from lungan.config.scoring import (
    ScoreConfig,
    TrackerConfig,
    WandbConfig,
)
from lungan.config.training import (
    AdamConfig,
    AdaptiveConfig,
    AugmentConfig,
    DecayScheduleConfig,
    DiffAugmentConfig,
    LossConfig,
    OptimizerConfig,
    RmspropConfig,
    ScheduleConfig,
    SgdConfig,
    StepScheduleConfig,
)


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
