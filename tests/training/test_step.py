"""The two forms of the training step against plain autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lungan.training.step as step_module
from lungan.config import RunConfig
from lungan.training.losses import build_loss
from lungan.training.randomness import DropoutBits, latents
from lungan.training.state import StepOutcome, TrainingState, build_state
from lungan.training.step import build_step, split_upstream

CPU = torch.device("cpu")
ConfigMaker = Callable[..., RunConfig]


@pytest.fixture
def images() -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 1, 28, 28), dtype=torch.uint8, generator=rng)


def plain_losses(
    config: RunConfig, state: TrainingState, images: Tensor, update: int, precision: str = "fp32"
) -> Any:
    """Losses of one generator forward and one discriminator forward, all in one graph."""
    seed, step = config.seed, state.step
    drawn = latents(seed, step, len(images), config.generator.latent_dim, CPU, update)
    bits = DropoutBits(seed, step, update, CPU)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        fake = state.generator(drawn)
        real = (images.float() / 127.5 - 1).to(fake.dtype)
        logits = state.discriminator(torch.cat([real, fake]), bits).float()
    loss = build_loss(config.loss)
    real_logits, fake_logits = logits.chunk(2)
    return loss.generator(fake_logits), loss.discriminator(real_logits, fake_logits), logits


def recorded_gradients(
    config: RunConfig,
    state: TrainingState,
    precision: str,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[StepOutcome, list[Tensor], list[Tensor]]:
    """One step that takes note of gradients instead of updating."""
    noted: dict[nn.Module, list[Tensor]] = {}

    def note(network: nn.Module, _: object) -> Tensor:
        noted[network] = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        return torch.zeros(())

    monkeypatch.setattr(step_module, "update", note)
    outcome = build_step(config, state, precision)(images)
    return outcome, noted[state.generator], noted[state.discriminator]


def relative_error(ours: list[Tensor], wanted: tuple[Tensor, ...]) -> float:
    def flat(tensors: Any) -> Tensor:
        return torch.cat([tensor.double().flatten() for tensor in tensors])

    assert len(ours) == len(wanted)
    return float((flat(ours) - flat(wanted)).norm() / flat(wanted).norm())


@pytest.mark.parametrize("shift", [-60.0, -20.0, 0.0, 20.0, 60.0])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_one_backward_gives_both_gradients(
    shift: float,
    precision: str,
    tolerance: float,
    images: Tensor,
    make_config: ConfigMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(width=16)
    state = build_state(config, 28, 1, CPU)
    with torch.no_grad():
        state.discriminator.linear.bias.fill_(shift)
    loss_generator, loss_discriminator, _ = plain_losses(config, state, images, 0, precision)
    parameters = list(state.discriminator.parameters())
    wanted_discriminator = torch.autograd.grad(loss_discriminator, parameters, retain_graph=True)
    wanted_generator = torch.autograd.grad(loss_generator, list(state.generator.parameters()))

    outcome, generator, discriminator = recorded_gradients(
        config, state, precision, images, monkeypatch
    )
    assert relative_error(generator, wanted_generator) < tolerance
    assert relative_error(discriminator, wanted_discriminator) < tolerance
    losses = torch.stack([outcome.loss_generator, outcome.loss_discriminator])
    wanted = torch.stack([loss_generator, loss_discriminator]).detach()
    torch.testing.assert_close(losses, wanted, rtol=tolerance, atol=1e-8)


@pytest.mark.parametrize("logit", [-1e4, -100.0, -50.0, 0.0, 50.0, 100.0, 1e4])
def test_upstream_times_ratio_is_the_generators_for_any_logit(
    logit: float, make_config: ConfigMaker
) -> None:
    loss = build_loss(make_config().loss)
    logits = torch.full((8,), logit, requires_grad=True)
    loss_discriminator = loss.discriminator(logits[:4], logits[4:])
    loss_generator = loss.generator(logits[4:])
    wanted = torch.cat([torch.zeros(4), torch.full((4,), -0.25 / (1 + torch.tensor(logit).exp()))])
    (exact,) = torch.autograd.grad(loss_discriminator, logits, retain_graph=True)
    upstream, ratio = split_upstream(loss_discriminator, loss_generator, logits)
    torch.testing.assert_close(upstream * ratio, wanted, rtol=1e-5, atol=1e-38)
    assert upstream.isfinite().all()
    assert ratio.isfinite().all()
    assert upstream.abs().min() > 1e-26
    torch.testing.assert_close(upstream, exact, rtol=1e-6, atol=1e-24)


def test_simultaneous_step_updates_both_networks_from_one_forward(
    images: Tensor, make_config: ConfigMaker
) -> None:
    config = make_config(width=8)
    state = build_state(config, 28, 1, CPU)
    reference = copy.deepcopy(state)
    loss_generator, loss_discriminator, logits = plain_losses(config, reference, images, 0)
    for loss, network in (
        (loss_discriminator, reference.discriminator),
        (loss_generator, reference.generator),
    ):
        gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
    outcome = build_step(config, state, "fp32")(images)
    assert state.step == 1
    real, fake = logits.detach().chunk(2)
    torch.testing.assert_close(outcome.logit_real, real.mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(outcome.logit_fake, fake.mean(), rtol=1e-4, atol=1e-6)
    for network, norm in (
        (reference.generator, outcome.grad_norm_generator),
        (reference.discriminator, outcome.grad_norm_discriminator),
    ):
        wanted = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
        torch.testing.assert_close(norm, wanted, rtol=1e-4, atol=0)


def test_alternating_step_is_the_plain_loop(images: Tensor, make_config: ConfigMaker) -> None:
    config = make_config(width=8, update="alternating", discriminator_updates=2)
    state, reference = build_state(config, 28, 1, CPU), build_state(config, 28, 1, CPU)
    for update in range(2):
        _, loss, _ = plain_losses(config, reference, images, update)
        reference.discriminator_optimizer.zero_grad()
        loss.backward()
        reference.discriminator_optimizer.step()
    fake = reference.generator(latents(0, 0, len(images), 100, CPU, 2))
    loss_generator = build_loss(config.loss).generator(
        reference.discriminator(fake, DropoutBits(0, 0, 2, CPU))
    )
    reference.generator_optimizer.zero_grad()
    loss_generator.backward()
    reference.generator_optimizer.step()

    outcome = build_step(config, state, "fp32")(images)
    torch.testing.assert_close(outcome.loss_discriminator, loss.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(outcome.loss_generator, loss_generator.detach(), rtol=1e-4, atol=0)
    ours, wanted = state.discriminator.linear.weight, reference.discriminator.linear.weight
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)
    assert all(parameter.requires_grad for parameter in state.discriminator.parameters())


@pytest.mark.parametrize("update", ["simultaneous", "alternating"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_are_bit_equal(
    update: str, precision: str, images: Tensor, make_config: ConfigMaker
) -> None:
    def run() -> list[Tensor]:
        config = make_config(width=16, update=update)
        state = build_state(config, 28, 1, CPU)
        step = build_step(config, state, precision)
        outcomes = [step(batch) for batch in (images, images[:5], images[:1])]
        weights = [*state.generator.state_dict().values(), *state.discriminator.parameters()]
        return [*weights, *(getattr(o, name) for o in outcomes for name in StepOutcome._fields)]

    first, second = run(), run()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert all(tensor.isfinite().all() for tensor in first)


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (64, 1)])
def test_other_sizes_and_channels_train_in_bf16(
    size: int, channels: int, make_config: ConfigMaker
) -> None:
    config = make_config(width=16)
    state = build_state(config, size, channels, CPU)
    batch = torch.randint(0, 256, (4, channels, size, size), dtype=torch.uint8)
    outcome = build_step(config, state, "bf16")(batch)
    for name in StepOutcome._fields:
        value = getattr(outcome, name)
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()
