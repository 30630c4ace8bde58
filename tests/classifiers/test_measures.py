"""Measures against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from lungan.classifiers.measures import (
    balanced_accuracy,
    expected_calibration_error,
    measure,
    sensitivity_at_specificity,
)


def two_columns(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


@pytest.mark.parametrize("digits", [1, 3, 15])
def test_against_scikit_learn_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.25), 0, 1).round(digits)
    found = measure(two_columns(scores), labels, positive=1)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    predicted = (scores > 0.5).astype(int)
    assert found["accuracy"] == pytest.approx((predicted == labels).mean(), abs=1e-12)
    expected = balanced_accuracy_score(labels, predicted)
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = true[false <= 0.05 + 1e-12].max()
    assert found["sensitivity_at_95_specificity"] == pytest.approx(expected, abs=1e-12)


def test_more_classes_are_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(0, 1, (200, 3)) + 1.5 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = measure(probabilities, labels, positive=2)
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert found["auc"] == pytest.approx(expected, abs=1e-12)


def test_the_positive_class_is_the_one_asked_for() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    scores = np.array([0.1, 0.2, 0.6, 0.4, 0.9])
    one, zero = (measure(two_columns(scores), labels, positive=which) for which in (1, 0))
    assert one["auc"] == zero["auc"] == pytest.approx(5 / 6)
    assert one["sensitivity_at_95_specificity"] == pytest.approx(1 / 2)
    assert zero["sensitivity_at_95_specificity"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("num_negative", "expected"),
    # Of 20 negatives 19 are 95 %, so one may be above; of 19, 18 are too few, so none.
    [(20, 1.0), (19, 0.0), (40, 1.0)],
)
def test_sensitivity_where_a_negative_more_or_less_decides(
    num_negative: int, expected: float
) -> None:
    scores = np.append(np.zeros(num_negative), 0.5)
    scores[0] = 1.0
    positive = np.arange(num_negative + 1) == num_negative
    assert sensitivity_at_specificity(scores, positive) == expected


def test_calibration_error_by_hand() -> None:
    # Bins of 1/15: 0.95 and 0.99 share the last; 0.61 and 0.65 lie in the tenth, of 0.6 to 0.667.
    confidence = np.array([0.95, 0.99, 0.61, 0.65])
    labels = np.array([1, 0, 1, 0])
    expected = (abs(0.95 + 0.99 - 1) + abs(0.61 + 0.65 - 1)) / 4
    found = expected_calibration_error(two_columns(confidence), labels)
    assert found == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_the_calibrated_and_of_the_sure() -> None:
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, 200_000)
    labels = (rng.uniform(0, 1, 200_000) < scores).astype(int)
    assert expected_calibration_error(two_columns(scores), labels) < 0.006
    sure = two_columns(np.ones(10))
    assert expected_calibration_error(sure, np.zeros(10, int)) == 1
    assert expected_calibration_error(sure, np.ones(10, int)) == 0


def test_balanced_accuracy_does_not_count_heads() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert balanced_accuracy(np.zeros(100, dtype=np.int64), labels) == 0.5
