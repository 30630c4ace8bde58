"""What a choice of each group must hold, tested on small inputs: ``lungan.registry.check``.

A check that fails raises AssertionError with one sentence that says what does not hold.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lungan import registry
from lungan.config import GROUPS, RunConfig, compose
from lungan.data import build as data
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, shown
from lungan.models.build import Classes, build_discriminator, build_generator
from lungan.scores import encoders
from lungan.tracking.records import Epoch, TrackedRun
from lungan.training.augment import augmented
from lungan.training.losses import build_loss
from lungan.training.optimizers import build_optimizer
from lungan.training.randomness import DropoutBits, latents, uniforms
from lungan.training.schedules import learning_rate_factor

CPU = torch.device("cpu")
SIZES = (28, 32, 64)
CLASSES = Classes(("a", "b"), (0.5, 0.5))


def check(name: str, settings: dict[str, Any]) -> None:
    """See ``lungan.registry.check``."""
    if not isinstance(name, str):
        raise ConfigError(f"name must be text, such as optimizer=lion, got {shown(name)}")
    group, sign, choice = name.partition("=")
    groups = [group] if sign else [each for each in registry.PARTS if name in registry.names(each)]
    if not groups:
        raise ConfigError(f"{name} is no choice of any group; load its file or package first")
    for group in groups:
        choice = choice or name
        registry.find(group, choice)
        if group in GROUPS and group != "score":
            given = [f"{group}.{key}={value}" for key, value in settings.items()]
            with compose.composer():
                run = compose.compose([f"{group}={choice}", *given])
            _CHECKS[group](run)
        else:
            _CHECKS[group](choice)


def _check_generator(run: RunConfig) -> None:
    def build(*given: Any) -> nn.Module:
        conditional = given[-1] is not None
        return build_generator(dataclasses.replace(run.generator, conditional=conditional), *given)

    latent = latents(0, 0, 5, run.generator.latent_dim, CPU)
    for network, _, other, shape, labels in _networks(build):
        _is(not _same_weights(network, other), "weights are drawn from rng")
        images = network(latent, labels)
        _is(images.shape == shape, "images are (N, C, size, size)")
        _is(bool((images.abs() <= 1).all()), "images lie in [-1, 1]")
        _has_gradients(images, network)
        _is_loaded(network, other, latent, labels)


def _check_discriminator(run: RunConfig) -> None:
    def build(*given: Any) -> nn.Module:
        return build_discriminator(run.discriminator, *given)

    for network, twin, other, shape, labels in _networks(build):
        images = (uniforms(0, "check", (0,), shape, CPU) * 2 - 1).requires_grad_()
        logits = network(images, None, labels)
        _is(logits.shape == (5,), "logits are (N,)")
        _has_gradients(logits, network)
        sum_of_logits = network(images, None, labels).sum()
        (gradient,) = torch.autograd.grad(sum_of_logits, images, create_graph=True)
        _is(bool(gradient.abs().sum() > 0), "gradients reach the images")
        torch.autograd.backward(gradient.square().sum())  # as gradient penalties do
        first, second = (
            each(images, DropoutBits(0, 0, 0, CPU), labels) for each in (network, twin)
        )
        _is(torch.equal(first, second), "the same random bits, the same logits")
        _is_loaded(network, other, images, None, labels)


def _networks(
    build: Callable[..., nn.Module],
) -> Iterator[tuple[nn.Module, nn.Module, nn.Module, tuple[int, ...], Tensor | None]]:
    """Each network that ``build(size, channels, rng, classes)`` makes, one of the same seed and one
    of another, with the shape of five images and their labels."""
    built = 0
    for classes, size, channels in itertools.product((None, CLASSES), SIZES, (1, 3)):
        try:
            network, twin, other = (
                build(size, channels, torch.Generator().manual_seed(seed), classes)
                for seed in (0, 0, 1)
            )
        except ConfigError:
            continue  # it says itself what it cannot make
        built += classes is None
        _is(_same_weights(network, twin), "one seed, one network")
        labels = None if classes is None else torch.tensor([0, 1, 0, 1, 0])
        yield network, twin, other, (5, channels, size, size), labels
    _is(built > 0, f"it takes images of one of {SIZES} pixels")


def _check_loss(run: RunConfig) -> None:
    loss = build_loss(run.loss)
    logits = uniforms(0, "check", (0,), (2, 8), CPU) * 4 - 2
    real, fake = (row.clone().requires_grad_() for row in logits)
    for of in (loss.discriminator(real, fake), loss.of_generator(real, fake)):
        _is(of.shape == () and of.dtype == torch.float32, "a loss is one float32 number")
        (gradient,) = torch.autograd.grad(of, fake)
        _is(bool(gradient.isfinite().all()), "gradients at fake logits are finite")
        _is(bool(gradient.abs().sum() > 0), "gradients at fake logits are not all zero")


def _check_optimizer(run: RunConfig) -> None:
    def begin() -> tuple[nn.Parameter, Any]:
        weight = nn.Parameter(uniforms(0, "check", (0,), (8, 4), CPU))
        return weight, build_optimizer(run.optimizer, [weight], 0.01)

    def work(weight: nn.Parameter, optimizer: Any, first: int) -> None:
        for step in range(first, first + 3):
            weight.grad = uniforms(0, "gradient", (step,), (8, 4), CPU) - 0.5
            optimizer.step()

    weight, optimizer = begin()
    before = weight.detach().clone()
    _is(all(group["lr"] == 0.01 for group in optimizer.param_groups), "param_groups hold lr")
    work(weight, optimizer, 0)
    _is(bool((weight != before).any()), "a step changes the weights")
    _is(bool(weight.isfinite().all()), "weights stay finite")
    stream = io.BytesIO()
    torch.save([optimizer.state_dict(), weight.detach()], stream)
    stream.seek(0)
    saved, value = torch.load(stream, weights_only=True)
    other, fresh = begin()
    with torch.no_grad():
        other.copy_(value)
    fresh.load_state_dict(saved)
    work(weight, optimizer, 3)
    work(other, fresh, 3)
    _is(torch.equal(weight, other), "a saved and loaded state goes on with the same bits")
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    held = weight.detach().clone()
    work(weight, optimizer, 6)
    is_held = torch.equal(weight.detach(), held)
    _is(is_held, "a learning rate of 0, as schedules set it, holds still")


def _check_schedule(run: RunConfig) -> None:
    config = run.schedule
    factors = [learning_rate_factor(config, done / 4, 10) for done in range(40)]
    _is(all(math.isfinite(each) and each >= 0 for each in factors), "factors are finite, 0 or more")
    longer = [learning_rate_factor(config, done / 4, 20) for done in range(40)]
    told = "sees_horizon is True where the factor depends on how many epochs there are"
    _is(config.sees_horizon or factors == longer, told)


def _check_augment(run: RunConfig) -> None:
    images = (uniforms(0, "check", (0,), (6, 3, 28, 28), CPU) * 2 - 1).requires_grad_()

    def draw(seed: int, probability: float) -> Tensor:
        def random(*shape: int) -> Tensor:
            return uniforms(seed, "augment", (0,), shape, CPU)

        return augmented(run.augment, images, torch.tensor(probability), random)

    first = draw(0, 1.0)
    _is(first.shape == images.shape, "images keep their shape")
    _is(torch.equal(first, draw(0, 1.0)), "the same draws, the same images")
    unchanged = torch.allclose(draw(0, 0.0), images, atol=1e-6)
    _is(unchanged, "nothing changes with probability 0")
    (gradient,) = torch.autograd.grad(first.square().sum(), images)
    _is(bool(gradient.isfinite().all() and gradient.abs().sum() > 0), "gradients pass through")


def _check_data(run: RunConfig) -> None:
    first, again = (data.load(run.data, progress=False) for _ in range(2))
    _is(isinstance(first, ImageSet), "a reader gives an ImageSet")
    _is(first.content_hash == again.content_hash, "the same settings, the same images")
    _is(len(set(first.class_names)) == len(first.class_names), "no two classes have one name")
    _is(first.size == run.data.size, "images have data.size pixels")
    _is(first.channels == run.data.channels, "images have data.channels channels")
    first.select(run.data.splits, run.data.classes)


def _check_tracker(run: RunConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.asdict(run)
        tracked = TrackedRun(folder=Path(folder), run_id="0" * 64, name="seed=1", config=config)
        # A run that is stopped, and goes on to its end.
        for summary in (None, {"status": "done", "epochs_done": 1, "scores": None}):
            tracker = registry.builder("tracker", run.tracker.name)(run.tracker, tracked)
            tracker.open()
            metrics = {"epoch": 1, "loss_generator": 0.5, "loss_discriminator": 1.0}
            tracker.add(Epoch(epoch=1, metrics=metrics, scores={"domain.recall": 0.5}))
            tracker.close(summary)


def _check_encoder(name: str) -> None:
    with compose.composer():
        run = compose.compose(["data.num_images=40", "data.num_test=8", f"score.encoders=[{name}]"])
    image_set = data.load(run.data, progress=False)
    encoder = encoders.build(name, run.score, image_set, CPU)
    images = image_set.images[:10]
    first, again, split = (encoder.encode(images, batch).features for batch in (10, 10, 3))
    _is(first.shape == (10, encoder.feature_dim), "features are (N, feature_dim)")
    _is(bool(np.isfinite(first).all()), "features are finite")
    _is(bool((first == again).all()), "the same images, the same features")
    _is(np.allclose(first, split, rtol=1e-4, atol=1e-5), "batches do not see each other")
    _is(len(encoder.weights_hash) == 64, "weights_hash is a SHA-256 in hex")


def _check_score(name: str) -> None:
    score = registry.builder("score", name)
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(2, 40, 8))
    first, again = (score(real, generated) for _ in range(2))
    _is(math.isfinite(first), "a score of two sets of features is a finite number")
    _is(first == again, "the same features, the same score")


def _is_loaded(network: nn.Module, other: nn.Module, *given: Any) -> None:
    other.load_state_dict(network.state_dict())
    network.eval(), other.eval()
    is_same = torch.equal(network(*given), other(*given))
    _is(is_same, "weights that were saved and loaded give the same bits")


def _has_gradients(result: Tensor, network: nn.Module) -> None:
    weights = uniforms(0, "weights", (0,), tuple(result.shape), CPU) - 0.5
    torch.autograd.backward((result * weights).sum())
    for key, parameter in network.named_parameters():
        gradient = parameter.grad
        _is(gradient is not None and bool(gradient.isfinite().all()), f"{key} has a gradient")
    network.zero_grad(set_to_none=True)


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first if "num_batches" not in key
    )


def _is(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"this does not hold: {rule}")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "generator": _check_generator,
    "discriminator": _check_discriminator,
    "loss": _check_loss,
    "optimizer": _check_optimizer,
    "schedule": _check_schedule,
    "augment": _check_augment,
    "data": _check_data,
    "tracker": _check_tracker,
    "encoder": _check_encoder,
    "score": _check_score,
}
