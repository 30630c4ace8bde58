"""Arms compared over patients and seeds together, from the predictions that trials left; and each
classifier's AUC with its interval over patients, and by the closed form over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lungan.classifiers.measures import SPECIFICITY, threshold_at_specificity
from lungan.errors import RunFolderError
from lungan.files import DamagedError
from lungan.results.groups import Group
from lungan.results.read import Problem, Run
from lungan.results.statistics import SIGNIFICANCE, holm
from lungan.runs.folder import PREDICTIONS, UTILITY, Scalar
from lungan.utility.analysis import repeat
from lungan.utility.arms import PRIMARY_SCORE

NUM_DRAWS = 2000
POWER = 0.8
MEASURES = ("auc", "average_precision", "sensitivity")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Resampled:
    """A paired difference, its 95 % interval and standard error over patients and seeds.

    p: twice the share of draws on the other side of 0, which is below 5 % where the interval leaves
    out 0.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    p: float

    @property
    def includes_zero(self) -> bool:
        return self.low <= 0 <= self.high

    def detectable(self, num_tests: int = 1) -> float:
        """The smallest true difference that four of five such studies would find, at 5 % over
        ``num_tests`` tests (Bonferroni; normal approximation)."""
        level = 0.05 / max(1, num_tests)
        quantile = NormalDist().inv_cdf
        return (quantile(1 - level / 2) + quantile(POWER)) * self.standard_error


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

    by_repeat: dict[object, dict[str, Floats]]
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
    found = [_compare(measured[id(first)], measured[id(second)]) for first, second in pairs]
    families: dict[tuple[Scalar, ...], list[int]] = {}
    for place, pair in enumerate(pairs):
        if found[place] is not None:
            arms = tuple(group.runs[0].config.get("arm") for group in pair)
            families.setdefault(arms, []).append(place)
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
    """None where a trial left no predictions, or of other images than the others."""
    by_repeat: dict[object, list[dict[str, Floats]]] = {}
    images: tuple[str, ...] = ()
    classifiers = []
    num_patients = 0
    for run in group.done:
        table = _read(run)
        if table is None:
            return None
        test, validation = (table[table["split"] == name] for name in ("test", "val"))
        if images and images != tuple(test["image"]):
            return None
        images = tuple(test["image"])
        is_named = test["patient"] != ""
        patients, _ = pd.factorize(test["patient"].where(is_named, test["image"]))
        num_patients = patients.max() + 1 if is_named.any() else len(test)
        classes, names = pd.factorize(test["class"])
        if images not in drawn:
            drawn[images] = draw_patients(patients, classes)
        positive = run.config.get("classifier.positive")
        wanted = [str(positive)] if len(names) == 2 else [str(name) for name in names]
        of_classes = []
        for name in wanted:
            negatives = validation.loc[validation["class"] != name, f"p.{name}"].to_numpy(float)
            threshold = threshold_at_specificity(negatives, SPECIFICITY)
            scores = test[f"p.{name}"].to_numpy(float)
            is_positive = (test["class"] == name).to_numpy()
            of_classes.append(measure_draws(scores, is_positive, threshold, drawn[images]))
        own = _mean(of_classes)
        by_repeat.setdefault(repeat(run), []).append(own)
        auc, *draws = own[PRIMARY_SCORE]
        low, high = np.quantile(draws, [0.025, 0.975])
        closed = None
        if len(wanted) == 1:
            _, error = delong(scores, is_positive)
            closed = (max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error))
        classifiers.append(OneClassifier(run, float(auc), (float(low), float(high)), closed))
    if not by_repeat:
        return None
    pooled = {one: _mean(members) for one, members in by_repeat.items()}
    return _Measured(pooled, classifiers, images, int(num_patients))


def _mean(measures: list[dict[str, Floats]]) -> dict[str, Floats]:
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


def draw_patients(
    patients: NDArray[np.int64], classes: NDArray[np.int64], num_draws: int = NUM_DRAWS
) -> Floats:
    """How often each test image counts, (B + 1, N): row 0 is the test set itself, every other one a
    draw of whole patients with replacement; draws that lack a class are left out.

    patients, classes: (N,), of the test images.

    Patients and seeds are drawn independently of each other, since every seed's classifier sees
    every patient. Source: Owen 2007, doi:10.1214/07-AOAS122 (the pigeonhole bootstrap).
    """
    _, of_image = np.unique(patients, return_inverse=True)
    num_patients = int(of_image.max()) + 1
    rng = np.random.default_rng(0)
    share = np.full(num_patients, 1 / num_patients)
    weights = rng.multinomial(num_patients, share, size=num_draws)[:, of_image].astype(np.float64)
    present = np.all([weights[:, classes == k].any(axis=1) for k in np.unique(classes)], axis=0)
    return np.concatenate([np.ones((1, len(patients))), weights[present]])


def measure_draws(
    scores: Floats, positive: NDArray[np.bool_], threshold: float, draws: Floats
) -> dict[str, Floats]:
    """Each of MEASURES for every draw, (B + 1,).

    scores, positive: (N,) of one classifier. threshold: above it an image is called positive.
    Source: Mann and Whitney 1947 for AUC, ties counting half; average precision as the area under
    the steps of precision over recall.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    weights = draws[:, order]
    is_positive = positive[order]
    hits = np.add.reduceat(weights * is_positive, starts, axis=1)
    others = np.add.reduceat(weights * ~is_positive, starts, axis=1)
    num_hits, num_others = hits.sum(axis=1), others.sum(axis=1)
    above_half = np.cumsum(others, axis=1) - others / 2
    found = np.cumsum(hits[:, ::-1], axis=1)
    called = found + np.cumsum(others[:, ::-1], axis=1)
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    called_positive = weights[:, scores[order] > threshold] @ is_positive[scores[order] > threshold]
    return {
        "auc": (hits * above_half).sum(axis=1) / (num_hits * num_others),
        "average_precision": (hits[:, ::-1] * precision).sum(axis=1) / num_hits,
        "sensitivity": called_positive / num_hits,
    }


def resample_difference(first: Floats, second: Floats) -> Resampled:
    """first, second: (S, B + 1), one measure of two arms under the same seeds and draws of
    patients. Seeds are drawn too, alike for all arms that share them."""
    num_seeds, num_draws = first.shape
    rng = np.random.default_rng([0, 1])
    shares = np.full((num_draws, num_seeds), 1 / num_seeds)
    shares[1:] = rng.multinomial(num_seeds, shares[0], size=num_draws - 1) / num_seeds
    values = np.einsum("bs,sb->b", shares, first - second)
    drawn = values[1:]
    low, high = np.quantile(drawn, [0.025, 0.975])
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + float(rarer)) / (1 + len(drawn)))
    return Resampled(float(values[0]), float(low), float(high), float(drawn.std(ddof=1)), p)


def delong(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, float]:
    """AUC of one classifier and its standard error over images, each as if of another patient.

    scores, positive: (N,), at least two images of each class.
    Source: DeLong et al. 1988, doi:10.2307/2531595, by the midranks of Sun and Xu 2014,
    doi:10.1109/LSP.2014.2337313.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    # Of each image, the share of the other class on its right side.
    of_positives = (ranks[positive] - rankdata(scores[positive])) / num_negative
    of_negatives = 1 - (ranks[~positive] - rankdata(scores[~positive])) / num_positive
    variance = of_positives.var(ddof=1) / num_positive + of_negatives.var(ddof=1) / num_negative
    return float(of_positives.mean()), math.sqrt(variance)
