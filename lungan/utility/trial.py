"""One trial: one arm at one fraction, ratio and seed, its id, and the result that it leaves."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    Labelled,
    Recipe,
    Trained,
    probabilities_of,
    train_classifier,
)
from lungan.errors import DivergedError
from lungan.results.arms import ARMS, BASELINE, Arm
from lungan.runs.folder import (
    CLASSIFIER,
    CONVINCING,
    PREDICTIONS,
    SUMMARY,
    write_bytes,
    write_json,
)
from lungan.runs.prepare import git_commit, machine, versions
from lungan.runs.store import RunIdentity
from lungan.utility.convincing import write_convincing
from lungan.utility.extras import Synthetic, duplicates, extra_counts, phases
from lungan.utility.generators import Generators, GeneratorSet
from lungan.utility.images import TEST, VALIDATION, content_hashes

RESULT_VERSION = 1
"""Part of every id: raised when the same settings would give other numbers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What all trials of a study share. positive: index of the class whose detection is measured.
    precision: the resolved one."""

    generators: Generators
    recipe: Recipe
    positive: int
    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


@dataclass(frozen=True, slots=True)
class Trial:
    """generators: the set that this seed uses, in every arm, since it names the real images too.
    ratio: None for an arm that adds nothing."""

    arm: Arm
    generators: GeneratorSet
    ratio: float | None
    seed: int

    def identity(self, settings: Settings) -> RunIdentity:
        """As a run's, so that the store's claims serve here too."""
        parts = {
            "version": RESULT_VERSION,
            "data": settings.generators.real.image_set.content_hash,
            "recipe": dataclasses.asdict(settings.recipe),
            "precision": settings.precision,
            "positive": settings.positive,
            "arm": dataclasses.asdict(self.arm),
            "fraction": [self.generators.fraction, self.generators.fraction_seed],
            "ratio": self.ratio,
            "seed": self.seed,
            "weights": self.generators.weights if self.arm.uses_generator else None,
        }
        digits = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        ratio = "" if self.ratio is None else f"-x{self.ratio:g}"
        slug = f"{self.arm.name}-f{self.generators.fraction:g}{ratio}-s{self.seed}"
        return RunIdentity(trajectory=digits, run=digits, epochs=1, slug=slug)

    def describe(self) -> str:
        ratio = "" if self.ratio is None else f" x{self.ratio:g}"
        return f"{self.arm.title}{ratio}, fraction {self.generators.fraction:g}, seed {self.seed}"


class Bench:
    """Does trials; keeps the real-only classifier and the synthetic images of the last seed."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._synthetic: tuple[tuple[str, int], Synthetic] | None = None
        self._baseline: tuple[str, Classifier] | None = None

    def do(self, trial: Trial, folder: Path) -> dict[str, Any]:
        """Train, select, test once, and write the result into ``folder``: its summary, last.

        Raises: RunFolderError where it cannot be written.
        """
        began = time.perf_counter()
        settings, real = self._settings, self._settings.generators.real
        training = real.training(trial.generators.fraction, trial.generators.fraction_seed)
        extra = self._extra(trial, training)
        values: dict[str, float] = {}
        selected: dict[str, Any] | None = None
        status, reason = "done", None
        try:
            trained = self._train(trial, training, extra)
            probabilities = probabilities_of(trained.network, real.test.images, settings.device)
            values = measure(probabilities, real.test.labels, settings.positive)
            on_validation = probabilities_of(
                trained.network, real.validation.images, settings.device
            )
            content = predictions_csv(
                real.image_set.class_names,
                {VALIDATION: (real.validation, on_validation), TEST: (real.test, probabilities)},
            )
            write_bytes(folder / PREDICTIONS, content)
            selected = {"update": trained.update, "validation_auc": trained.validation_auc}
            if trial.arm.name == BASELINE:
                _write_network(folder / CLASSIFIER, trained.network)
            if trial.arm.name == "real_synthetic" and trial.seed == 0 and extra is not None:
                believed = probabilities_of(
                    self._real_classifier(trial), extra.images, settings.device
                )
                write_convincing(folder / CONVINCING, extra, believed)
        except DivergedError as error:
            log.warning("%s: %s", trial.describe(), error)
            status, reason = "diverged", str(error)
        summary = self._summary(trial, training, extra, values, time.perf_counter() - began)
        summary |= {"status": status, "reason": reason, "selected": selected}
        write_json(folder / SUMMARY, summary)
        return summary

    def _train(self, trial: Trial, training: Labelled, extra: Labelled | None) -> Trained:
        settings = self._settings
        return train_classifier(
            phases(trial.arm, training, extra),
            settings.generators.real.validation,
            num_classes=settings.generators.real.num_classes,
            positive=settings.positive,
            recipe=settings.recipe,
            seed=trial.seed,
            classical=trial.arm.classical,
            device=settings.device,
            dtype=settings.dtype,
        )

    def _extra(self, trial: Trial, training: Labelled) -> Labelled | None:
        if trial.ratio is None:
            return None
        real, device = self._settings.generators.real, self._settings.device
        counts = extra_counts(training, trial.ratio, real.num_classes)
        if trial.arm.extra == "duplicates":
            return duplicates(training, counts, trial.seed)
        key = (repr(sorted(trial.generators.weights.items())), trial.seed)
        if self._synthetic is None or self._synthetic[0] != key:
            self._synthetic = key, Synthetic(trial.generators, trial.seed, device)
        synthetic, class_names = self._synthetic[1], real.image_set.class_names
        if trial.arm.extra == "synthetic":
            return synthetic.images(class_names, counts)
        network = self._real_classifier(trial)
        return synthetic.filtered(
            class_names, counts, lambda images: probabilities_of(network, images, device)
        )

    def _real_classifier(self, trial: Trial) -> Classifier:
        """The one of this fraction and seed, as its own trial left it, else trained once more."""
        settings, real = self._settings, self._settings.generators.real
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
                training = real.training(trial.generators.fraction, trial.generators.fraction_seed)
                network = self._train(baseline, training, None).network
            self._baseline = identity.run, network.to(settings.device)
        return self._baseline[1]

    def _summary(
        self,
        trial: Trial,
        training: Labelled,
        extra: Labelled | None,
        values: dict[str, float],
        seconds: float,
    ) -> dict[str, Any]:
        """In the form of a run's, which is how lungan.results reads it."""
        settings, real = self._settings, self._settings.generators.real
        identity = trial.identity(settings)
        generators = trial.generators
        config: dict[str, Any] = {
            "arm": trial.arm.name,
            "ratio": trial.ratio,
            "seed": trial.seed,
            "data": {
                "fraction": generators.fraction,
                "fraction_seed": generators.fraction_seed,
                "num_real_images": len(training),
                "size": real.image_set.size,
            },
            "classifier": dataclasses.asdict(settings.recipe)
            | {"positive": real.image_set.class_names[settings.positive]},
        }
        if trial.arm.uses_generator:
            config["gan"] = {"name": generators.name, "runs": generators.runs}
        return {
            "run_id": identity.run,
            "trajectory_id": identity.trajectory,
            "name": identity.name,
            "num_train_images": sum(map(len, phases(trial.arm, training, extra))),
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
                "num_images": len(real.test),
                "reference": {"splits": ["test"], "num_images": len(real.test)},
            },
            "config": config,
        }


def predictions_csv(
    class_names: Sequence[str], splits: Mapping[str, tuple[Labelled, NDArray[np.float64]]]
) -> bytes:
    """A row an image: split, first digits of the hash of its pixels, patient (empty where not
    known), class, and the probability of each class. splits: images with probabilities (N, K)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["split", "image", "patient", "class", *(f"p.{name}" for name in class_names)])
    for name, (images, probabilities) in splits.items():
        digits = [one.hex()[:16] for one in content_hashes(images.images)]
        patients = [""] * len(images) if images.groups is None else images.groups.tolist()
        for image, patient, label, row in zip(
            digits, patients, images.labels, probabilities, strict=True
        ):
            shown = [f"{p:.9g}" for p in row]
            writer.writerow([name, image, patient, class_names[label], *shown])
    return out.getvalue().encode("utf-8", "backslashreplace")


def _write_network(path: Path, network: Classifier) -> None:
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))
