"""Splits depend on each image's own pixels and on nothing else."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lungan.data.partition import SPLITS, partition, place_of

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (4000, 8, 8), dtype=np.uint8)
PLACES = [place_of(image) for image in IMAGES]
TRAIN, VAL, TEST = range(3)


def test_names() -> None:
    assert SPLITS == ("train", "val", "test")


def test_shares_are_met_on_average() -> None:
    splits = partition(PLACES, 0.1, 0.3)
    assert splits.dtype == np.int64
    counts = np.bincount(splits, minlength=3) / len(IMAGES)
    # Four standard deviations of a binomial share.
    assert np.abs(counts - [0.6, 0.1, 0.3]).max() < 4 * np.sqrt(0.25 / len(IMAGES))


def test_places_are_uniform_and_below_one() -> None:
    assert 0 <= min(PLACES) < 0.01
    assert 0.99 < max(PLACES) < 1
    assert abs(np.mean(PLACES) - 0.5) < 4 * np.sqrt(1 / 12 / len(PLACES))


def test_duplicates_stay_together_and_layout_in_memory_does_not_matter() -> None:
    assert place_of(IMAGES[0].copy()) == PLACES[0]
    assert place_of(np.asfortranarray(IMAGES[0])) == PLACES[0]
    wide = np.zeros((8, 16), np.uint8)
    wide[:, ::2] = IMAGES[0]
    assert place_of(wide[:, ::2]) == PLACES[0]


def test_shape_and_depth_are_part_of_the_content() -> None:
    flat = np.zeros((4, 4), np.uint8)
    others = [flat.reshape(2, 8), np.zeros((2, 4), np.uint16), np.zeros((4, 5), np.uint8)]
    assert len({place_of(image) for image in [flat, *others]}) == 4


def test_a_larger_share_of_one_takes_nothing_from_the_other() -> None:
    before, after = partition(PLACES, 0.1, 0.2), partition(PLACES, 0.4, 0.2)
    assert np.array_equal(before == TEST, after == TEST)
    assert (after[before == VAL] == VAL).all()


def test_adding_moves_none() -> None:
    some = partition(PLACES[:500], 0.2, 0.2)
    assert np.array_equal(partition(PLACES, 0.2, 0.2)[:500], some)


def test_no_shares_is_all_train() -> None:
    assert (partition(PLACES, 0, 0) == TRAIN).all()


def test_an_empty_split_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        partition([0.5, 0.6], 0.1, 0)
    assert "data.val_fraction=0.1 puts none of 2 images into val" in caplog.text
    assert "test_fraction" not in caplog.text
