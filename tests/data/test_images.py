"""Image sets: data.fraction keeps few images and moves no other, groups stay whole."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lungan.config.data import PhantomConfig
from lungan.data.build import load
from lungan.data.images import LEFT_OUT, ImageSet, keep_fraction
from lungan.errors import ConfigError, DataError


def make_set(order: np.ndarray | None = None) -> ImageSet:
    """200 train images, a quarter of them of class a, and 40 in val and test each."""
    images = np.random.default_rng(0).integers(0, 256, (280, 1, 8, 8), dtype=np.uint8)
    labels = (np.arange(280) % 4 > 0).astype(np.int64)
    splits = np.repeat([0, 1, 2], [200, 40, 40]).astype(np.int64)
    rows = np.arange(280) if order is None else order
    return ImageSet(
        images=images[rows],
        labels=labels[rows],
        splits=splits[rows],
        class_names=("a", "b"),
        split_names=("train", "val", "test"),
        source="made up",
    )


def kept(image_set: ImageSet) -> set[bytes]:
    return {image.tobytes() for image in image_set.select(["train"], []).images}


def test_each_class_keeps_its_share_and_other_splits_stay() -> None:
    few = keep_fraction(make_set(), ["train"], 0.1, 0)
    train = few.select(["train"], [])
    assert np.bincount(train.labels).tolist() == [5, 15]
    assert len(few.select([LEFT_OUT], [])) == 180
    assert len(few.select(["val"], [])) == len(few.select(["test"], [])) == 40
    assert np.array_equal(few.images, make_set().images)


def test_smaller_fractions_are_part_of_larger_ones_and_seeds_differ() -> None:
    tenth, fifth = (kept(keep_fraction(make_set(), ["train"], f, 3)) for f in (0.1, 0.2))
    assert tenth < fifth
    assert tenth != kept(keep_fraction(make_set(), ["train"], 0.1, 4))


def test_the_order_of_the_images_does_not_matter() -> None:
    shuffled = make_set(np.random.default_rng(1).permutation(280))
    assert kept(keep_fraction(shuffled, ["train"], 0.1, 0)) == kept(
        keep_fraction(make_set(), ["train"], 0.1, 0)
    )


def test_a_class_never_vanishes_and_a_split_that_was_not_named_is_whole() -> None:
    few = keep_fraction(make_set(), ["train"], 0.001, 0)
    assert np.bincount(few.select(["train"], []).labels).tolist() == [1, 1]
    both = keep_fraction(make_set(), ["train", "val"], 0.5, 0)
    assert len(both.select(["train"], [])) == 100
    assert len(both.select(["val"], [])) == 20


@pytest.mark.parametrize(
    ("splits", "message"),
    [([], r"data.splits must name the splits that data.fraction is taken of"),
     (["tune"], r"data.splits must be among train, val, test, got tune")],
)  # fmt: skip
def test_errors(splits: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        keep_fraction(make_set(), splits, 0.5, 0)


def test_the_reader_gives_it(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path))
    shape = {"name": "phantom", "size": 28, "channels": 1, "splits": ["train"], "classes": []}
    config = PhantomConfig(**shape, num_images=100, num_test=8, seed=0)
    whole = load(config)
    assert LEFT_OUT not in whole.split_names
    config.fraction = 0.2
    few = load(config)
    assert len(few.select(["train"], [])) == round(0.2 * len(whole.select(["train"], [])))
    assert few.content_hash != whole.content_hash


def with_groups(image_set: ImageSet) -> ImageSet:
    """Patients of about five images each, by pixels, so that the order changes none."""
    groups = image_set.images[:, 0, 0, 0].astype(np.int64) // 5
    names = tuple(map(str, range(52)))
    return dataclasses.replace(image_set, groups=groups, group_names=names)


def test_whole_groups_are_kept_and_smaller_fractions_are_nested() -> None:
    image_set = with_groups(make_set())
    before: set[bytes] = set()
    for fraction in (0.01, 0.1, 0.3, 0.6):
        few = keep_fraction(image_set, ["train"], fraction, 1)
        train, left = few.select(["train"], []), few.select([LEFT_OUT], [])
        assert train.groups is not None and left.groups is not None
        assert not set(train.groups) & set(left.groups)
        assert set(train.labels) == {0, 1}
        assert abs(len(train) / 200 - fraction) < 0.1
        assert before <= kept(few)
        before = kept(few)
    order = np.random.default_rng(1).permutation(280)
    assert kept(keep_fraction(with_groups(make_set(order)), ["train"], 0.6, 1)) == before


def test_groups_are_no_part_of_the_hash_and_follow_their_images() -> None:
    image_set = with_groups(make_set())
    assert image_set.content_hash == make_set().content_hash
    chosen = image_set.select(["val"], ["b"])
    assert chosen.groups is not None
    assert chosen.groups.tolist() == (chosen.images[:, 0, 0, 0] // 5).tolist()
    assert chosen.content_hash != image_set.content_hash


def test_images_of_other_groups() -> None:
    image_set = make_set().take(np.arange(6))
    members = np.array([True, False, False, True, False, False])
    assert image_set.of_other_groups(members).tolist() == (~members).tolist()
    grouped = dataclasses.replace(
        image_set, groups=np.array([0, 0, 1, 2, 1, 2]), group_names=("x", "y", "z")
    )
    assert np.flatnonzero(grouped.of_other_groups(members)).tolist() == [2, 4]


def test_groups_must_fit() -> None:
    for groups in (np.array([0, 1]), np.zeros(280), np.full(280, 1)):
        with pytest.raises(DataError, match=r"groups must be"):
            dataclasses.replace(make_set(), groups=groups, group_names=("a",))
