"""Splits depend on each image's own pixels, and on its group where groups are known."""

from __future__ import annotations

import numpy as np
import pytest

from lungan.data.images import SPLITS, partition, place_of

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


def patients(seed: int = 0, num_groups: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, labels and groups of 1 to 12 images each; one patient in ten is in both classes."""
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.4, num_groups).clip(1, 12)
    groups = np.repeat(np.arange(num_groups), sizes)
    labels = (groups % 4 == 0).astype(np.int64)
    labels[(groups % 10 == 0) & (np.arange(len(groups)) % 2 == 0)] = 0
    return rng.random(len(groups)), labels, groups


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_every_class_meets_its_share(seed: int) -> None:
    places, labels, groups = patients(seed)
    splits = partition(list(places), 0.15, 0.15, labels, groups)
    assert all(len(set(splits[groups == group])) == 1 for group in np.unique(groups))
    for label in (0, 1):
        counts = np.bincount(splits[labels == label], minlength=3) / (labels == label).sum()
        # To within one of the largest groups, and what patients of both classes bring along.
        assert np.abs(counts - [0.7, 0.15, 0.15]).max() < 0.06


def test_large_groups_go_everywhere() -> None:
    means = []
    for seed in range(30):
        places, labels, groups = patients(seed)
        splits = partition(list(places), 0.2, 0.2, labels, groups)
        means.append(
            [(splits == split).sum() / len(set(groups[splits == split])) for split in range(3)]
        )
    train, val, test = np.mean(means, axis=0)
    # Images a patient; a standard error of the mean over 30 draws is about 0.04.
    assert abs(val - train) < 0.15
    assert abs(test - train) < 0.15


def test_another_seed_is_another_draw() -> None:
    places, labels, groups = patients()
    for grouped in ({}, {"labels": labels, "groups": groups}):
        one, other = (partition(list(places), 0.2, 0.2, **grouped, seed=seed) for seed in (0, 7))
        assert 0.3 < (one == other).mean() < 0.6  # 0.44 is expected


def test_the_order_and_the_names_of_groups_do_not_matter() -> None:
    places, labels, groups = patients()
    order = rng.permutation(len(groups))
    shuffled = partition(list(places[order]), 0.2, 0.2, labels[order], 1000 - groups[order])
    assert np.array_equal(shuffled, partition(list(places), 0.2, 0.2, labels, groups)[order])


def test_a_duplicate_in_two_groups_keeps_them_together() -> None:
    places, labels, groups = patients()
    others = np.flatnonzero(groups != groups[0])
    places[others[::40]] = places[0]
    splits = partition(list(places), 0.3, 0.3, labels, groups)
    together = np.isin(groups, groups[places == places[0]])
    assert len(set(splits[together])) == 1


def test_a_group_of_its_own_for_each_image_is_a_draw_by_class() -> None:
    labels = (np.arange(len(PLACES)) % 4 == 0).astype(np.int64)
    splits = partition(PLACES, 0.1, 0.3, labels, np.arange(len(PLACES)))
    counts = [np.bincount(splits[labels == label]).tolist() for label in (0, 1)]
    assert counts == [[1800, 300, 900], [600, 100, 300]]
