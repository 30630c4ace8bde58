"""Arms compared over patients and seeds together, from the predictions that trials left; and each
classifier's AUC with its interval over patients, and by the closed form over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lungan.classifiers.measures import SPECIFICITY, threshold_at_specificity
from lungan.errors import RunFolderError
from lungan.files import DamagedError
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.statistics import SIGNIFICANCE, holm
from lungan.runs.folder import PREDICTIONS, UTILITY
from lungan.utility.analysis import repeat
from lungan.utility.arms import PRIMARY_SCORE
from lungan.utility.resampling import (
    MEASURES,
    Floats,
    Resampled,
    delong,
    draw_patients,
    measure_draws,
    resample_difference,
)


@dataclass(frozen=True, slots=True)
class OverPatients:
    """results: by measure, first minus second. num_patients: of the test images, as many as images
    where patients are not known. num_tests: questions of the same pair of arms in the study. p: of
    the primary score, after Holm over these."""

    results: dict[str, Resampled]
    num_seeds: int
    num_images: int
    num_patients: int
    num_tests: int = 1
    p: float = 1.0

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class OneClassifier:
    """The AUC of one trial on the test images with two 95 % intervals: over patients drawn again,
    and by DeLong's closed form, as if every image were of another patient. ``delong`` is None with
    more than two classes."""

    trial: Run
    auc: float
    over_patients: tuple[float, float]
    delong: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Measured:
    """by_repeat: of each seed and draw of real images the measures of every draw of patients, on
    average over sets of generators. images: what the draws are of."""

    by_repeat: dict[object, dict[str, NDArray[np.float64]]]
    classifiers: list[OneClassifier]
    images: tuple[str, ...]
    num_patients: int


def compare_over_patients(
    groups: Sequence[Group], pairs: Sequence[tuple[Group, Group]], problems: list[Problem]
) -> tuple[list[OverPatients | None], list[OneClassifier]]:
    """Each of ``pairs``, None where not all trials left predictions of the same test images, and
    every classifier of ``groups`` that did; trials of lungan before 0.2 left none. Files that
    cannot be read are added to ``problems``."""
    drawn: dict[tuple[str, ...], Floats] = {}
    measured: dict[int, _Measured | None] = {}
    for group in groups:
        try:
            measured[id(group)] = _measure(group, drawn)
        except RunFolderError as error:
            problems.append(Problem(f"{UTILITY}: {group.label}", str(error)))
            measured[id(group)] = None
    found: list[OverPatients | None] = []
    families: dict[object, list[int]] = {}
    for first, second in pairs:
        found.append(_compare(measured[id(first)], measured[id(second)]))
        if found[-1] is not None:
            arms = [side.runs[0].config.get("arm") for side in (first, second)]
            families.setdefault(tuple(arms), []).append(len(found) - 1)
    for family in families.values():
        members = [one for place in family if (one := found[place]) is not None]
        adjusted = holm([one.results[PRIMARY_SCORE].p for one in members])
        for place, one, p in zip(family, members, adjusted, strict=True):
            found[place] = replace(one, num_tests=len(family), p=p)
    classifiers = [one for each in measured.values() if each for one in each.classifiers]
    return found, classifiers


def _compare(left: _Measured | None, right: _Measured | None) -> OverPatients | None:
    if left is None or right is None or left.images != right.images:
        return None
    repeats = [one for one in left.by_repeat if one in right.by_repeat]
    if len(repeats) < 2:
        return None
    results = {
        name: resample_difference(
            np.array([left.by_repeat[one][name] for one in repeats]),
            np.array([right.by_repeat[one][name] for one in repeats]),
        )
        for name in MEASURES
    }
    return OverPatients(results, len(repeats), len(left.images), left.num_patients)


def _measure(group: Group, drawn: dict[tuple[str, ...], Floats]) -> _Measured | None:
    by_repeat: dict[object, list[dict[str, NDArray[np.float64]]]] = {}
    images: tuple[str, ...] = ()
    classifiers = []
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
        are_named = (test["patient"] != "").any()
        num_patients = patients.nunique() if are_named else len(test)
        numbers, _ = pd.factorize(patients)
        classes, names = pd.factorize(test["class"])
        if images not in drawn:
            drawn[images] = draw_patients(numbers, classes)
        positive = run.config.get("classifier.positive")
        wanted = [str(positive)] if len(names) == 2 else [str(name) for name in names]
        of_classes = []
        for name in wanted:
            negatives = validation.loc[validation["class"] != name, f"p.{name}"].to_numpy(float)
            of_classes.append(
                measure_draws(
                    test[f"p.{name}"].to_numpy(float),
                    (test["class"] == name).to_numpy(),
                    threshold_at_specificity(negatives, SPECIFICITY),
                    drawn[images],
                )
            )
        own = _mean(of_classes)
        by_repeat.setdefault(repeat(run), []).append(own)
        auc, *draws = own[PRIMARY_SCORE]
        low, high = np.quantile(draws, [0.025, 0.975])
        closed = None
        if len(wanted) == 1:
            scores = test[f"p.{wanted[0]}"].to_numpy(float)
            _, error = delong(scores, (test["class"] == wanted[0]).to_numpy())
            closed = (max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error))
        classifiers.append(OneClassifier(run, float(auc), (float(low), float(high)), closed))
    if not by_repeat:
        return None
    pooled = {one: _mean(members) for one, members in by_repeat.items()}
    return _Measured(pooled, classifiers, images, num_patients)


def _mean(measures: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {key: np.mean([one[key] for one in measures], axis=0) for key in MEASURES}


def _read(run: Run) -> pd.DataFrame | None:
    path = run.folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        text = dict.fromkeys(("split", "image", "patient", "class"), str)
        table = pd.read_csv(path, dtype=text, keep_default_na=False)
        shares = table[[f"p.{name}" for name in table["class"].unique()]].to_numpy(float)
        whole = np.isfinite(shares).all() and set(table["split"]) == {"test", "val"}
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read: {error.strerror}; make it readable"
        ) from error
    except (ValueError, KeyError):
        whole = False
    if not whole:
        raise DamagedError(
            path,
            "it must hold finite probabilities of images of test and val",
            "remove its folder and repeat the command",
        )
    return table
