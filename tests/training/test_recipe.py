"""The parts of a recipe inside the step and the loop: gradients, resuming, diagnostics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lungan.training.step as step_module
from lungan import registry
from lungan.config import LossConfig, RunConfig, presets
from lungan.data.images import ImageSet
from lungan.training.events import Checkpoint, EpochEnd, Event, Samples, Snapshot
from lungan.training.loop import Interrupted, diversity, mean_logit, train
from lungan.training.losses import build_loss, zero_centered_penalty
from lungan.training.randomness import latents
from lungan.training.state import TrainingState, build_state
from lungan.training.step import build_step
from lungan.training.training_data import TrainingData, gather

CPU = torch.device("cpu")
ConfigMaker = Callable[..., RunConfig]


@pytest.fixture
def images() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8, generator=rng)


def with_loss(config: RunConfig, name: str, **values: Any) -> RunConfig:
    loss = dataclasses.replace(config.loss, name=name, **values)
    return dataclasses.replace(config, loss=loss)


def recorded(
    config: RunConfig, state: TrainingState, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[Tensor]]:
    """The gradients of one step that takes note of them instead of updating."""
    noted: dict[str, list[Tensor]] = {}

    def note(network: nn.Module, _: object) -> Tensor:
        name = "generator" if network is state.generator else "discriminator"
        noted[name] = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        network.zero_grad()
        return torch.zeros(())

    monkeypatch.setattr(step_module, "update", note)
    build_step(config, state, "fp32")(images)
    return noted


def relative_error(ours: list[Tensor], wanted: list[Tensor]) -> float:
    both = [torch.cat([t.flatten() for t in tensors]).double() for tensors in (ours, wanted)]
    return float((both[0] - both[1]).norm() / both[1].norm())


@pytest.mark.parametrize("name", registry.known("loss"))
def test_simultaneous_gradients_of_every_loss_are_autograds(
    name: str, images: Tensor, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_loss(make_config(width=8, dropout=0.0), name, r1=0.5, r2=0.3, lecam=0.2)
    state = build_state(config, 28, 1, CPU)
    with torch.no_grad():
        for parameter in state.discriminator.parameters():
            parameter *= 3  # logits on both sides of the hinge
    fake = state.generator(latents(0, 0, 12, 100, CPU))
    real = images.float() / 127.5 - 1
    real_logits, fake_logits = state.discriminator(torch.cat([real, fake])).chunk(2)
    loss = build_loss(LossConfig(name=name))
    wanted_generator = torch.autograd.grad(
        loss.of_generator(real_logits, fake_logits),
        list(state.generator.parameters()),
        retain_graph=True,
    )
    means = real_logits.mean().detach(), fake_logits.mean().detach()
    lecam = (real_logits - means[1]).square().mean() + (fake_logits - means[0]).square().mean()
    total = loss.discriminator(real_logits, fake_logits) + 0.2 * lecam
    total = total + 0.5 * zero_centered_penalty(state.discriminator, real)
    total = total + 0.3 * zero_centered_penalty(state.discriminator, fake)
    wanted_discriminator = torch.autograd.grad(total, list(state.discriminator.parameters()))

    found = recorded(config, state, images, monkeypatch)
    assert relative_error(found["generator"], list(wanted_generator)) < 1e-4
    assert relative_error(found["discriminator"], list(wanted_discriminator)) < 1e-4


@pytest.mark.parametrize("name", ["hinge", "lsgan", "wgan_gp"])
def test_micro_batches_sum_to_the_batch(
    name: str, images: Tensor, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(width=8, dropout=0.0, update="alternating")
    gradients = []
    for count in (1, 5):  # of 12 images: 3, 3, 3, 3
        parts = with_loss(config, name, micro_batches=count, r1=0.5)
        state = build_state(parts, 28, 1, CPU)
        state.generator.eval()  # no batch statistics: an image is the same in any part
        gradients.append(recorded(parts, state, images, monkeypatch))
    for network in ("generator", "discriminator"):
        assert relative_error(gradients[1][network], gradients[0][network]) < 1e-5


def everything(make_config: ConfigMaker, family: str) -> RunConfig:
    config = make_config(update="alternating", discriminator_updates=2, latent_dim=8)
    generator, discriminator = (
        presets.load(group, family) for group in ("generator", "discriminator")
    )
    generator.width = discriminator.width = 8
    generator.max_width = discriminator.max_width = 16
    generator.latent_dim, generator.conditional, generator.ema_half_life_images = 8, True, 50.0
    discriminator.spectral_norm = True
    augment = presets.load("augment", "adaptive")
    augment.adjust_images, augment.target = 100.0, 0.0
    loss = dataclasses.replace(
        config.loss, name="relativistic", micro_batches=2, r1=0.1, r2=0.1, gradient_penalty=1.0,
        penalty_every_steps=2, lecam=0.1,
    )  # fmt: skip
    score = dataclasses.replace(config.score, every_epochs=1)
    return dataclasses.replace(
        config, generator=generator, discriminator=discriminator, augment=augment, loss=loss,
        score=score, epochs=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def image_set() -> ImageSet:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    return ImageSet(
        images=rng.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8) // 2
        + (labels * 50).astype(np.uint8)[:, None, None, None],
        labels=labels,
        splits=np.repeat([0, 1], [48, 12]),
        class_names=("absent", "a", "b"),
        split_names=("train", "val"),
        source="random",
    )


def training_data_of(config: RunConfig, image_set: ImageSet) -> TrainingData:
    config.data.splits, config.data.classes = ["train"], ["a", "b"]
    return gather(config, image_set, image_set.select(["train"], ["a", "b"]), CPU)


@pytest.mark.parametrize(("family", "precision"), [("dcgan", "bf16"), ("resnet", "fp32")])
def test_interrupted_and_continued_is_uninterrupted(
    family: str, precision: str, image_set: ImageSet, make_config: ConfigMaker, tmp_path: Path
) -> None:
    config = everything(make_config, family)
    data = training_data_of(config, image_set)

    def run(state: TrainingState, stop: Callable[[], bool] = lambda: False) -> list[Event]:
        events: list[Event] = []

        def emit(event: Event) -> None:
            events.append(event)
            if isinstance(event, Checkpoint):
                torch.save(event.state, tmp_path / "checkpoint.pt")

        train(config, state, build_step(config, state, precision), data, emit=emit, stop=stop)
        return events

    whole = build_state(config, 28, 1, CPU, data.classes)
    events = run(whole)
    parts = build_state(config, 28, 1, CPU, data.classes)
    with pytest.raises(Interrupted):
        run(parts, stop=lambda: parts.step == 3)  # in the middle of the second epoch
    continued = build_state(config, 28, 1, CPU, data.classes)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    continued.load_state_dict(saved)
    run(continued)

    assert_equal(whole.state_dict(), continued.state_dict())
    last = [event for event in events if isinstance(event, EpochEnd)][-1]
    assert {"logit_held_out", "ema_drift", "sample_diversity", "augment_probability"} < set(
        last.metrics
    )
    assert last.metrics["penalty"] > 0
    assert 0 < last.metrics["augment_probability"] <= 1
    snapshot = next(event for event in events if isinstance(event, Snapshot))
    assert snapshot.generator is whole.inference_generator is not whole.generator
    samples = next(event for event in events if isinstance(event, Samples))
    assert samples.images.shape == (32, 1, 28, 28)


def assert_equal(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first.keys() - {"epoch_seconds"}:
            assert_equal(first[key], second[key])
    elif isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            assert_equal(one, other)
    else:
        assert first == second


def test_the_average_follows_the_steps(image_set: ImageSet, make_config: ConfigMaker) -> None:
    config = make_config(width=8, update="alternating")
    config.generator.ema_half_life_images = 1e-9  # forgets at once
    data = training_data_of(config, image_set)
    state = build_state(config, 28, 1, CPU)
    train(config, state, build_step(config, state, "fp32"), data, emit=lambda _: None)
    assert state.average is not None
    assert_equal(state.average.state_dict(), state.generator.state_dict())
    assert not state.average.training
    assert not any(weight.requires_grad for weight in state.average.parameters())


def test_training_data_counts_the_classes_there_are(
    image_set: ImageSet, make_config: ConfigMaker
) -> None:
    config = everything(make_config, "dcgan")
    data = training_data_of(config, image_set)
    assert data.classes is not None
    assert data.classes.names == ("a", "b")
    assert data.classes.shares == (0.5, 0.5)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1] * 16
    assert data.held_out is not None
    assert data.held_out_labels is not None
    assert len(data.held_out) == len(data.held_out_labels) == 8
    brightness = data.held_out.float().mean((1, 2, 3))
    assert (brightness[data.held_out_labels == 1] > 140).all()
    assert (brightness[data.held_out_labels == 0] < 140).all()
    config.generator.conditional = False
    config.data.splits = []
    plain = gather(config, image_set, image_set, CPU)
    assert (plain.labels, plain.held_out, plain.classes) == (None, None, None)


def test_held_out_images_are_at_most_256(make_config: ConfigMaker) -> None:
    config = make_config()
    config.data.splits, config.data.classes = ["train"], []
    many = ImageSet(
        images=np.zeros((1000, 1, 8, 8), dtype=np.uint8),
        labels=np.zeros(1000, dtype=np.int64),
        splits=np.repeat([0, 2, 1], [10, 890, 100]),
        class_names=("only",),
        split_names=("train", "val", "test"),
        source="zeros",
    )
    data = gather(config, many, many.select(["train"], []), CPU)
    assert data.held_out is not None
    assert len(data.held_out) == 100  # of val, though test has more
    config.data.splits = ["train", "val"]
    data = gather(config, many, many.select(["train", "val"], []), CPU)
    assert data.held_out is not None
    assert len(data.held_out) == 256


def test_diversity_by_hand() -> None:
    black, white = torch.full((1, 1, 2, 2), -1.0), torch.ones(1, 1, 2, 2)
    assert float(diversity(torch.cat([black, white]))) == pytest.approx(2)
    # One pair of three is alike.
    assert float(diversity(torch.cat([black, white, white]))) == pytest.approx(4 / 3)


def test_held_out_logits_leave_the_discriminator_alone(make_config: ConfigMaker) -> None:
    config = make_config(width=8)
    config.discriminator.spectral_norm = True
    state = build_state(config, 28, 1, CPU)
    before = {name: value.clone() for name, value in state.discriminator.state_dict().items()}
    with torch.no_grad():
        mean_logit(state.discriminator, torch.zeros(3, 1, 28, 28), None)
    assert_equal(before, state.discriminator.state_dict())
    assert state.discriminator.training
