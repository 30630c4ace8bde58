"""Plug-ins through the commands: a folder of one's own, and what is said where one is missing."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lungan
from lungan import generate, registry, score, train
from lungan.config import compose, presets
from lungan.config.run import trajectory_id
from lungan.errors import ConfigError, RunFolderError
from lungan.runs.folder import GENERATOR, read_config

MINE = """
from dataclasses import dataclass

import torch
from torch import nn

from lungan.config import GeneratorConfig, OptimizerConfig
from lungan.config.rules import at_least, within
from lungan.registry import register
from lungan.scores.encoders import Encoder

SCALE = 1.0


@dataclass(kw_only=True, slots=True)
class LionConfig(OptimizerConfig):
    beta: float = within(0, 1, default=0.9)


class Lion(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                update = torch.lerp(weight.grad, momentum, group["beta"]).sign_()
                weight.sub_(SCALE * group["lr"] * update)
                momentum.lerp_(weight.grad, 0.01)


@register("optimizer", "lion", config=LionConfig)
def build_lion(config, parameters, lr):
    return Lion(parameters, {"lr": lr, "beta": config.beta})


@dataclass(kw_only=True, slots=True)
class FlatConfig(GeneratorConfig):
    width: int = at_least(8, default=32)


class Flat(nn.Module):
    def __init__(self, config, image_size, channels, rng, num_classes):
        super().__init__()
        self.shape = (channels, image_size, image_size)
        self.pixels = nn.Linear(config.latent_dim, channels * image_size**2)
        nn.init.normal_(self.pixels.weight, std=0.05, generator=rng)
        nn.init.zeros_(self.pixels.bias)

    def forward(self, latents, labels=None):
        return torch.tanh(self.pixels(latents)).unflatten(1, self.shape)


register("generator", "flat", config=FlatConfig)(Flat)


class Coarse(nn.Module):
    def forward(self, images):
        features = nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
        return features, features[:, :0]


@register("encoder", "coarse")
def build_coarse(config, image_set, device):
    return Encoder(
        name="coarse", weights_hash="0" * 64, feature_dim=16, num_classes=0, notes=(),
        network=Coarse(), device=device, max_batch_size=256,
    )
"""
FILES = {
    "mine.py": MINE,
    "conf/optimizer/lion_slow.yaml": "name: lion\nbeta: 0.95\n",
    "conf/experiment/mine.yaml": """# @package _global_
defaults:
  - override /generator: flat
  - override /optimizer: lion_slow
epochs: 2
batch_size: 32
lr: 1e-4
threads: 1
precision: fp32
checkpoint_every_epochs: 1
discriminator: {width: 8}
data: {num_images: 80, num_test: 24}
score: {encoders: [coarse], memorization: false, floor_splits: 1, nearest_k: 2}
""",
    "conf/sweeps/mine.yaml": "overrides: {experiment: mine, seed: '0,1'}\n",
}
OWN = ("--plugin", "mine.py", "-cd", "conf")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody's own; what it registers is forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_choices", dict(registry._choices))
    monkeypatch.setattr(registry, "_files", {})
    yield tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def environment() -> dict[str, str]:
    root = str(Path(lungan.__file__).parents[1])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def do(*arguments: str) -> str:
    done = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs() -> list[Path]:
    return sorted(path.parent for path in Path("runs").glob("*/summary.json"))


def change_code() -> None:
    path = Path("mine.py")
    path.write_text(path.read_text().replace("SCALE = 1.0", "SCALE = 0.1"))


def test_a_folder_of_ones_own_through_the_commands() -> None:
    # Stopped hard in the middle, and gone on with.
    arguments = command("lungan.train", *OWN, "experiment=mine", "epochs=60")
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.DEVNULL)
    while not list(Path("runs").glob("*/checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert runs() == []
    assert "finished: done" in do("lungan.train", *OWN, "experiment=mine", "epochs=60")
    (run,) = runs()
    assert json.loads((run / "summary.json").read_text())["epochs_done"] == 60

    # A sweep by other processes, scored and tabulated.
    sweep = ("-m", "+sweeps=mine", "--processes", "2")
    do("lungan.train", *OWN, *sweep)
    do("lungan.score", "--plugin", "mine.py", str(run), "--num-images", "20")
    do("lungan.results", "runs")
    with Path("results/all/results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(runs()) == 3
    assert all("flat" in row["run"] and "lion" in row["run"] for row in rows)
    assert all(float(row["coarse.frechet_distance"]) > 0 for row in rows)

    # Another code, other runs.
    before = runs()
    do("lungan.train", *OWN, *sweep)
    assert runs() == before
    change_code()
    do("lungan.train", *OWN, *sweep)
    assert len(runs()) == len(before) + 2


def test_the_same_command_is_not_finished_where_the_code_changed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*OWN, "experiment=mine", "epochs=1"]
    for verb in ("finished", "was finished before"):
        assert train.main(arguments) == 0
        assert f" {verb}: done" in capsys.readouterr().out
    change_code()
    assert train.main(arguments) == 0
    assert " finished: done" in capsys.readouterr().out
    assert len(runs()) == 2


def test_only_runs_that_use_a_plug_in_have_other_ids() -> None:
    def ids(*overrides: str) -> str:
        with compose.composer():
            return trajectory_id(compose.compose(overrides), "d" * 64, "fp32")

    before = ids()
    registry.load_file("mine.py")
    lion = ids("optimizer=lion")
    assert ids() == before
    change_code()
    registry.load_file("mine.py")
    assert ids() == before
    assert ids("optimizer=lion") != lion


def test_a_module_beside_the_file_belongs_to_its_code() -> None:
    Path("beside_mine.py").write_text("VALUE = 1\n")
    path = Path("mine.py")
    path.write_text("import beside_mine\n" + path.read_text())
    first = registry.load_file(path)
    assert registry.load_file(path) is first
    Path("beside_mine.py").write_text("VALUE = 22\n")
    assert registry.load_file(path).sha256 != first.sha256


def test_values_from_anywhere_have_one_id() -> None:
    registry.load_file("mine.py")
    from lungan.config import presets

    with presets.searching(["conf"]), compose.composer():
        by_file = compose.compose(["optimizer=lion_slow"])
        by_hand = compose.compose(["optimizer=lion", "optimizer.beta=0.95"])
    assert by_file == by_hand


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "ConfigError: a plug-in must be a Python file, broken.py does not exist"),
        ("x = 1", "ConfigError: plug-in broken.py registers nothing; see docs/extend.md"),
        (
            "\nimport nowhere_at_all",
            "ConfigError: plug-in broken.py cannot be loaded: line 2: ModuleNotFoundError: "
            "No module named 'nowhere_at_all'",
        ),
        (
            "import sys\nsys.exit(0)",
            "ConfigError: plug-in broken.py cannot be loaded: line 2: SystemExit: 0",
        ),
        ("def f(:", "ConfigError: plug-in broken.py cannot be loaded: line 1: SyntaxError: "),
        (
            MINE.replace('"lion"', '"adam"'),
            "ConfigError: optimizer=adam comes from lungan itself; a plug-in needs another name",
        ),
    ],
)
def test_a_file_that_will_not_do(
    text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path("broken.py").write_text(text)
    assert train.main(["--plugin", "broken.py", "optimizer=sgd"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_missing_or_changed_one_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train.main([*OWN, "experiment=mine", "epochs=1"]) == 0
    (run,) = runs()
    plugin = registry.load_file("mine.py")
    way = f"--plugin {folder / 'mine.py'}"
    monkeypatch.setattr(
        registry, "_choices", {k: v for k, v in registry._choices.items() if v.plugin is None}
    )
    monkeypatch.setattr(registry, "_files", {})
    with pytest.raises(ConfigError) as caught:
        read_config(run)
    for part in ("flat", str(plugin), way):
        assert part in str(caught.value)
    capsys.readouterr()
    weights = str(run / GENERATOR)
    assert generate.main([weights, "--out", "made", "--num-images", "2"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(plugin) in line and way in line
    assert score.main([str(run)]) == 2
    with pytest.raises(ConfigError, match="has changed on this machine"):
        change_code()
        registry.load_again([dataclasses.asdict(plugin)])


def test_a_wrong_value_says_nothing_of_plug_ins_that_are_here() -> None:
    assert train.main([*OWN, "experiment=mine", "epochs=1"]) == 0
    (run,) = runs()
    saved = run / "config.yaml"
    saved.write_text(re.sub(r"(?m)^lr: .*", "lr: fast", saved.read_text()))
    with pytest.raises(ConfigError) as caught:
        read_config(run)
    assert str(caught.value) == f"{saved}: lr must be a number, got fast"


def test_an_experiment_whose_plug_in_is_not_given_says_how_to_give_it() -> None:
    mine = Path("conf/experiment/mine.yaml")
    mine.write_text(mine.read_text().replace("/generator: flat", "/generator: never_loaded"))
    with (
        presets.searching(["conf"]),
        compose.composer(),
        pytest.raises(ConfigError, match="got never_loaded; --plugin FILE adds one of your own"),
    ):
        compose.compose(["experiment=mine"])


def test_a_folder_is_no_plug_in() -> None:
    with pytest.raises(ConfigError, match="a plug-in must be a Python file, conf is a folder"):
        registry.load_file("conf")


def test_a_rule_of_a_plug_in_is_checked_as_lungans_own() -> None:
    registry.load_file("mine.py")
    with compose.composer():
        with pytest.raises(ConfigError, match=r"optimizer\.beta must be at least 0 and less than"):
            compose.compose(["optimizer=lion", "optimizer.beta=1"])
        with pytest.raises(ConfigError, match=r"did you mean optimizer\.beta\?"):
            compose.compose(["optimizer=lion", "optimizer.betta=0.5"])


def test_a_broken_contract_is_said() -> None:
    text = Path("mine.py").read_text()
    Path("mine.py").write_text(text.replace("generator=rng", ""))
    registry.load_file("mine.py")
    with pytest.raises(AssertionError, match="one seed, one network"):
        registry.check("flat")
    registry.check("optimizer=lion")
    with pytest.raises(ConfigError, match="lyon is no choice"):
        registry.check("lyon")
    with pytest.raises(ConfigError, match="name must be text, such as optimizer=lion, got 3"):
        registry.check(3)  # type: ignore[arg-type]


ENTRY = "[lungan.plugins]\noptimizer.lion = lion_package.part\n"


def test_a_distribution_is_found_by_its_entry_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folder / "site"
    (site / "lion_package").mkdir(parents=True)
    (site / "lion_package/__init__.py").write_text("")
    (site / "lion_package/part.py").write_text(MINE)
    (site / "lion_for_lungan-1.2.dist-info").mkdir()
    (site / "lion_for_lungan-1.2.dist-info/entry_points.txt").write_text(ENTRY)
    (site / "lion_for_lungan-1.2.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: lion-for-lungan\nVersion: 1.2\n"
    )
    monkeypatch.syspath_prepend(str(site))
    registry._entry_points.cache_clear()
    try:
        assert "lion" in registry.names("optimizer")
        assert "lion_package" not in sys.modules  # until it is asked for
        with compose.composer():
            config = compose.compose(["optimizer=lion"])
        (plugin,) = registry.used_by([("optimizer", config.optimizer.name)]).values()
        assert (plugin.name, plugin.version) == ("lion-for-lungan", "1.2")
        assert plugin.way_to_get() == "pip install lion-for-lungan==1.2"
    finally:
        for name in ("lion_package", "lion_package.part"):
            sys.modules.pop(name, None)
        registry._entry_points.cache_clear()


def test_folders_of_yaml_that_will_not_do(folder: Path) -> None:
    from lungan.config import presets

    for make, message in (
        ("nowhere", "must be a folder"),
        ("empty/optimiser", "must hold folders such as"),
        ("clash/optimizer/adam.yaml", "has the name of lungan's own optimizer=adam"),
    ):
        path = folder / make
        top = folder / make.split("/")[0]
        if path.suffix:
            path.parent.mkdir(parents=True)
            path.write_text("name: adam\n")
        elif "/" in make:
            path.mkdir(parents=True)
        with pytest.raises(ConfigError, match=message), presets.searching([top]):
            pass


def test_a_sweep_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my sweep.yaml").write_text("overrides: {experiment: mine, seed: '3,4'}\n")
    arguments = [*OWN, "-m", "+sweeps=my sweep.yaml", "--sweep", "own", "--dry-run"]
    assert train.main(arguments) == 0
    assert "2 runs on 2 trajectories" in capsys.readouterr().out
    Path("wrong.yaml").write_text("seed: [1, 2]\n")
    assert train.main(["-m", "+sweeps=wrong.yaml"]) == 2
    assert "; a sweep has overrides: {key: value}" in capsys.readouterr().err


def test_an_experiment_that_sets_hydras_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("conf/experiment/mine.yaml")
    path.write_text(path.read_text() + "hydra: {sweeper: {params: {lr: '1,2'}}}\n")
    assert train.main([*OWN, "experiment=mine"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "hydra.sweeper.params" in line and "+sweeps=FILE.yaml" in line


def test_an_old_reader_of_configs_is_not_in_the_way() -> None:
    assert train.main([*OWN, "experiment=mine", "epochs=1"]) == 0
    (run,) = runs()
    config = read_config(run)
    assert (config.optimizer.name, config.generator.name) == ("lion", "flat")
    with pytest.raises(RunFolderError):
        read_config(run / "samples")
