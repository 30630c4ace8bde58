"""One trial: one arm at one fraction, ratio and seed, and its id."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from lungan.classifiers.train import Labelled, Recipe
from lungan.runs.store import RunIdentity
from lungan.utility.arms import Arm
from lungan.utility.discriminators import network_name
from lungan.utility.generators import GeneratorSet
from lungan.utility.images import TEST, RealImages

RESULT_VERSION = 2
"""Part of every id: raised when the same settings would give other numbers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all trials of a study share. positive: index of the class whose detection is measured.
    precision: the resolved one. tested_on: the split that classifiers are measured on, ``test``,
    or ``val`` where options are tried. tuned: whether each classifier's recipe is the best of
    ``recipes`` on its own validation images. first_seed: of whose synthetic images a picture is
    kept, so that none is chosen by its images."""

    real: RealImages
    recipe: Recipe
    positive: int
    device: torch.device
    precision: str
    tested_on: str = TEST
    tuned: bool = False
    first_seed: int = 0

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def test_images(self) -> Labelled:
        return self.real.test if self.tested_on == TEST else self.real.validation

    @property
    def recipes(self) -> dict[str, Recipe]:
        """Those that each classifier is chosen among, by what is said of them."""
        recipe = self.recipe
        if not self.tuned:
            return {"as given": recipe}
        rate, decay = recipe.peak_lr, recipe.weight_decay
        return {
            "as given": recipe,
            "twice the updates": dataclasses.replace(recipe, updates=2 * recipe.updates),
            "a third of the peak rate": dataclasses.replace(recipe, peak_lr=rate / 3),
            "three times the peak rate": dataclasses.replace(recipe, peak_lr=3 * rate),
            "a tenth of the weight decay": dataclasses.replace(recipe, weight_decay=decay / 10),
            "ten times the weight decay": dataclasses.replace(recipe, weight_decay=10 * decay),
        }

    @property
    def described_recipe(self) -> dict[str, Any]:
        return dataclasses.asdict(self.recipe) | ({"tuned": True} if self.tuned else {})

    def described(self) -> dict[str, Any]:
        """What all of a study has in common, as its manifest keeps it."""
        return {
            "recipe": self.described_recipe,
            "positive": self.real.image_set.class_names[self.positive],
            "tested_on": self.tested_on,
            "data_hash": self.real.image_set.content_hash,
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """generators: the set that this seed uses, in every arm, since it names the real images too.
    ratio: None for an arm that has none."""

    arm: Arm
    generators: GeneratorSet
    ratio: float | None
    seed: int

    def identity(self, settings: Settings) -> RunIdentity:
        """As a run's, so that the store's claims serve here too."""
        parts = {
            "version": RESULT_VERSION,
            "data": settings.real.image_set.content_hash,
            "recipe": settings.described_recipe,
            "precision": settings.precision,
            "positive": settings.positive,
            "tested_on": settings.tested_on,
            "arm": self.arm.shaping,
            "scenario": [
                dataclasses.asdict(self.generators.scenario),
                self.generators.fraction_seed,
            ],
            "ratio": self.ratio,
            "seed": self.seed,
            "weights": self.generators.weights if self.arm.uses_generator else None,
        }
        if self.arm.network:
            parts["network"] = network_name(self.generators.discriminator)
        digits = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        ratio = "" if self.ratio is None else f"-x{self.ratio:g}"
        scenario = self.generators.scenario
        rare = "" if scenario.prevalence is None else f"-p{scenario.prevalence:g}"
        slug = f"{self.arm.name}-f{scenario.fraction:g}{rare}{ratio}-s{self.seed}"
        return RunIdentity(trajectory=digits, run=digits, epochs=1, slug=slug)

    def describe(self) -> str:
        ratio = "" if self.ratio is None else f" x{self.ratio:g}"
        return f"{self.arm.title}{ratio}, fraction {self.generators.scenario}, seed {self.seed}"
