"""Classifiers are trained alike whatever their arm, and chosen on validation only."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lungan.classifiers import train as training
from lungan.classifiers.augment import augment
from lungan.classifiers.network import build_classifier
from lungan.classifiers.train import Labelled, Recipe, make_recipe, train_classifier
from lungan.errors import ConfigError, DivergedError
from lungan.results.arms import ARMS
from lungan.utility.extras import duplicates, extra_counts, phases

CPU = torch.device("cpu")
RECIPE = Recipe(updates=8, batch_size=8, looks=4)


def squares(count: int, seed: int) -> Labelled:
    """Class 1 is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    base = rng.integers(0, 120, (count, 1, 16, 16))
    return Labelled((base + 100 * labels[:, None, None, None]).astype(np.uint8), labels)


def train(phases: list[Labelled], recipe: Recipe = RECIPE, **changes: object):
    settings = {"num_classes": 2, "positive": 1, "seed": 0, "classical": False}
    settings |= {"device": CPU, "dtype": torch.float32, **changes}
    return train_classifier(phases, squares(20, 9), recipe=recipe, **settings)


def weights(trained: training.Trained) -> bytes:
    return b"".join(value.numpy().tobytes() for value in trained.network.state_dict().values())


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_the_same_number_of_updates_and_images(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []
    real_network = training.build_classifier

    def counting(*arguments: object) -> torch.nn.Module:
        network = real_network(*arguments)  # type: ignore[arg-type]
        classify = network.classify
        network.classify = lambda inputs: (  # type: ignore[method-assign,assignment]
            (shown.append(len(inputs)) if network.training else None),
            classify(inputs),
        )[1]
        return network

    monkeypatch.setattr(training, "build_classifier", counting)
    real, extra, arm = squares(10, 0), squares(60, 1), ARMS[name]
    parts = phases(arm, real, extra if arm.extra else None)
    trained = train(parts, classical=arm.classical)
    assert trained.num_updates == RECIPE.updates
    assert shown == [RECIPE.batch_size] * RECIPE.updates


def test_what_each_arm_is_shown() -> None:
    real, extra = squares(10, 0), squares(6, 1)
    assert [len(part) for part in phases(ARMS["real"], real, None)] == [10]
    assert [len(part) for part in phases(ARMS["real_synthetic"], real, extra)] == [16]
    assert [len(part) for part in phases(ARMS["synthetic"], real, extra)] == [6]
    first, second = phases(ARMS["pretrained"], real, extra)
    assert first is extra and second is real


def test_a_seed_repeats_and_global_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (train([squares(20, 0)], seed=seed) for seed in (0, 0, 1))
    assert weights(one) == weights(same) != weights(other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_look_with_the_best_validation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    aucs = iter([(0.6, -1.0), (0.9, -0.5), (0.9, -0.4), (0.8, -0.1)])
    states: list[bytes] = []

    def look(network: torch.nn.Module, *_: object) -> tuple[float, float]:
        states.append(b"".join(v.numpy().tobytes() for v in network.state_dict().values()))
        return next(aucs)

    monkeypatch.setattr(training, "_look", look)
    trained = train([squares(20, 0)])
    assert (trained.update, trained.validation_auc) == (6, 0.9)
    assert weights(trained) == states[2]


def test_it_learns() -> None:
    trained = train([squares(64, 0)], Recipe(updates=30, batch_size=16, looks=3))
    assert trained.validation_auc > 0.95


def test_non_finite_outputs_end_it() -> None:
    with pytest.raises(DivergedError, match="not finite after update"):
        train([squares(20, 0)], Recipe(updates=8, batch_size=8, looks=4, peak_lr=1e30))


def test_duplicates_are_even_and_class_by_class() -> None:
    real = squares(10, 0)  # five of each class
    counts = extra_counts(real, 1.4, 2)
    assert counts == [7, 7]
    copies = duplicates(real, counts, 0)
    assert np.bincount(copies.labels).tolist() == counts
    times = [sum((image == copy).all() for copy in copies.images) for image in real.images]
    assert set(times) == {1, 2}
    assert extra_counts(squares(4, 0), 0.01, 2) == [1, 1]


@pytest.mark.parametrize("name", ["small", "resnet18"])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (80, 3)])
def test_both_classifiers_take_any_size(name: str, size: int, channels: int) -> None:
    network = build_classifier(name, size, channels, 3, seed=0)
    images = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    _, logits = network.classify(network.preprocess(images))
    assert logits.shape == (2, 3)


def test_seeds_draw_other_weights() -> None:
    networks = [build_classifier("small", 28, 1, 2, seed) for seed in (0, 0, 1)]
    values = [next(network.parameters()).detach() for network in networks]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_augmentation_moves_little_and_keeps_the_range() -> None:
    images = torch.zeros(64, 1, 28, 28) - 0.5
    images[:, :, 10:18, 10:18] = 0.5
    changed = augment(images, torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert -1 <= changed.min() and changed.max() <= 1
    centre = changed[:, 0] - changed[:, 0].amin(dim=(1, 2), keepdim=True)
    place = torch.arange(28.0)
    row = (centre.sum(2) * place).sum(1) / centre.sum(dim=(1, 2))
    assert (row - 13.5).abs().max() < 28 * 0.07 + 0.5
    assert row.std() > 0.3
    pairs = itertools.combinations(changed[:4], 2)
    assert not any(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("big", 10, 8), "--classifier must be one of small, resnet18, got big"),
        (("small", 1, 8), "--updates must be at least 2, got 1"),
        (("small", 10, 1), "--batch-size must be at least 2, got 1"),
        (("small", 10, 8, float("nan")), "--peak-lr must be greater than 0, got nan"),
    ],
)
def test_recipes_that_cannot_be(arguments: tuple[str, int, int, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(*arguments)
