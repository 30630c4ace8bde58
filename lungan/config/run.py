"""Config of one run: a choice of every group, and what belongs to none."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from lungan.config.data import DataConfig
from lungan.config.networks import DiscriminatorConfig, GeneratorConfig
from lungan.config.rules import above, at_least, one_of, rule, whole
from lungan.config.scoring import ScoreConfig
from lungan.config.tracking import TrackerConfig
from lungan.config.training import AugmentConfig, LossConfig, OptimizerConfig, ScheduleConfig


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
    device: str = rule(
        "auto, cpu, cuda or cuda:<index>",
        lambda value: re.fullmatch("auto|cpu|cuda(:[0-9]+)?", value) is not None,
    )
    threads: int = whole(0, 4096)
    store: str = rule("a folder", lambda value: bool(value.strip()))
    checkpoint_every_epochs: int = at_least(1)
    samples_every_epochs: int = at_least(0)
    retry: str = one_of("never", "diverged")


GROUPS = tuple(
    field.name for field in dataclasses.fields(RunConfig) if str(field.type).endswith("Config")
)
"""The keys of a run that stand for a choice with settings of its own."""
