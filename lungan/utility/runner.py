"""How a trial is done: what its classifier is trained on, and the result that it leaves."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from lungan.classifiers.measures import measure
from lungan.classifiers.network import Classifier, build_classifier
from lungan.classifiers.train import (
    Changes,
    Labelled,
    Phase,
    Recipe,
    outputs_of,
    probabilities_of,
    train_classifier,
)
from lungan.data.images import ONLY_CLASS
from lungan.errors import DivergedError
from lungan.files import write_bytes, write_json
from lungan.results.tables import write_csv
from lungan.runs import pictures
from lungan.runs.folder import CLASSIFIER, CONVINCING, PREDICTIONS, SUMMARY
from lungan.runs.prepare import git_commit, machine, versions
from lungan.scores.prdc import densities
from lungan.utility.arms import BASELINE, PRIMARY
from lungan.utility.batches import (
    TRUNCATION,
    Synthetic,
    moved,
    plan_phases,
    shown,
    synthetic_counts,
)
from lungan.utility.generators import network_name, starting_network
from lungan.utility.images import TEST, TRAIN, VALIDATION, RealImages, content_hashes

if TYPE_CHECKING:
    from lungan.utility.trial import Trial

LEAST_PROBABILITY = 1e-6
"""Below it a validation image's probability counts no less, so that one image does not decide."""

NEAREST = 5
"""A real image's neighborhood reaches to so many others of its class, for densities."""

SHOWN = 8
"""Images a row in the picture of the most and least convincing ones."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What all trials of a study share. positive: index of the class whose detection is measured.
    precision: the resolved one. tested_on: the split that classifiers are measured on, ``test``,
    or ``val`` where options are tried. tuned: whether each classifier's recipe is the best of
    ``recipes`` on its own validation images. first_seed: of whose synthetic images a picture is
    kept, so that none is chosen by its images. root: the trials' store. threads: of the CPU; 0 is
    a job's share of the cores."""

    real: RealImages
    recipe: Recipe
    positive: int
    device: torch.device
    precision: str
    tested_on: str = TEST
    tuned: bool = False
    first_seed: int = 0
    root: Path = Path()
    threads: int = 0

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

    def values(self) -> dict[str, Any]:
        """What a job makes them again from, which reads the images itself and has a device."""
        plain = ("positive", "precision", "tested_on", "tuned", "first_seed", "threads")
        return {
            **{key: getattr(self, key) for key in plain},
            "recipe": dataclasses.asdict(self.recipe),
            "data": dataclasses.asdict(self.real.data),
        }


@dataclass(frozen=True, slots=True)
class _TrainedOn:
    """What a trial's classifier is trained on: all its images, what its batches hold, and the
    recipe, with its name among those that there were."""

    real: Labelled
    synthetic: Labelled | None
    phases: list[Phase]
    recipe: Recipe
    recipe_name: str


class TrialRunner:
    """Does trials; keeps the real-only classifier and the synthetic images of the last seed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._synthetic: dict[tuple[str, int, str], Synthetic] = {}
        self._baseline: tuple[str, Classifier] | None = None

    def do(self, trial: Trial, folder: Path) -> dict[str, Any]:
        """Train, test once, and write the result into ``folder``: its summary, last.

        Raises: RunFolderError where it cannot be written.
        """
        began = time.perf_counter()
        settings, class_names = self.settings, self.settings.real.image_set.class_names
        validation, test = self._real(trial, VALIDATION), settings.test_images
        values: dict[str, float] = {}
        status, reason = "done", None
        try:
            trained_on, network = self._fit(trial)
            on_test, on_validation = (
                probabilities_of(network, part.images, settings.device)
                for part in (test, validation)
            )
            values = measure(
                on_test, test.labels, settings.positive, (on_validation, validation.labels)
            )
            found = {VALIDATION: (validation, on_validation), TEST: (test, on_test)}
            write_bytes(folder / PREDICTIONS, predictions_csv(class_names, found))
            if trial.arm.name == BASELINE:
                tensors = network.state_dict().items()
                kept = {name: value.cpu().contiguous() for name, value in tensors}
                write_bytes(folder / CLASSIFIER, safetensors.torch.save(kept))
            is_pictured = trial.arm.name in PRIMARY and trial.seed == settings.first_seed
            if is_pictured and trained_on.synthetic:
                believed = self._belief(self._real_classifier(trial), trained_on.synthetic)
                _write_convincing(folder / CONVINCING, trained_on.synthetic, believed)
        except DivergedError as error:
            log.warning("%s: %s", trial.describe(), error)
            trained_on = self._choose(trial, *next(iter(settings.recipes.items())))
            status, reason = "diverged", str(error)
        summary = self._summary(trial, trained_on, values, time.perf_counter() - began)
        summary |= {"status": status, "reason": reason}
        write_json(folder / SUMMARY, summary)
        return summary

    def _real(self, trial: Trial, split: str) -> Labelled:
        generators = trial.generators
        return self.settings.real.draw(split, generators.scenario, generators.fraction_seed)

    def _fit(self, trial: Trial) -> tuple[_TrainedOn, Classifier]:
        """The classifier; of a tuned study the one of the recipe with the lowest log loss on the
        trial's validation images, which few images know better than an AUC.

        Raises: DivergedError where every recipe diverged.
        """
        best: tuple[float, _TrainedOn, Classifier] | None = None
        diverged: DivergedError | None = None
        for name, recipe in self.settings.recipes.items():
            trained_on = self._choose(trial, name, recipe)
            try:
                network = self._train(trial, trained_on)
            except DivergedError as error:
                diverged = error
                continue
            loss = 0.0
            if self.settings.tuned:
                believed = self._belief(network, self._real(trial, VALIDATION))
                loss = float(-np.log(np.maximum(believed, LEAST_PROBABILITY)).mean())
            if best is None or loss < best[0]:
                best = loss, trained_on, network
        if best is None:
            assert diverged is not None
            raise diverged
        return best[1:]

    def _choose(self, trial: Trial, recipe_name: str, recipe: Recipe) -> _TrainedOn:
        real = self._real(trial, TRAIN)
        synthetic = self._beside(trial, real)
        ratio = 1.0 if trial.ratio is None else trial.ratio
        phases = plan_phases(trial.arm, real, synthetic, ratio, recipe.updates, recipe.batch_size)
        return _TrainedOn(real, synthetic, phases, recipe, recipe_name)

    def _train(self, trial: Trial, trained_on: _TrainedOn) -> Classifier:
        arm, real = trial.arm, self.settings.real
        start = None
        if arm.network:
            trained = arm.network == "discriminator"
            start = starting_network(trial.generators, real, trial.seed, trained=trained)
        counts = np.bincount(trained_on.real.labels, minlength=real.num_classes)
        weights = tuple((counts.sum() / (real.num_classes * counts)).tolist())
        changes = Changes(arm.classical, arm.mixup, weights if arm.weighted else None)
        return train_classifier(
            trained_on.phases,
            num_classes=real.num_classes,
            recipe=trained_on.recipe,
            seed=trial.seed,
            changes=changes,
            device=self.settings.device,
            dtype=self.settings.dtype,
            start=start,
        )

    def _beside(self, trial: Trial, real: Labelled) -> Labelled | None:
        """The synthetic images of the trial, or what its arm has in their place."""
        arm, generators = trial.arm, trial.generators
        if not arm.synthetic or trial.ratio is None:
            return None
        if arm.source == "left_out":
            images = self.settings.real.left_out(generators.scenario, generators.fraction_seed)
        elif arm.source == "moved":
            class_names = self.settings.real.image_set.class_names
            counts = synthetic_counts(real, trial.ratio, class_names, class_names)
            images = moved(real, counts, trial.seed)
        else:
            images = self._made(trial, real, trial.ratio)
        if not arm.labels:
            return images
        network = self._real_classifier(trial)
        believed = probabilities_of(network, images.images, self.settings.device)
        soft = believed.astype(np.float32) if arm.labels == "soft" else None
        return Labelled(images.images, believed.argmax(axis=1), soft=soft)

    def _made(self, trial: Trial, real: Labelled, ratio: float) -> Labelled:
        """The synthetic images of the trial."""
        arm, generators = trial.arm, trial.generators
        key = (repr(sorted(generators.weights.items())), trial.seed, arm.chosen)
        if key not in self._synthetic:
            if key[:2] not in {other[:2] for other in self._synthetic}:
                self._synthetic.clear()
            truncation = TRUNCATION if arm.chosen == "truncated" else None
            device = self.settings.device
            self._synthetic[key] = Synthetic(generators, trial.seed, device, truncation)
        synthetic = self._synthetic[key]
        class_names = self.settings.real.image_set.class_names
        if arm.source == "of_all":
            counts = synthetic_counts(real, ratio, class_names, class_names)
            return synthetic.images((ONLY_CLASS,), [sum(counts)])
        counts = synthetic_counts(real, ratio, class_names, generators.folders)
        if arm.chosen not in ("believed", "dense"):
            return synthetic.images(class_names, counts)
        network = self._real_classifier(trial)

        def rate(images: Labelled) -> NDArray[np.float64]:
            if arm.chosen == "believed":
                return self._belief(network, images)
            return self._density(network, real, images)

        return synthetic.filtered(class_names, counts, rate)

    def _belief(self, network: Classifier, images: Labelled) -> NDArray[np.float64]:
        """The probability of each image's own class, (N,)."""
        probabilities = probabilities_of(network, images.images, self.settings.device)
        return probabilities[np.arange(len(images)), images.labels]

    def _density(
        self, network: Classifier, real: Labelled, images: Labelled
    ) -> NDArray[np.float64]:
        """How dense real images of its class lie round each image in the network's features, (N,).

        Source: Naeem et al. 2020, arXiv:2002.09797.
        """
        of_real, of_images = (
            outputs_of(network, side.images, self.settings.device)[0] for side in (real, images)
        )
        found = np.empty(len(images))
        for label in np.unique(images.labels):
            own = of_real[real.labels == label]
            members = images.labels == label
            found[members] = densities(own, of_images[members], min(NEAREST, len(own) - 1))
        return found

    def _real_classifier(self, trial: Trial) -> Classifier:
        """The one of this fraction and seed, as its own trial left it, else trained once more."""
        settings, image_set = self.settings, self.settings.real.image_set
        identity = trial.baseline.identity
        if self._baseline is None or self._baseline[0] != identity.run:
            network = build_classifier(
                settings.recipe.classifier,
                image_set.size,
                image_set.channels,
                settings.real.num_classes,
                trial.seed,
            )
            path = settings.root / identity.name / CLASSIFIER
            try:
                network.load_state_dict(safetensors.torch.load_file(path))
            except (OSError, SafetensorError, RuntimeError) as error:
                if path.exists():
                    log.warning("%s cannot be used and is trained again: %s", path, error)
                _, network = self._fit(trial.baseline)
            self._baseline = identity.run, network.to(settings.device)
        return self._baseline[1]

    def _summary(
        self, trial: Trial, trained_on: _TrainedOn, values: dict[str, float], seconds: float
    ) -> dict[str, Any]:
        """In the form of a run's, which is how lungan.results reads it."""
        settings, image_set = self.settings, self.settings.real.image_set
        identity, generators, phases = trial.identity, trial.generators, trained_on.phases
        config: dict[str, Any] = {
            "arm": trial.arm.name,
            "ratio": trial.ratio,
            "seed": trial.seed,
            "tested_on": settings.tested_on,
            "data": {
                "fraction": generators.scenario.fraction,
                "fraction_seed": generators.fraction_seed,
                "rare": generators.scenario.rare,
                "prevalence": generators.scenario.prevalence,
                "num_real_images": len(trained_on.real),
                "size": image_set.size,
            },
            "updates": sum(phase.updates for phase in phases),
            "shown": shown(phases, trained_on.real, image_set.class_names),
            "classifier": settings.described_recipe
            | {"positive": image_set.class_names[settings.positive]},
        }
        if settings.tuned:
            config["recipe"] = trained_on.recipe_name
        if trial.arm.network:
            config["network"] = network_name(generators.discriminator)
        if trial.arm.uses_generator:
            config["gan"] = {"name": generators.name, "runs": generators.runs}
        tested = {"num_images": len(settings.test_images)}
        return {
            "run_id": identity.run,
            "trajectory_id": identity.trajectory,
            "name": identity.name,
            "num_train_images": sum(
                len(part.images) for phase in phases for part in phase.portions
            ),
            "num_dropped_images": settings.real.num_dropped,
            "data_hash": image_set.content_hash,
            "data_source": image_set.source,
            "device": str(settings.device),
            "precision": settings.precision,
            "threads": torch.get_num_threads(),
            "machine": machine(),
            "versions": versions(),
            "git_commit": git_commit(),
            "seconds": {"total": seconds},
            "scores": {
                "values": values,
                **tested,
                "reference": {"splits": [settings.tested_on], **tested},
            },
            "config": config,
        }


def predictions_csv(
    class_names: Sequence[str], splits: Mapping[str, tuple[Labelled, NDArray[np.float64]]]
) -> bytes:
    """A row an image: split, first digits of the hash of its pixels, patient (empty where not
    known), class, and the probability of each class. splits: images with probabilities (N, K)."""
    header = ["split", "image", "patient", "class", *(f"p.{name}" for name in class_names)]
    rows: list[list[Any]] = []
    for name, (images, probabilities) in splits.items():
        hashes = content_hashes(images.images)
        patients = [""] * len(images) if images.groups is None else images.groups.tolist()
        rows += [
            [name, image.hex()[:16], patient, class_names[label], *(f"{p:.9g}" for p in row)]
            for image, patient, label, row in zip(
                hashes, patients, images.labels, probabilities, strict=True
            )
        ]
    return write_csv(header, rows)


def _write_convincing(path: Path, images: Labelled, believed: NDArray[np.float64]) -> None:
    """Two rows a class, class after class, of SHOWN images or as many as there are: those to which
    the classifier gives their own class the highest probability, highest first, then those with the
    lowest, lowest first. believed: of the images' own classes, (N,).

    Raises: RunFolderError where it cannot be written.
    """
    cells = []
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        order = members[np.argsort(-believed[members], kind="stable")]
        count = min(SHOWN, len(order) // 2)
        blank = np.full((SHOWN - count, *images.images.shape[1:]), 255, dtype=np.uint8)
        for row in (order[:count], order[::-1][:count]):
            cells += [images.images[row], blank]
    pictures.write_png(path, pictures.grid(np.concatenate(cells), columns=SHOWN))
