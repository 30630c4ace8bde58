"""How often a utility study finds a gain where no arm differs, and which gains it finds.

Two arms are simulated whose classifiers differ from seed to seed and whose scores of a patient's
images are correlated. An arm may do better on some patients and worse on others, with no gain on
average. Every study is tested in four ways: Student's t paired by seed; images and seeds drawn
again together, as if every image were another patient; patients and seeds drawn again together;
and as lungan answers, by the first and the last of these, for one control.

    python benchmarks/utility_null_simulation.py --studies 300
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lungan.results.statistics import paired
from lungan.utility.patients import draw_patients, measure_draws, resample_difference

NUM_PATIENTS = 60
IMAGES_A_PATIENT = 3
BASE_AUC = 0.93
OF_PATIENT, OF_IMAGE = 0.7, 0.5
"""Standard deviations of the score that all classifiers share, by patient and by image."""
OF_ARM, OF_SEED = 0.25, 0.35
"""Those of one arm's own opinion of a patient, and of one classifier's of an image."""
QUALITY = 0.12
"""That of a classifier's separation of the classes, from seed to seed."""
TESTS = ("paired_t", "images_and_seeds", "patients_and_seeds", "answer")
NUM_DRAWS = 300


def separation(auc: float) -> float:
    """The distance between the classes' mean scores that gives this AUC over all patients."""
    variance = OF_PATIENT**2 + OF_IMAGE**2 + OF_ARM**2 + OF_SEED**2
    return NormalDist().inv_cdf(auc) * float(np.sqrt(2 * variance))


def simulate(
    num_patients: int, num_seeds: int, gain: float, rng: np.random.Generator
) -> tuple[dict[str, bool], float]:
    """Whether each of TESTS finds a difference at 5 %, and the detectable gain that is reported."""
    patients = np.repeat(np.arange(num_patients), IMAGES_A_PATIENT)
    labels = (patients % 2).astype(np.int64)
    shared = OF_PATIENT * rng.normal(size=num_patients)[patients]
    shared += OF_IMAGE * rng.normal(size=len(patients))
    arms = []
    for auc in (BASE_AUC + gain, BASE_AUC):
        opinion = OF_ARM * rng.normal(size=num_patients)[patients]
        own = OF_SEED * rng.normal(size=(num_seeds, len(patients)))
        distance = separation(auc) + QUALITY * rng.normal(size=(num_seeds, 1))
        arms.append(distance * labels + shared + opinion + own)
    images = draw_patients(np.arange(len(patients)), labels, NUM_DRAWS)
    whole = draw_patients(patients, labels, NUM_DRAWS)
    by_image, by_patient = (
        resample_difference(*(_areas(arm, labels, draws) for arm in arms))
        for draws in (images, whole)
    )
    found = {
        "images_and_seeds": not by_image.includes_zero,
        "patients_and_seeds": not by_patient.includes_zero,
    }
    areas = [_areas(arm, labels, whole[:1]) for arm in arms]
    p = paired(*(list(map(float, area[:, 0])) for area in areas)).p
    found["paired_t"] = p is not None and p < 0.05
    found["answer"] = found["paired_t"] and by_patient.p < 0.05
    return found, by_patient.detectable()


def _areas(
    scores: NDArray[np.float64], labels: NDArray[np.int64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.array([measure_draws(one, labels == 1, 0.0, draws)["auc"] for one in scores])


def rates(
    num_patients: int, num_seeds: int, gain: float, num_studies: int, seed: int = 0
) -> dict[str, float]:
    """The share of studies in which each test finds a difference, and the mean detectable gain."""
    rng = np.random.default_rng([seed, num_patients, num_seeds, round(gain * 1000)])
    studies = [simulate(num_patients, num_seeds, gain, rng) for _ in range(num_studies)]
    row = {name: float(np.mean([found[name] for found, _ in studies])) for name in TESTS}
    return row | {"detectable": float(np.mean([size for _, size in studies]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("results/utility_null"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "utility_null.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patients", "seeds", "gain", "studies", *TESTS, "detectable"])
        for num_seeds in (5, 10):
            for gain in (0.0, 0.02, 0.04):
                row = rates(NUM_PATIENTS, num_seeds, gain, options.studies)
                shown = [f"{number:.4f}" for number in row.values()]
                writer.writerow([NUM_PATIENTS, num_seeds, gain, options.studies, *shown])
                file.flush()


if __name__ == "__main__":
    main()
