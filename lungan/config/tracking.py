"""Config of the trackers: where a run's records go besides its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lungan.config.rules import Part, registered, rule, switch
from lungan.errors import ConfigError
from lungan.registry import declare

if TYPE_CHECKING:
    from lungan.config.run import RunConfig

MODES = ("offline", "online", "disabled")

AGENT_VARIABLE = "WANDB_SWEEP_ID"
"""Set where a W&B agent started the process."""


@dataclass(kw_only=True, slots=True)
class TrackerConfig(Part):
    """What all trackers have. ``also``: more trackers, with the settings that conf/ gives them."""

    also: list[str] = registered("tracker", neutral=[])

    def check(self, run: RunConfig) -> None:  # noqa: ARG002
        if twice := {self.name, "none"} & set(self.also):
            raise ConfigError(
                f"tracker.also must name trackers besides tracker={self.name}, got {min(twice)}"
            )


@dataclass(kw_only=True, slots=True)
class WandbConfig(TrackerConfig):
    """Weights & Biases. What is null is taken from W&B's own environment variables, such as
    ``WANDB_PROJECT``, and where they are not set: mode offline, project lungan, W&B's default
    entity, the sweep's name as group. ``real_images`` sends some of the training images too."""

    mode: str | None = rule(
        f"null or one of {', '.join(MODES)}",
        lambda value: value is None or value in MODES,
        neutral=None,
    )
    project: str | None = rule(
        "null or a name", lambda value: value is None or bool(value.strip()), neutral=None
    )
    entity: str | None = rule("null or a name", lambda value: value != "", neutral=None)
    group: str | None = rule("null or a name", lambda value: value != "", neutral=None)
    tags: list[str] = rule("a list of words", lambda _: True, neutral=[])
    real_images: bool = switch(False)


def check_agent(multirun: bool) -> None:
    """Raises: ConfigError for a multirun under a W&B agent, which gives a process one run."""
    if multirun and os.environ.get(AGENT_VARIABLE):
        raise ConfigError(
            f"a W&B agent ({AGENT_VARIABLE} is set) asks for one run, --multirun makes several: "
            "leave it out of the sweep's command, and let W&B vary the settings (docs/wandb.md)"
        )


declare("tracker", "none", "lungan.tracking:no_tracker", TrackerConfig)
declare("tracker", "wandb", "lungan.tracking.wandb:WandbTracker", WandbConfig)
declare("tracker", "tensorboard", "lungan.tracking.tensorboard:TensorBoardTracker", TrackerConfig)
