"""Arms compared over patients and seeds together, from the predictions that trials left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lungan.classifiers.measures import SPECIFICITY, threshold_at_specificity
from lungan.errors import RunFolderError
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.resampling import (
    MEASURES,
    Draws,
    Resampled,
    draw_patients,
    measure_draws,
    resample_difference,
)
from lungan.runs.folder import PREDICTIONS, UTILITY


@dataclass(frozen=True, slots=True)
class OverPatients:
    """results: by measure, first minus second. num_patients: of the test images, as many as images
    where patients are not known. num_tests: questions of the same pair of arms in the study."""

    first: Group
    second: Group
    results: dict[str, Resampled]
    num_seeds: int
    num_images: int
    num_patients: int
    num_tests: int


@dataclass(frozen=True, slots=True)
class _Measured:
    """by_seed: of each seed the measures of every draw. images: what the draws are of."""

    by_seed: dict[object, dict[str, NDArray[np.float64]]]
    images: tuple[str, ...]
    num_patients: int


def compare_over_patients(
    pairs: Sequence[tuple[Group, Group]], problems: list[Problem]
) -> list[OverPatients]:
    """Those of ``pairs`` whose trials all left predictions of the same test images; trials of
    lungan before 0.2 left none. Files that cannot be read are added to ``problems``."""
    drawn: dict[tuple[str, ...], Draws] = {}
    measured: dict[int, _Measured | None] = {}
    for group in {id(group): group for pair in pairs for group in pair}.values():
        try:
            measured[id(group)] = _measure(group, drawn)
        except RunFolderError as error:
            problems.append(Problem(f"{UTILITY}: {group.label}", str(error)))
            measured[id(group)] = None
    found = []
    for first, second in pairs:
        left, right = measured[id(first)], measured[id(second)]
        if left is None or right is None or left.images != right.images:
            continue
        seeds = [seed for seed in left.by_seed if seed in right.by_seed]
        if len(seeds) < 2:
            continue
        results = {
            name: resample_difference(
                np.array([left.by_seed[seed][name] for seed in seeds]),
                np.array([right.by_seed[seed][name] for seed in seeds]),
                drawn[left.images],
            )
            for name in MEASURES
        }
        sizes = (len(seeds), len(left.images), left.num_patients)
        found.append((first, second, results, *sizes))
    asked = Counter(_arms(first, second) for first, second, *_ in found)
    return [OverPatients(*one, num_tests=asked[_arms(one[0], one[1])]) for one in found]


def _arms(first: Group, second: Group) -> tuple[object, object]:
    return first.runs[0].config.get("arm"), second.runs[0].config.get("arm")


def _measure(group: Group, drawn: dict[tuple[str, ...], Draws]) -> _Measured | None:
    by_seed: dict[object, dict[str, NDArray[np.float64]]] = {}
    images: tuple[str, ...] = ()
    num_patients = 0
    for run in group.done:
        table = _read(run)
        if table is None:
            return None
        test, validation = (table[table["split"] == name] for name in ("test", "val"))
        found = tuple(test["image"])
        if images and found != images:
            return None
        images = found
        patients = test["patient"].where(test["patient"] != "", test["image"])
        num_patients = patients.nunique()
        numbers, _ = pd.factorize(patients)
        classes, names = pd.factorize(test["class"])
        if images not in drawn:
            drawn[images] = draw_patients(numbers, classes)
        positive = run.config.get("classifier.positive")
        wanted = [str(positive)] if len(names) == 2 else [str(name) for name in names]
        sides = []
        for name in wanted:
            negatives = validation.loc[validation["class"] != name, f"p.{name}"].to_numpy(float)
            sides.append(
                measure_draws(
                    test[f"p.{name}"].to_numpy(float),
                    (test["class"] == name).to_numpy(),
                    threshold_at_specificity(negatives, SPECIFICITY),
                    drawn[images],
                )
            )
        seed = run.config.get("seed")
        by_seed[seed] = {key: np.mean([side[key] for side in sides], axis=0) for key in MEASURES}
    return _Measured(by_seed, images, num_patients) if by_seed else None


def _read(run: Run) -> pd.DataFrame | None:
    path = None if run.folder is None else run.folder / PREDICTIONS
    if path is None or not path.is_file():
        return None
    try:
        text = dict.fromkeys(("split", "image", "patient", "class"), str)
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
        shares = table[[f"p.{name}" for name in table["class"].unique()]].to_numpy(float)
        whole = np.isfinite(shares).all() and set(table["split"]) == {"test", "val"}
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    if not whole:
        raise RunFolderError(f"{path} must hold finite probabilities of test and val")
    return table
