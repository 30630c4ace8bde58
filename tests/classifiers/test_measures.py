"""Measures against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
    roc_curve,
)

from lungan.classifiers.measures import (
    balanced_accuracy,
    expected_calibration_error,
    measure,
    predict,
    threshold_at_specificity,
)


def two_columns(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


@pytest.mark.parametrize("digits", [1, 3, 15])
def test_against_scikit_learn_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.35 + 0.3 * labels, 0.25), 0, 1).round(digits)
    columns = two_columns(scores)
    found = measure(columns, labels, 1, (columns, labels))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    expected = average_precision_score(labels, scores)
    assert found["average_precision"] == pytest.approx(expected, abs=1e-12)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = true[false <= 0.05 + 1e-12].max()
    assert found["sensitivity_at_95_specificity"] == pytest.approx(expected, abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(((true + 1 - false) / 2).max(), abs=1e-12)


def test_more_classes_are_each_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(0, 1, (200, 3)) + 1.5 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = measure(probabilities, labels, 2, (probabilities, labels))
    expected = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert found["auc"] == pytest.approx(expected, abs=1e-12)
    assert found["accuracy"] == (probabilities.argmax(axis=1) == labels).mean()


def test_the_positive_class_is_the_one_asked_for() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    columns = two_columns(np.array([0.1, 0.2, 0.6, 0.4, 0.9]))
    one, zero = (measure(columns, labels, which, (columns, labels)) for which in (1, 0))
    assert one["auc"] == zero["auc"] == pytest.approx(5 / 6)
    assert one["sensitivity_at_95_specificity"] == pytest.approx(1 / 2)
    assert zero["sensitivity_at_95_specificity"] == pytest.approx(2 / 3)


def test_thresholds_come_from_validation_and_its_specificity_is_not_assumed() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    test = two_columns(np.array([0.1, 0.5, 0.6, 0.7, 0.55, 0.9]))
    validation = two_columns(np.array([0.2, 0.52, 0.8, 0.6])), np.array([0, 0, 1, 1])
    found = measure(test, labels, 1, validation)
    assert found["sensitivity_at_95_specificity"] == 1.0  # above 0.52, the highest negative
    assert found["specificity"] == 0.5
    assert predict(test, 1, validation).tolist() == [0, 0, 1, 1, 0, 1]  # above 0.56
    assert found["accuracy"] == pytest.approx(3 / 6)


@pytest.mark.parametrize(
    ("num_negative", "expected"),
    # Of 20 negatives 19 are 95 %, so one may be above; of 19, 18 are too few, so none.
    [(20, 0.0), (19, 1.0), (40, 0.0)],
)
def test_a_threshold_where_a_negative_more_or_less_decides(
    num_negative: int, expected: float
) -> None:
    negatives = np.zeros(num_negative)
    negatives[0] = 1.0
    assert threshold_at_specificity(negatives, 0.95) == expected


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
