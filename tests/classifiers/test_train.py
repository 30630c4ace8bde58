"""What every arm's batches hold, how often real images are shown, and how classifiers train."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.optim import swa_utils

from lungan.classifiers import train as training
from lungan.classifiers.augment import augment
from lungan.classifiers.network import build_classifier
from lungan.classifiers.train import (
    Changes,
    Labelled,
    Phase,
    Portion,
    Recipe,
    make_recipe,
    outputs_of,
    probabilities_of,
    train_classifier,
)
from lungan.errors import ConfigError, DivergedError
from lungan.utility.arms import ARMS
from lungan.utility.batches import plan_phases, shown

CPU = torch.device("cpu")
RECIPE = Recipe(updates=8, batch_size=8)
CLASSES = ("dark", "bright")


def squares(count: int, seed: int) -> Labelled:
    """Class 1 is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    base = rng.integers(0, 120, (count, 1, 16, 16))
    return Labelled((base + 100 * labels[:, None, None, None]).astype(np.uint8), labels)


def train(
    phases: list[Phase], recipe: Recipe = RECIPE, seed: int = 0, **changes: object
) -> torch.nn.Module:
    return train_classifier(
        phases,
        num_classes=2,
        recipe=recipe,
        seed=seed,
        changes=Changes(**changes),  # type: ignore[arg-type]
        device=CPU,
        dtype=torch.float32,
    )


def alone(images: Labelled, recipe: Recipe = RECIPE) -> list[Phase]:
    return [Phase((Portion(images, recipe.batch_size),), recipe.updates)]


def weights(network: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in network.state_dict().values())


def batches_of(arm: str, ratio: float = 1.0, num_real: int = 30) -> list[Phase]:
    """Of 40 updates of 8 images, with a third of the real images in class 1."""
    real = squares(num_real, 0)
    real = Labelled(real.images, (np.arange(num_real) % 3 == 0).astype(np.int64))
    synthetic = squares(60, 1) if ARMS[arm].synthetic else None
    return plan_phases(ARMS[arm], real, synthetic, ratio, 40, 8)


def counts(phase: Phase) -> list[tuple[int, bool]]:
    return [(part.count, part.is_real) for part in phase.portions]


@pytest.mark.parametrize(
    ("arm", "ratio", "expected"),
    [
        ("real", 1.0, [(40, [(8, True)])]),
        ("real_mixup", 1.0, [(40, [(8, True)])]),
        ("real_shorter", 1.0, [(20, [(8, True)])]),
        ("real_shorter", 3.0, [(10, [(8, True)])]),
        ("real_synthetic", 1.0, [(40, [(4, True), (4, False)])]),
        ("real_synthetic", 3.0, [(40, [(2, True), (6, False)])]),
        ("real_synthetic", 0.01, [(40, [(7, True), (1, False)])]),
        ("real_synthetic_longer", 1.0, [(80, [(4, True), (4, False)])]),
        ("synthetic_on_top", 0.5, [(40, [(8, True), (4, False)])]),
        ("synthetic", 1.0, [(40, [(8, False)])]),
        ("pretrained", 1.0, [(20, [(8, False)]), (20, [(8, True)])]),
        ("oversampled", 1.0, [(40, [(4, True), (4, True)])]),
        (
            "oversampled_synthetic",
            1.0,
            [(40, [(2, True), (2, False), (2, True), (2, False)])],
        ),
    ],
)
def test_what_the_batches_of_an_arm_hold(
    arm: str, ratio: float, expected: list[tuple[int, list[tuple[int, bool]]]]
) -> None:
    assert [(phase.updates, counts(phase)) for phase in batches_of(arm, ratio)] == expected


def test_how_often_real_images_are_shown_is_what_training_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[np.ndarray] = []
    real_network = training.build_classifier

    def watching(*arguments: object) -> torch.nn.Module:
        network = real_network(*arguments)  # type: ignore[arg-type]
        preprocess = network.preprocess
        network.preprocess = lambda images: (  # type: ignore[method-assign]
            seen.extend(images.numpy()),
            preprocess(images),
        )[1]
        return network

    monkeypatch.setattr(training, "build_classifier", watching)
    for arm in ("real", "real_synthetic", "real_shorter", "oversampled", "pretrained"):
        seen.clear()
        phases = batches_of(arm)
        real = squares(30, 0)
        labels = (np.arange(30) % 3 == 0).astype(np.int64)
        train(phases)
        times = [sum((one == image).all() for one in seen) for image in real.images]
        expected = shown(phases, Labelled(real.images, labels), CLASSES)
        assert np.mean(times) == pytest.approx(expected["all"])
        for label, name in enumerate(CLASSES):
            assert np.mean(np.array(times)[labels == label]) == pytest.approx(
                expected[name], abs=0.5
            )


def test_arms_of_equal_exposure_show_real_images_equally_often() -> None:
    real = squares(30, 0)
    often = {arm: shown(batches_of(arm, 3.0), real, CLASSES)["all"] for arm in ARMS}
    assert often["real_shorter"] == often["real_synthetic"] == often["real"] / 4
    assert often["real_synthetic_longer"] == often["synthetic_on_top"] == often["real"]
    assert often["synthetic"] == 0


def test_synthetic_images_of_a_rare_class_fill_up_that_class_alone() -> None:
    real = squares(30, 0)
    rare = squares(60, 1)
    rare = Labelled(rare.images[rare.labels == 1], rare.labels[rare.labels == 1])
    (phase,) = plan_phases(ARMS["oversampled_synthetic"], real, rare, 1.0, 40, 8)
    found = [(part.count, part.is_real, set(part.images.labels)) for part in phase.portions]
    assert found == [(4, True, {0}), (2, True, {1}), (2, False, {1})]


def test_a_seed_repeats_and_global_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for changes in ({}, {"classical": True, "mixup": True}):
        runs = [train(alone(squares(20, 0)), seed=seed, **changes) for seed in (0, 0, 1)]
        one, same, other = map(weights, runs)
        assert one == same != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_weights_are_the_average_of_the_last_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[dict[str, torch.Tensor]] = []
    real_descend = training.descend

    def watching(network: torch.nn.Module, *rest: object) -> object:
        for update in real_descend(network, *rest):  # type: ignore[arg-type]
            states.append({name: value.clone() for name, value in network.state_dict().items()})
            yield update

    monkeypatch.setattr(training, "descend", watching)
    trained = train(alone(squares(20, 0)), Recipe(updates=8, batch_size=8, averaged=0.5))
    for name, value in trained.state_dict().items():
        expected = torch.stack([state[name].double() for state in states[4:]]).mean(dim=0)
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-6)


def test_weights_are_averaged_alike_where_torch_has_kernels_for_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where torch's average of a group of integers fails."""
    images = squares(20, 0)
    alone_on_a_cpu = train(alone(images))
    monkeypatch.setattr(swa_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    assert weights(train(alone(images))) == weights(alone_on_a_cpu)


@pytest.mark.parametrize("changes", [{}, {"mixup": True}, {"class_weights": (1.0, 1.0)}])
def test_it_learns(changes: dict[str, object]) -> None:
    recipe = Recipe(updates=40, batch_size=16)
    trained = train(alone(squares(64, 0), recipe), recipe, **changes)
    fresh = squares(40, 9)
    found = probabilities_of(trained, fresh.images, CPU).argmax(axis=1)  # type: ignore[arg-type]
    assert (found == fresh.labels).mean() > 0.9


def test_soft_labels_are_learned_in_place_of_labels() -> None:
    """Beside a portion with labels alone."""
    recipe = Recipe(updates=40, batch_size=16)
    hard, taught = squares(32, 0), squares(32, 1)
    soft = np.eye(2, dtype=np.float32)[taught.labels]
    taught = Labelled(taught.images, 1 - taught.labels, soft=soft)
    network = train([Phase((Portion(hard, 2), Portion(taught, 14, is_real=False)), 40)], recipe)
    fresh = squares(40, 9)
    found = probabilities_of(network, fresh.images, CPU).argmax(axis=1)  # type: ignore[arg-type]
    assert (found == fresh.labels).mean() > 0.9


def test_class_weights_weigh_the_loss() -> None:
    plain = train(alone(squares(20, 0)))
    even, skewed = (
        train(alone(squares(20, 0)), class_weights=pair) for pair in ((1.0, 1.0), (9.0, 1.0))
    )
    assert weights(plain) == weights(even) != weights(skewed)
    images = squares(20, 9).images
    dark = [probabilities_of(one, images, CPU)[:, 0].mean() for one in (even, skewed)]  # type: ignore[arg-type]
    assert dark[1] > dark[0]


def test_non_finite_weights_end_it() -> None:
    with pytest.raises(DivergedError, match="not finite after 8 updates"):
        train(alone(squares(20, 0)), Recipe(updates=8, batch_size=8, peak_lr=1e30))


@pytest.mark.parametrize("name", ["small", "resnet18"])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (80, 3)])
def test_both_classifiers_take_any_size(name: str, size: int, channels: int) -> None:
    network = build_classifier(name, size, channels, 3, seed=0)
    images = torch.zeros(2, channels, size, size, dtype=torch.uint8)
    _, logits = network.classify(network.preprocess(images))
    assert logits.shape == (2, 3)
    found = outputs_of(network, images.numpy(), CPU)[0]
    assert found.shape == (2, {"small": 128, "resnet18": 512}[name])
    head = network.classifier if name == "small" else network.inner.fc
    expected = head(torch.from_numpy(found).float()).softmax(dim=1).detach().numpy()
    assert probabilities_of(network, images.numpy(), CPU) == pytest.approx(expected, rel=1e-5)


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
