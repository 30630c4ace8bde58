"""Reports of perfect generators and equal groups name nothing more often than they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lungan.results.verdicts import STANDINGS

NUM_STUDIES = 150
MOST_WRONG = 15
"""Where one study in twenty is wrong, more than 15 of 150 have a probability of 0.4 %."""


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "null_simulation.py"
    spec = importlib.util.spec_from_file_location("null_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("scatter", ["normal", "lognormal", "collapsing"])
@pytest.mark.parametrize(("num_seeds", "paired"), [(3, False), (5, True)])
def test_no_kind_of_sentence_is_wrong_too_often(
    simulation: ModuleType, scatter: str, num_seeds: int, paired: bool
) -> None:
    case = simulation.Case(scatter, num_seeds, paired)
    counts = simulation.count_wrong(case, NUM_STUDIES, seed=1)
    kinds = [*simulation.WRONG, "first sentences"]
    assert {kind: counts[kind] for kind in kinds if counts[kind] > MOST_WRONG / NUM_STUDIES} == {}


def test_the_simulation_sees_a_difference_where_there_is_one(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the scatter that seeds have in common, floors are told from themselves."""
    own_score = simulation.score

    def shifted(name: str, unit: float, scatter: str, collapsed: bool) -> dict[str, float | None]:
        found: dict[str, float | None] = own_score(name, unit - 8, scatter, collapsed)
        return found

    monkeypatch.setattr(simulation, "score", shifted)
    counts = simulation.count_wrong(simulation.Case("normal", 5, False), 5, seed=1)
    assert counts["past the floor"] == counts["short of the floor"] == counts["copying"] == 1


@pytest.mark.parametrize(
    "sentence",
    [
        "a (3 runs) made images more like the real ones than b (3 runs): it is better by 2",
        "a (3 runs) scored higher than b (3 runs): it is higher by 0.1",
        "Precision (domain), higher is better: a is better than b by 0.1",
        "of a plugin (domain), no direction known: a is higher than b by 0.1",
        *(f"a against b: {word} in Recall." for word in ("better", "worse", "higher", "lower")),
        "No group comes up to the floor of real images in Recall (domain).",
        *(words for side, words in STANDINGS.items() if side in ("short", "past", "copies")),
    ],
)
def test_every_claim_counts_as_one(simulation: ModuleType, sentence: str) -> None:
    """What test_answer, test_comparisons and test_verdicts show reports to say."""
    assert any(word in sentence for words in simulation.WRONG.values() for word in words)
