"""One trial: one arm at one fraction, ratio and seed, its id, and how it is done once by whoever
claims it first: this process, the jobs of a launcher, or other commands that share the store."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from lungan.classifiers.train import Recipe
from lungan.config import DataConfig, DiscriminatorConfig, rules
from lungan.device import choose_threads, resolve_device
from lungan.errors import LunganError
from lungan.runs.folder import Run
from lungan.runs.jobs import Task
from lungan.runs.run import StopSignal
from lungan.runs.store import RunIdentity, Store
from lungan.utility.arms import ARMS, BASELINE, Arm
from lungan.utility.generators import GeneratorSet, network_name
from lungan.utility.images import Scenario, read_real
from lungan.utility.runner import Settings, TrialRunner

RESULT_VERSION = 2
"""Part of every id: raised when the same settings would give other numbers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial(Task):
    """generators: the set that this seed uses, in every arm, since it names the real images too.
    ratio: None for an arm that has none."""

    arm: Arm
    generators: GeneratorSet
    ratio: float | None
    seed: int
    runner: TrialRunner
    identity: RunIdentity = field(init=False)
    store: Path = field(init=False)
    uses_cpu: bool = field(init=False)
    device: str = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        for key, value in (
            ("identity", self._identify()),
            ("store", self.settings.root),
            ("uses_cpu", self.settings.device.type == "cpu"),
        ):
            object.__setattr__(self, key, value)  # as of a frozen dataclass's other fields

    @property
    def settings(self) -> Settings:
        return self.runner.settings

    def _identify(self) -> RunIdentity:
        """As a run's, so that the store's claims serve here too."""
        settings, scenario = self.settings, self.generators.scenario
        parts = {
            "version": RESULT_VERSION,
            "data": settings.real.image_set.content_hash,
            "recipe": settings.described_recipe,
            "precision": settings.precision,
            "positive": settings.positive,
            "tested_on": settings.tested_on,
            "arm": self.arm.shaping,
            "scenario": [dataclasses.asdict(scenario), self.generators.fraction_seed],
            "ratio": self.ratio,
            "seed": self.seed,
            "weights": self.generators.weights if self.arm.uses_generator else None,
        }
        if self.arm.network:
            parts["network"] = network_name(self.generators.discriminator)
        digits = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        ratio = "" if self.ratio is None else f"-x{self.ratio:g}"
        rare = "" if scenario.prevalence is None else f"-p{scenario.prevalence:g}"
        slug = f"{self.arm.name}-f{scenario.fraction:g}{rare}{ratio}-s{self.seed}"
        return RunIdentity(trajectory=digits, run=digits, epochs=1, slug=slug)

    @property
    def baseline(self) -> Trial:
        """The one of the real-only classifier of the same fraction and seed."""
        return dataclasses.replace(self, arm=ARMS[BASELINE], ratio=None)

    def describe(self, _study: str = "", /) -> str:
        ratio = "" if self.ratio is None else f" x{self.ratio:g}"
        return f"{self.arm.title}{ratio}, fraction {self.generators.scenario}, seed {self.seed}"

    def do(self, _study: str, _stop: StopSignal, /) -> Run:
        found = Store(self.store).claim(self.identity)
        if isinstance(found, Run):
            return found
        try:
            return Run(found.folder, self.runner.do(self, found.folder), reused=False)
        except LunganError:
            raise
        except Exception:  # a fault of lungan's own, or of the machine's
            log.exception("%s failed", self.describe())
            raise
        finally:
            found.claim.release()

    def values(self) -> dict[str, Any]:
        return {
            "arm": self.arm.name,
            "generators": dataclasses.asdict(self.generators),
            "ratio": self.ratio,
            "seed": self.seed,
            "settings": self.settings.values(),
        }

    @classmethod
    def again(cls, values: Mapping[str, Any], device: str, share: int, /) -> Self:
        runner = _runner(json.dumps(values["settings"], sort_keys=True), device, values["store"])
        torch.set_num_threads(choose_threads(runner.settings.threads, share))
        generators = dict(values["generators"])
        generators["scenario"] = Scenario(**generators["scenario"])
        chosen = generators["discriminator"]
        generators["discriminator"] = rules.parse_choice(
            DiscriminatorConfig, "discriminator", chosen
        )
        arm, made = ARMS[values["arm"]], GeneratorSet(**generators)
        return cls(arm, made, values["ratio"], values["seed"], runner, device=device)


@functools.lru_cache(maxsize=1)
def _runner(settings: str, device: str, root: str) -> TrialRunner:
    """settings: as JSON. Kept for the next job, since the trials of a study share their images."""
    values = json.loads(settings)
    return TrialRunner(
        Settings(
            real=read_real(rules.parse_choice(DataConfig, "data", values.pop("data"))),
            recipe=Recipe(**values.pop("recipe")),
            device=resolve_device(device),
            root=Path(root),
            **values,
        )
    )
