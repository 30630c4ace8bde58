"""How a trial is done: what its classifier is trained on, and the result that it leaves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from lungan.utility.arms import ARMS, BASELINE, PRIMARY
from lungan.utility.batches import (
    TRUNCATION,
    Synthetic,
    moved,
    plan_phases,
    shown,
    synthetic_counts,
)
from lungan.utility.discriminators import network_name, starting_network
from lungan.utility.images import TEST, TRAIN, VALIDATION, content_hashes
from lungan.utility.trial import Settings, Trial

LEAST_PROBABILITY = 1e-6
"""Below it a validation image's probability counts no less, so that one image does not decide."""

NEAREST = 5
"""A real image's neighborhood reaches to so many others of its class, for densities."""

SHOWN = 8
"""Images a row in the picture of the most and least convincing ones."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _TrainedOn:
    """What a trial's classifier is trained on: all its images, what its batches hold, and the
    recipe, with its name among those that there were."""

    real: Labelled
    synthetic: Labelled | None
    phases: list[Phase]
    recipe: Recipe
    recipe_name: str

    @property
    def num_images(self) -> int:
        return sum(len(part.images) for phase in self.phases for part in phase.portions)


class TrialRunner:
    """Does trials; keeps the real-only classifier and the synthetic images of the last seed."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._synthetic: dict[tuple[str, int, str], Synthetic] = {}
        self._baseline: tuple[str, Classifier] | None = None

    def do(self, trial: Trial, folder: Path) -> dict[str, Any]:
        """Train, test once, and write the result into ``folder``: its summary, last.

        Raises: RunFolderError where it cannot be written.
        """
        began = time.perf_counter()
        settings, real = self._settings, self._settings.real
        validation = self._validation(trial)
        test = settings.test_images
        values: dict[str, float] = {}
        status, reason = "done", None
        try:
            trained_on, network = self._fit(trial)
            probabilities = probabilities_of(network, test.images, settings.device)
            on_validation = probabilities_of(network, validation.images, settings.device)
            values = measure(
                probabilities, test.labels, settings.positive, (on_validation, validation.labels)
            )
            content = predictions_csv(
                real.image_set.class_names,
                {VALIDATION: (validation, on_validation), TEST: (test, probabilities)},
            )
            write_bytes(folder / PREDICTIONS, content)
            if trial.arm.name == BASELINE:
                _write_network(folder / CLASSIFIER, network)
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

    def _validation(self, trial: Trial) -> Labelled:
        generators = trial.generators
        return self._settings.real.draw(VALIDATION, generators.scenario, generators.fraction_seed)

    def _fit(self, trial: Trial) -> tuple[_TrainedOn, Classifier]:
        """The classifier; of a tuned study the one of the recipe with the lowest log loss on the
        trial's validation images, which few images know better than an AUC.

        Raises: DivergedError where every recipe diverged.
        """
        recipes = self._settings.recipes
        validation = self._validation(trial)
        best: tuple[float, _TrainedOn, Classifier] | None = None
        for number, (name, recipe) in enumerate(recipes.items(), start=1):
            trained_on = self._choose(trial, name, recipe)
            try:
                network = self._train(trial, trained_on)
            except DivergedError:
                if best is None and number == len(recipes):
                    raise
                continue
            loss = 0.0
            if len(recipes) > 1:
                believed = self._belief(network, validation)
                loss = float(-np.log(np.maximum(believed, LEAST_PROBABILITY)).mean())
            if best is None or loss < best[0]:
                best = loss, trained_on, network
        assert best is not None
        return best[1:]

    def _choose(self, trial: Trial, recipe_name: str, recipe: Recipe) -> _TrainedOn:
        settings = self._settings
        real = settings.real.draw(TRAIN, trial.generators.scenario, trial.generators.fraction_seed)
        synthetic = self._beside(trial, real)
        ratio = 1.0 if trial.ratio is None else trial.ratio
        phases = plan_phases(trial.arm, real, synthetic, ratio, recipe.updates, recipe.batch_size)
        return _TrainedOn(real, synthetic, phases, recipe, recipe_name)

    def _train(self, trial: Trial, trained_on: _TrainedOn) -> Classifier:
        settings, generators = self._settings, trial.generators
        start, network = None, trial.arm.network
        if network:
            trained = network == "discriminator"
            start = starting_network(generators, settings.real, trial.seed, trained=trained)
        num_classes = settings.real.num_classes
        counts = np.bincount(trained_on.real.labels, minlength=num_classes)
        weights = tuple((counts.sum() / (num_classes * counts)).tolist())
        return train_classifier(
            trained_on.phases,
            num_classes=num_classes,
            recipe=trained_on.recipe,
            seed=trial.seed,
            changes=Changes(
                classical=trial.arm.classical,
                mixup=trial.arm.mixup,
                class_weights=weights if trial.arm.weighted else None,
            ),
            device=settings.device,
            dtype=settings.dtype,
            start=start,
        )

    def _beside(self, trial: Trial, real: Labelled) -> Labelled | None:
        """The synthetic images of the trial, or what its arm has in their place."""
        arm, settings = trial.arm, self._settings
        if not arm.synthetic or trial.ratio is None:
            return None
        if arm.source == "left_out":
            generators = trial.generators
            images = settings.real.left_out(generators.scenario, generators.fraction_seed)
        elif arm.source == "moved":
            class_names = settings.real.image_set.class_names
            counts = synthetic_counts(real, trial.ratio, class_names, class_names)
            images = moved(real, counts, trial.seed)
        else:
            images = self._made(trial, real, trial.ratio)
        if not arm.labels:
            return images
        network = self._real_classifier(trial)
        believed = probabilities_of(network, images.images, settings.device)
        labels = believed.argmax(axis=1)
        soft = believed.astype(np.float32) if arm.labels == "soft" else None
        return Labelled(images.images, labels, soft=soft)

    def _made(self, trial: Trial, real: Labelled, ratio: float) -> Labelled:
        """The synthetic images of the trial."""
        arm, settings = trial.arm, self._settings
        key = (repr(sorted(trial.generators.weights.items())), trial.seed, arm.chosen)
        if key not in self._synthetic:
            if key[:2] not in {other[:2] for other in self._synthetic}:
                self._synthetic.clear()
            truncation = TRUNCATION if arm.chosen == "truncated" else None
            self._synthetic[key] = Synthetic(
                trial.generators, trial.seed, settings.device, truncation
            )
        synthetic = self._synthetic[key]
        class_names = settings.real.image_set.class_names
        if arm.source == "of_all":
            counts = synthetic_counts(real, ratio, class_names, class_names)
            return synthetic.images((ONLY_CLASS,), [sum(counts)])
        counts = synthetic_counts(real, ratio, class_names, trial.generators.by_class)
        if arm.chosen not in ("believed", "dense"):
            return synthetic.images(class_names, counts)
        network = self._real_classifier(trial)
        by_belief, by_density = (
            partial(self._belief, network),
            partial(self._density, network, real),
        )
        rate = by_belief if arm.chosen == "believed" else by_density
        return synthetic.filtered(class_names, counts, rate)

    def _belief(self, network: Classifier, images: Labelled) -> NDArray[np.float64]:
        """The probability of each image's own class, (N,)."""
        probabilities = probabilities_of(network, images.images, self._settings.device)
        return probabilities[np.arange(len(images)), images.labels]

    def _density(
        self, network: Classifier, real: Labelled, images: Labelled
    ) -> NDArray[np.float64]:
        """How dense real images of its class lie round each image in the network's features, (N,).

        Source: Naeem et al. 2020, arXiv:2002.09797.
        """
        of_real, of_images = (
            outputs_of(network, side.images, self._settings.device)[0] for side in (real, images)
        )
        found = np.empty(len(images))
        for label in np.unique(images.labels):
            own = of_real[real.labels == label]
            members = images.labels == label
            found[members] = densities(own, of_images[members], min(NEAREST, len(own) - 1))
        return found

    def _real_classifier(self, trial: Trial) -> Classifier:
        """The one of this fraction and seed, as its own trial left it, else trained once more."""
        settings, real = self._settings, self._settings.real
        baseline = Trial(ARMS[BASELINE], trial.generators, None, trial.seed)
        identity = baseline.identity(settings)
        if self._baseline is None or self._baseline[0] != identity.run:
            network = build_classifier(
                settings.recipe.classifier,
                real.image_set.size,
                real.image_set.channels,
                real.num_classes,
                trial.seed,
            )
            path = self._root / identity.name / CLASSIFIER
            try:
                network.load_state_dict(safetensors.torch.load_file(path))
            except (OSError, SafetensorError, RuntimeError) as error:
                if path.exists():
                    log.warning("%s cannot be used and is trained again: %s", path, error)
                _, network = self._fit(baseline)
            self._baseline = identity.run, network.to(settings.device)
        return self._baseline[1]

    def _summary(
        self,
        trial: Trial,
        trained_on: _TrainedOn,
        values: dict[str, float],
        seconds: float,
    ) -> dict[str, Any]:
        """In the form of a run's, which is how lungan.results reads it."""
        settings, real = self._settings, self._settings.real
        identity = trial.identity(settings)
        generators = trial.generators
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
                "size": real.image_set.size,
            },
            "updates": sum(phase.updates for phase in trained_on.phases),
            "shown": shown(trained_on.phases, trained_on.real, real.image_set.class_names),
            "classifier": settings.described_recipe
            | {"positive": real.image_set.class_names[settings.positive]},
        }
        if settings.tuned:
            config["recipe"] = trained_on.recipe_name
        if trial.arm.network:
            config["network"] = network_name(generators.discriminator)
        if trial.arm.uses_generator:
            config["gan"] = {"name": generators.name, "runs": generators.runs}
        return {
            "run_id": identity.run,
            "trajectory_id": identity.trajectory,
            "name": identity.name,
            "num_train_images": trained_on.num_images,
            "num_dropped_images": real.num_dropped,
            "data_hash": real.image_set.content_hash,
            "data_source": real.image_set.source,
            "device": str(settings.device),
            "precision": settings.precision,
            "threads": torch.get_num_threads(),
            "machine": machine(),
            "versions": versions(),
            "git_commit": git_commit(),
            "seconds": {"total": seconds},
            "scores": {
                "values": values,
                "num_images": len(settings.test_images),
                "reference": {
                    "splits": [settings.tested_on],
                    "num_images": len(settings.test_images),
                },
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


def _write_network(path: Path, network: Classifier) -> None:
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))


def _choose_convincing(images: Labelled, believed: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """For each class, twice SHOWN indices or as many as there are: those to which the classifier
    gives their own class the highest probability, highest first, then those with the lowest,
    lowest first. believed: of the images' own classes, (N,)."""
    rows = []
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        order = members[np.argsort(-believed[members], kind="stable")]
        count = min(SHOWN, len(order) // 2)
        rows += [order[:count], order[::-1][:count]]
    return rows


def _write_convincing(path: Path, images: Labelled, believed: NDArray[np.float64]) -> None:
    """Two rows a class, class after class: the most convincing, then the least.

    Raises: RunFolderError where it cannot be written.
    """
    _, channels, height, width = images.images.shape
    cells = []
    for row in _choose_convincing(images, believed):
        blank = np.full((SHOWN - len(row), channels, height, width), 255, dtype=np.uint8)
        cells.append(np.concatenate([images.images[row], blank]))
    pictures.write_png(path, pictures.grid(np.concatenate(cells), columns=SHOWN))
