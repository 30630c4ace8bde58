"""How often a report is wrong where nothing is to be found: perfect generators and equal groups.

Every simulated study goes through lungan's own path, from records of runs through groups and tests
to the sentences of the report. A study has three groups of runs whose scores come from one
distribution, and that is the floor's where generators are perfect. A sentence that names a
difference, a floor missed or passed, or a sign of copying is then wrong. In the studies called
``features`` the scores and floors themselves are computed too, from normal features of 500
generated and 1000 real images.

    python benchmarks/null_simulation.py --studies 2000 --feature-studies 200
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungan.config import presets
from lungan.results.comparisons import compare_groups, summarize
from lungan.results.groups import Group
from lungan.results.read import Run
from lungan.results.verdicts import headlines
from lungan.scores import comparison
from lungan.scores.encoders import Encoded

NUM_GROUPS = 3
SHARED = 0.7
"""Of the floors' variance, as scores measure it: one direction of features carries the most."""

SCORES = {
    # floor's median and standard deviation, of the logarithm for the first two
    "frechet_distance": (np.log(0.01), 0.35),
    "inception_score": (np.log(1.04), 0.01),
    "kernel_distance": (0.0, 0.001),
    "precision": (0.9, 0.012),
    "recall": (0.9, 0.012),
    "density": (1.0, 0.03),
    "coverage": (0.95, 0.008),
    "memorization_distance_ratio": (1.0, 0.02),
    "memorization_share": (0.01, 0.003),
    "authenticity": (0.6, 0.02),
    "memorization_c_t": (0.0, 1.0),
}
LOGARITHMIC = ("frechet_distance", "inception_score")
WRONG = {
    "difference": (
        *(" is better than ", " is higher than "),
        *(" better in ", " worse in ", " higher in ", " lower in "),
        *(" it is better by ", " it is higher by "),
    ),
    "short of the floor": ("No group comes up to the floor", "Worse than real images:"),
    "past the floor": ("Nearer to real images than real ones are",),
    "copying": ("a sign of copying:",),
}
"""Kinds of sentences, by words that only they have."""


@dataclass(frozen=True)
class Case:
    """scatter: ``normal`` and ``lognormal`` scores of perfect generators, whose floors are known;
    ``collapsing`` ones, of which one seed in five fails, are equal to each other but not perfect.
    paired: groups share their seeds, and half of the variance of the scores with them.
    """

    scatter: str
    num_seeds: int
    paired: bool


CASES = [
    Case(scatter, num_seeds, paired)
    for scatter in ("normal", "lognormal", "collapsing")
    for num_seeds in (3, 5)
    for paired in (False, True)
]
CASES += [Case("features", num_seeds, False) for num_seeds in (3, 5)]


def simulate(case: Case, rng: np.random.Generator) -> list[str]:
    """The sentences of one study."""
    groups = []
    common = {name: rng.normal() for name in SCORES}
    by_seed = {name: rng.normal(size=case.num_seeds) for name in SCORES}
    for number in range(NUM_GROUPS):
        runs = []
        collapsed = rng.random(case.num_seeds) < (0.2 if case.scatter == "collapsing" else 0)
        own = {name: rng.normal(size=case.num_seeds) for name in SCORES}
        for index in range(case.num_seeds):
            scores: dict[str, float | None] = {}
            for name in SCORES:
                seed = own[name][index]
                if case.paired:
                    seed = (seed + by_seed[name][index]) / np.sqrt(2)
                unit = np.sqrt(SHARED) * common[name] + np.sqrt(1 - SHARED) * seed
                scores |= score(name, unit, case.scatter, bool(collapsed[index]))
            seed_number = index if case.paired else number * case.num_seeds + index
            runs.append(
                Run(
                    name=f"{number}-{index}",
                    status="done",
                    folder=Path(),
                    config={"seed": seed_number},
                    scores=scores,
                    settings={"": (1000,), "domain": (1000,)},
                )
            )
        groups.append(Group((number,), f"group {number}", runs))
    summaries = summarize(groups)
    return headlines(groups, summaries, compare_groups(summaries))


def simulate_features(case: Case, rng: np.random.Generator) -> list[str]:
    """The sentences of one study whose scores are taken from features of perfect generators."""
    config = presets.load("score", "standard")
    spread = np.linspace(0.3, 2, 16)

    def draw(count: int) -> Encoded:
        features = rng.normal(size=(count, 16)) * spread
        return Encoded(features.astype(np.float32), rng.normal(size=(count, 2)).astype(np.float32))

    real = draw(1000)
    floor = comparison.floors(real, 500, config)
    rows = comparison.reference_rows(1000, 500, config, None)
    reference = Encoded(real.features[rows], real.logits[rows])
    groups = []
    for number in range(NUM_GROUPS):
        runs = []
        for seed in range(case.num_seeds):
            values = comparison.compare(reference, draw(500), config) | floor
            scores = {f"domain.{key}": value for key, value in values.items()}
            settings = {"": (500,), "domain": (500,)}
            config_of_run = {"seed": number * case.num_seeds + seed}
            runs.append(
                Run(
                    name=f"{number}-{seed}",
                    status="done",
                    folder=Path(),
                    config=config_of_run,
                    scores=scores,
                    settings=settings,
                )
            )
        groups.append(Group((number,), f"group {number}", runs))
    summaries = summarize(groups)
    return headlines(groups, summaries, compare_groups(summaries))


def score(name: str, unit: float, scatter: str, collapsed: bool) -> dict[str, float | None]:
    """A value with its floor, from a standard normal ``unit``."""
    middle, spread = SCORES[name]

    def value(units: float) -> float:
        if scatter == "lognormal" and name not in LOGARITHMIC:
            units = (np.exp(0.5 * units) - 1) / 0.5  # skewed, with the median in its place
        found = middle + spread * units
        return float(np.exp(found)) if name in LOGARITHMIC else float(found)

    key = f"domain.{name}"
    found = value(unit + (30.0 if collapsed else 0.0))
    values: dict[str, float | None] = {key: found}
    if scatter != "collapsing" and name != "inception_score":
        low, high = value(-1.96), value(1.96)
        values |= {f"{key}.floor": value(0.0), f"{key}.floor_std": (high - low) / 3.92}
        values |= {f"{key}.floor_low": low, f"{key}.floor_high": high}
        values[f"{key}.floor_shared"] = SHARED
    return values


def count_wrong(case: Case, num_studies: int, seed: int) -> dict[str, Any]:
    """Shares of studies with a wrong sentence of each kind, and of any kind in the answer or the
    first finding after the number of runs, which a reader sees first."""
    rng = np.random.default_rng([seed, CASES.index(case)])
    wrong: Counter[str] = Counter()
    for _ in range(num_studies):
        lines = (simulate_features if case.scatter == "features" else simulate)(case, rng)
        for kind, words in WRONG.items():
            wrong[kind] += any(word in line for line in lines for word in words)
        first = " ".join(lines[:3])
        wrong["first sentences"] += any(word in first for words in WRONG.values() for word in words)
    shares = {kind: wrong[kind] / num_studies for kind in (*WRONG, "first sentences")}
    return {
        "scores": case.scatter,
        "seeds": case.num_seeds,
        "paired": case.paired,
        "studies": num_studies,
        **shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000, help="of each kind (2000)")
    parser.add_argument("--feature-studies", type=int, default=200, help="with features (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/null_simulation"))
    options = parser.parse_args()
    rows = []
    for case in CASES:
        with_features = case.scatter == "features"
        studies = options.feature_studies if with_features else options.studies
        rows.append(count_wrong(case, studies, options.seed))
    table = pd.DataFrame(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "null_simulation.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
