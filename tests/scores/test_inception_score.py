from __future__ import annotations

import numpy as np
import pytest
import torch

import lungan.classifiers.vision  # noqa: F401  lets the oracles import a torchvision without operators
from lungan.errors import DataError
from lungan.scores.distances import inception_score


def random_logits(count: int = 203, classes: int = 17, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, classes)) * scale


def test_identical_rows_score_exactly_1() -> None:
    score = inception_score(np.tile(random_logits(1), (60, 1)), splits=10)
    assert score == pytest.approx((1.0, 0.0), abs=1e-12)
    assert score[0] >= 1.0


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_balanced_certain_classes_score_their_number(classes: int) -> None:
    logits = np.eye(classes) * 2000  # the other probabilities underflow to 0
    assert inception_score(logits, splits=1)[0] == pytest.approx(classes, rel=1e-12)


def test_two_classes_of_unequal_share_score_exp_of_their_entropy() -> None:
    logits = np.array([[500.0, 0.0]] * 3 + [[0.0, 500.0]])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert inception_score(logits, splits=1)[0] == pytest.approx(np.exp(entropy), rel=1e-12)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_equals_torch_fidelity(splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = random_logits()
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)
    ours = inception_score(logits, splits)
    assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert ours[1] == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-12)


def test_equals_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    logits = random_logits(200)
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.features = [torch.from_numpy(logits)]
    assert inception_score(logits, 1)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_does_not_depend_on_order_within_a_split_or_a_shift_of_logits() -> None:
    logits = random_logits()
    expected = inception_score(logits, 1)[0]
    rng = np.random.default_rng(1)
    assert inception_score(logits[rng.permutation(len(logits))], 1)[0] == pytest.approx(expected)
    shifted = logits + rng.normal(size=(len(logits), 1)) * 100
    assert inception_score(shifted, 1)[0] == pytest.approx(expected, rel=1e-9)


def test_float32_near_1_keeps_its_digits() -> None:
    # The report's two scores are 1.0008 and 1.0076: the excess over 1 must not be rounding.
    logits = random_logits(scale=0.03).astype(np.float32)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    expected = np.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())
    assert inception_score(logits, 1)[0] - 1 == pytest.approx(expected - 1, rel=1e-6)


def test_fewer_images_than_splits_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one image a split: 5 for 10"):
        inception_score(random_logits(5), 10)
