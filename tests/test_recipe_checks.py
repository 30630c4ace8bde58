"""What losses, networks, augmentation and classes demand of each other, in one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import yaml

from lungan.config import RunConfig, compose, presets, rules
from lungan.errors import ConfigError
from lungan.runs.prepare import prepare


@pytest.fixture(scope="module", autouse=True)
def composer() -> Iterator[None]:
    with compose.composer():
        yield


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["generator.conditional=true"],
            "generator.conditional=true needs images of at least two classes to train on, got "
            "pneumonia; choose more by data.classes=[...], where [] is all",
        ),
        (
            ["loss=bce", "loss.micro_batches=2"],
            "loss.micro_batches must be 1 with loss.update=simultaneous, got 2; use "
            "loss.update=alternating",
        ),
        (
            ["loss=hinge", "batch_size=8", "loss.micro_batches=9"],
            "loss.micro_batches must be at most batch_size (8), got 9",
        ),
        (
            ["loss=wgan_gp", "loss.gradient_penalty=0"],
            "loss=wgan_gp needs a bounded gradient, or its loss has no end: set "
            "loss.gradient_penalty above 0 (10 is usual) or discriminator.spectral_norm=true",
        ),
        (
            [
                "augment=adaptive",
                "augment.brightness=0",
                "augment.contrast=0",
                "augment.translation=0",
                "augment.cutout=0",
            ],
            "augment=adaptive changes nothing with brightness, contrast, translation and cutout "
            "all 0; give one, or use augment=none",
        ),
        (["loss=hinge", "loss.r1=-1"], "loss.r1 must be at least 0, got -1.0"),
        (
            ["loss.penalty_every_steps=0"],
            "loss.penalty_every_steps must be at least 1, got 0",
        ),
        (["augment=diffaugment", "augment.cutout=1"], "augment.cutout must be at least 0 and"),
        (["generator.ema_ramp_up=0"], "generator.ema_ramp_up must be greater than 0, got 0.0"),
        (["generator.ema_half_life_images=-5"], "generator.ema_half_life_images must be at least"),
        (["generator=resnet", "data=folder", "data.path=x", "data.size=40"], "data.size must be"),
        (
            ["generator=resnet", "generator.leaky_slope=0.1"],
            "generator.leaky_slope is a key of generator=dcgan",
        ),
    ],
)
def test_impossible_combinations(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose.compose(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wasserstein_is_bounded_by_either() -> None:
    compose.compose(["loss=wgan_gp"])
    compose.compose(["loss=wgan_gp", "loss.gradient_penalty=0", "discriminator.spectral_norm=true"])


def test_one_class_left_is_found_with_the_data() -> None:
    config = compose.compose(["generator.conditional=true", "data.classes=[]"])
    config.generator.check_classes(["normal", "pneumonia"])
    with pytest.raises(ConfigError, match=r"got only; choose more by data\.classes"):
        config.generator.check_classes(["only"])


def test_a_config_saved_before_a_key_came_is_read() -> None:
    config = compose.compose([])
    values = dataclasses.asdict(config)
    for group, key in (("loss", "r1"), ("generator", "conditional"), ("loss", "micro_batches")):
        del values[group][key]
    assert rules.parse(RunConfig, values) == config
    del values["optimizer"]["beta1"]
    with pytest.raises(ConfigError, match=r"optimizer\.beta1 must be given"):
        rules.parse(RunConfig, values)


@pytest.mark.parametrize("name", list(presets.files(presets.EXPERIMENT)))
def test_every_experiment_composes_on_phantom_data(name: str) -> None:
    path = presets.conf_folder() / "experiment" / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"experiment={name}" in text.splitlines()[1]
    size = yaml.safe_load(text).get("data", {}).get("size", 28)
    config = compose.compose([f"experiment={name}", "data=phantom", f"data.size={size}"])
    assert config.data.name == "phantom"


def test_every_value_that_an_experiment_has_for_a_choice_is_read() -> None:
    experiments = presets.conf_folder() / "experiment"
    defaults = yaml.safe_load((presets.conf_folder() / "config.yaml").read_text())["defaults"]
    lines = [value for entry in defaults if isinstance(entry, dict) for value in entry.values()]
    read = {str(line).partition("/")[2].partition("_")[0] for line in lines if "/" in str(line)}
    there = sorted(path for path in experiments.glob("*/*.yaml"))
    assert there and read == {"generator", "discriminator", "loss", "optimizer", "augment"}
    for path in there:
        group, _, choice = path.stem.partition("_")
        assert group in read, f"{path} is read by nothing"
        assert (presets.conf_folder() / group / f"{choice}.yaml").exists()


def test_an_experiments_values_belong_to_its_own_choices() -> None:
    recipe = compose.compose(["experiment=small_data"])
    assert (recipe.epochs, recipe.lr, recipe.optimizer.generator_lr) == (60, 5e-4, 5e-4)
    assert recipe.generator.ema_half_life_images > 0
    other = compose.compose(
        ["experiment=small_data", "schedule=step", "optimizer=rmsprop", "loss=hinge", "epochs=7"]
    )
    assert (other.schedule.name, other.optimizer.name, other.epochs) == ("step", "rmsprop", 7)
    assert other.loss.r1 == 0
    assert other.batch_size == recipe.batch_size
    for name in ("dcgan", "fastgan", "resnet"):
        compose.compose(["experiment=small_data", f"generator={name}", f"discriminator={name}"])
    for size in (64, 128):
        larger = compose.compose([f"experiment=small_data_{size}"])
        optimizer = dataclasses.replace(recipe.optimizer, discriminator_lr=larger.lr)
        assert (larger.data.size, larger.optimizer) == (size, optimizer)
        assert (larger.generator.name, larger.discriminator.name) == ("fastgan", "fastgan")
        assert (larger.augment.name, larger.augment.cutout) == ("diffaugment", 0)
    thin = compose.compose(["experiment=small_data_128"])
    assert (thin.generator.width, thin.discriminator.width) == (8, 16)
    chosen = compose.compose(
        ["experiment=small_data_128", "generator=dcgan", "discriminator=dcgan"]
    )
    usual = compose.compose(["generator=dcgan", "discriminator=dcgan"])
    assert chosen.generator.width == usual.generator.width
    assert chosen.discriminator.width == usual.discriminator.width


def test_a_named_sweep_of_runs_is_each_of_them_on_top_of_the_rest() -> None:
    sweep = compose.compose_sweep(["+sweeps=small_data_ablation", "lr=0.001", "seed=7"])
    values = yaml.safe_load(
        (presets.conf_folder("sweeps") / "small_data_ablation.yaml").read_text(encoding="utf-8")
    )
    assert (sweep.name, sweep.question) == ("small_data_ablation", values["question"])
    assert len(sweep.runs) == len(values["runs"]) + 1  # one is of two optimizers
    configs = [config for config, _ in sweep.runs]
    assert all((config.lr, config.seed) == (0.001, 7) for config in configs)
    assert len({repr(config) for config in configs}) == len(configs)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["loss.penalty_every_steps=4"], "loss.penalty_every_steps=4 has no effect while loss.r1"),
        (["data.fraction_seed=3"], "data.fraction_seed=3 has no effect while data.fraction is 1"),
        (["loss.penalty_every_steps=4", "loss.r2=1", "data.fraction=0.5"], ""),
    ],
)
def test_a_setting_without_effect_is_said(
    overrides: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(compose.compose([*overrides, "data.num_images=40", "batch_size=2"]))
    assert said in caplog.text
    assert bool(said) == ("has no effect" in caplog.text)
