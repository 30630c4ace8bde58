"""Run configs for tests of training: the report's, at any size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lungan.config import (
    AugmentConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    ScoreConfig,
    TrackerConfig,
)
from lungan.config.data import PhantomConfig
from lungan.config.training import (
    AdamConfig,
    ConstantScheduleConfig,
    DcganDiscriminatorConfig,
    LeakyGeneratorConfig,
    RmspropConfig,
)

ConfigMaker = Callable[..., RunConfig]


def adam(name: str = "adam", convention: str = "keras", decay: float = 0.0) -> AdamConfig:
    return AdamConfig(
        name=name,
        generator_lr=1e-3,
        discriminator_lr=1e-3,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        epsilon_convention=convention,
        weight_decay=decay,
    )


def rmsprop(convention: str = "keras", momentum: float = 0.0) -> RmspropConfig:
    return RmspropConfig(
        name="rmsprop",
        generator_lr=1e-3,
        discriminator_lr=1e-3,
        decay=0.9,
        momentum=momentum,
        epsilon=1e-7,
        epsilon_convention=convention,
    )


@pytest.fixture
def make_config() -> ConfigMaker:
    """Makes the report's RunConfig with small networks where ``width`` says so."""

    def make(
        *,
        optimizer: OptimizerConfig | None = None,
        update: str = "simultaneous",
        discriminator_updates: int = 1,
        dropout: float = 0.3,
        width: int = 64,
        latent_dim: int = 100,
        size: int = 28,
        channels: int = 1,
        seed: int = 0,
    ) -> RunConfig:
        return RunConfig(
            data=PhantomConfig(
                name="phantom",
                size=size,
                channels=channels,
                splits=[],
                classes=[],
                num_images=64,
                num_test=8,
                seed=0,
            ),
            generator=LeakyGeneratorConfig(
                name="dcgan",
                latent_dim=latent_dim,
                width=width,
                max_width=4 * width,
                leaky_slope=0.3,
                batch_norm_momentum=0.01,
                batch_norm_epsilon=1e-3,
            ),
            discriminator=DcganDiscriminatorConfig(
                name="dcgan", width=width, max_width=4 * width, leaky_slope=0.3, dropout=dropout
            ),
            loss=LossConfig(name="bce", update=update, discriminator_updates=discriminator_updates),
            optimizer=optimizer or adam(),
            schedule=ConstantScheduleConfig(name="constant", warmup_epochs=0),
            augment=AugmentConfig(name="none"),
            score=ScoreConfig(
                name="none",
                encoders=[],
                num_images=0,
                batch_size=1,
                seed=0,
                every_epochs=0,
                inception_weights=None,
                inception_precision="auto",
                require_inception=False,
                inception_splits=1,
                nearest_k=1,
                kernel_subsets=1,
                kernel_subset_size=2,
                extrapolate=False,
                memorization=False,
                floor_splits=1,
            ),
            tracker=TrackerConfig(name="none"),
            epochs=1,
            batch_size=16,
            lr=1e-3,
            seed=seed,
            precision="fp32",
            device="cpu",
            threads=0,
            store="runs",
            checkpoint_every_epochs=1,
            samples_every_epochs=0,
            retry="never",
        )

    return make


@pytest.fixture
def optimizers() -> dict[str, OptimizerConfig]:
    return {"adam": adam(), "rmsprop": rmsprop()}
