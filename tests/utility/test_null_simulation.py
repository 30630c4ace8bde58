"""Simulated utility studies: where no arm differs, patients and seeds drawn together say so."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

NUM_STUDIES = 40


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    root = Path(__file__).resolve().parents[2]
    path = root / "benchmarks" / "utility_null_simulation.py"
    spec = importlib.util.spec_from_file_location("utility_null_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_no_arm_differs_few_studies_find_a_gain(simulation: ModuleType) -> None:
    found = simulation.rates(40, 4, 0.0, NUM_STUDIES, seed=1)
    # Where one study in twenty is wrong, more than 6 of 40 have a probability of 0.3 %.
    assert found["patients_and_seeds"] <= 6 / NUM_STUDIES
    assert found["paired_t"] > found["patients_and_seeds"]


def test_a_large_gain_is_found_in_most_studies(simulation: ModuleType) -> None:
    found = simulation.rates(40, 4, 0.06, NUM_STUDIES, seed=1)
    none = simulation.rates(40, 4, 0.0, NUM_STUDIES, seed=1)
    assert found["patients_and_seeds"] >= 0.7 > none["patients_and_seeds"]
