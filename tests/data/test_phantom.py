"""The phantom as a data set: splits, shares, seeds, cache, and how it compares with real films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lungan.config.data import PhantomConfig
from lungan.data import phantom
from lungan.data.build import load
from lungan.data.images import ImageSet
from lungan.data.phantom import load_phantom, phantom_factors
from lungan.data.phantom_drawing import draw_images


def phantom_config(**changes: object) -> PhantomConfig:
    settings: dict[str, object] = {
        "name": "phantom",
        "size": 28,
        "channels": 1,
        "splits": ["train", "val"],
        "classes": ["pneumonia"],
        "num_images": 5232,
        "num_test": 624,
        "seed": 0,
    }
    return PhantomConfig(**(settings | changes))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """The default data set, drawn once for all the tests that only look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load(phantom_config())


def count(images: ImageSet, split: str, name: str) -> int:
    return len(images.select([split], [name]))


def test_default_has_the_real_sets_counts(whole: ImageSet) -> None:
    assert whole.images.shape == (5856, 1, 28, 28)
    assert whole.class_names == ("normal", "pneumonia")
    assert whole.split_names == ("train", "val", "test")
    counts = {
        (split, name): count(whole, split, name)
        for split in whole.split_names
        for name in whole.class_names
    }
    assert counts == {
        ("train", "normal"): 1214,
        ("train", "pneumonia"): 3494,
        ("val", "normal"): 135,
        ("val", "pneumonia"): 389,
        ("test", "normal"): 234,
        ("test", "pneumonia"): 390,
    }


@pytest.mark.parametrize(("num_images", "num_test"), [(20, 4), (33, 5), (523, 62)])
def test_every_split_has_both_classes_at_any_number(num_images: int, num_test: int) -> None:
    images = load_phantom(phantom_config(num_images=num_images, num_test=num_test))
    assert len(images) == num_images + num_test
    assert np.sum(images.splits == 2) == num_test
    for split in images.split_names:
        for name in images.class_names:
            assert count(images, split, name) >= 1


def test_classes_are_mixed_within_a_split(whole: ImageSet) -> None:
    labels = whole.labels[whole.splits == 0]
    assert abs(labels[:1000].mean() - labels.mean()) < 0.05


def test_seed_decides() -> None:
    def content(seed: int) -> str:
        return load_phantom(phantom_config(num_images=40, num_test=8, seed=seed)).content_hash

    assert content(0) == content(0)
    assert len({content(seed) for seed in range(4)}) == 4


def test_factors_are_those_of_the_images() -> None:
    config = phantom_config(num_images=40, num_test=8, seed=3, size=32)
    images = load_phantom(config)
    factors, splits = phantom_factors(config)
    np.testing.assert_array_equal(images.labels, factors["label"])
    np.testing.assert_array_equal(images.splits, splits)
    np.testing.assert_array_equal(images.images, draw_images(factors, 32))


def test_second_load_reads_the_cache(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    config = phantom_config(num_images=40, num_test=8)
    first = load_phantom(config)
    assert len(list(own_cache.rglob("phantom-28-*.npz"))) == 1

    def refuse(*_: object) -> None:
        raise AssertionError("drawn a second time")

    monkeypatch.setattr(phantom, "draw_images", refuse)
    assert load_phantom(config).content_hash == first.content_hash
    # What a run selects is no part of what is drawn.
    selecting = phantom_config(num_images=40, num_test=8, splits=["train"], classes=["normal"])
    assert load_phantom(selecting).content_hash == first.content_hash


@pytest.mark.parametrize(
    "change", [{"size": 32}, {"num_images": 41}, {"num_test": 9}, {"seed": 1}, "version"]
)
def test_cache_is_not_read_for_another_content(
    change: dict[str, int] | str, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    load_phantom(phantom_config(num_images=40, num_test=8))
    settings = {"num_images": 40, "num_test": 8}
    if isinstance(change, dict):
        settings |= change
    else:
        monkeypatch.setattr(phantom, "DRAWING_VERSION", 0)
    load_phantom(phantom_config(**settings))
    assert len(list(own_cache.rglob("phantom-*.npz"))) == 2


def test_classes_separate_well_but_not_perfectly(whole: ImageSet) -> None:
    def arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
        images = whole.select([split], [])
        return images.images.reshape(len(images), -1) / 127.5 - 1, images.labels

    pixels, labels = arrays("train")
    model = LogisticRegression(C=0.01, max_iter=200).fit(pixels[:1500], labels[:1500])
    pixels, labels = arrays("test")
    assert 0.85 < roc_auc_score(labels, model.decision_function(pixels)) < 0.99


def test_no_image_is_met_twice(whole: ImageSet) -> None:
    assert len(np.unique(whole.images.reshape(len(whole), -1), axis=0)) == len(whole)


@pytest.mark.parametrize("label", [0, 1])
def test_varies_as_the_real_films_do(whole: ImageSet, real_data_path: Path, label: int) -> None:
    with np.load(real_data_path) as arrays:
        members = arrays["train_labels"][:, 0] == label
        real = arrays["train_images"][members][:1000].astype(np.float32)
    drawn = whole.images[whole.labels == label, 0][:1000].astype(np.float32)

    average, real_average = drawn.mean(axis=0), real.mean(axis=0)
    assert np.corrcoef(average.ravel(), real_average.ravel())[0, 1] > 0.9
    assert np.abs(average - real_average).mean() < 12
    assert np.abs(drawn.std(axis=0) - real.std(axis=0)).mean() < 8
    for statistic in (np.mean, np.std):
        ours, theirs = (
            np.percentile(statistic(images, axis=(1, 2)), [10, 50, 90]) for images in (drawn, real)
        )
        np.testing.assert_allclose(ours, theirs, atol=8)
    # The share of variance in the first components: neither one template nor noise.
    np.testing.assert_allclose(explained_shares(drawn), explained_shares(real), atol=0.12)


def explained_shares(images: np.ndarray) -> np.ndarray:
    pixels = images[:500].reshape(500, -1)
    centred = pixels - pixels.mean(axis=0)
    spectrum = np.linalg.eigvalsh(centred @ centred.T)[::-1]
    return (np.cumsum(spectrum) / spectrum.sum())[[0, 4, 19, 99]]
