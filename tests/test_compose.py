"""Composition: every option of every group, the defaults, and what --help and --cfg say."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings
from omegaconf import DictConfig, OmegaConf

import lungan
from lungan import registry, train
from lungan.config import GROUPS, RunConfig, compose, presets, rules
from lungan.errors import ConfigError

NEEDS = {name: ["data.path=x"] for name in ("folder", "npz", "table")}
"""What a choice has no default for."""

OPTIONS = [(group, name) for group in GROUPS for name in presets.choices(group)]


@pytest.fixture(scope="module", autouse=True)
def composer() -> Iterator[None]:
    with compose.composer():
        yield


@functools.cache
def composed(*overrides: str) -> RunConfig:
    return compose.compose(overrides)


def test_every_choice_of_lungans_own_has_its_file_and_every_file_its_choice() -> None:
    for group in set(GROUPS) - {"score"}:
        assert list(presets.files(group)) == registry.known(group), group
    folders = {path.name for path in presets.conf_folder().iterdir() if path.is_dir()}
    assert folders - {"hydra", "__pycache__"} == {*GROUPS, presets.EXPERIMENT}


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_to_its_dataclass(group: str, name: str) -> None:
    config = composed(f"{group}={name}", *NEEDS.get(name, []))
    chosen = getattr(config, group)
    assert type(chosen) is rules.schema(GROUPS[group], group, name)
    assert chosen.name == name
    config.check()


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_a_file_gives_every_key_that_has_no_other_value(group: str, name: str) -> None:
    text = presets.files(group)[name].read_text(encoding="utf-8")
    assert text.startswith("# ") and "python -m lungan.train" in text.splitlines()[0]
    values = yaml.safe_load(text)
    fields = dataclasses.fields(rules.schema(GROUPS[group], group, name))
    needed = {
        field.name
        for field in fields
        if field.default is field.default_factory and "follows" not in field.metadata
    }
    assert needed <= set(values) <= {field.name for field in fields}
    follows = {field.name for field in fields if "follows" in field.metadata}
    assert not follows & set(values)


def test_the_main_file_gives_every_key_of_a_run() -> None:
    values = yaml.safe_load((presets.conf_folder() / "config.yaml").read_text(encoding="utf-8"))
    entries = [next(iter(entry)) for entry in values.pop("defaults") if isinstance(entry, dict)]
    groups = [entry for entry in entries if not entry.startswith("optional ")]
    assert sorted([*groups, *values]) == sorted([*_keys(RunConfig), presets.EXPERIMENT])


def test_the_defaults_are_the_reports() -> None:
    config = composed()
    assert (config.generator.name, config.discriminator.name) == ("dcgan", "dcgan")
    assert (config.loss.name, config.loss.update) == ("bce", "simultaneous")
    assert (config.schedule.name, config.schedule.warmup_epochs) == ("constant", 0)
    assert (config.batch_size, config.epochs, config.lr) == (256, 50, 0.001)
    assert config.generator.latent_dim == 100
    assert config.optimizer.generator_lr == config.optimizer.discriminator_lr == 0.001
    assert (config.data.name, config.data.size, config.data.channels) == ("phantom", 28, 1)
    assert (config.data.splits, config.data.classes) == (["train", "val"], ["pneumonia"])
    assert (config.augment.name, config.tracker.name, config.seed) == ("none", "none", 0)


def test_the_report_experiment_is_its_recipe_on_its_data() -> None:
    report = compose.compose(["experiment=report"])
    expected = composed("data=pneumoniamnist")
    assert report == expected
    rmsprop = compose.compose(["experiment=report", "optimizer=rmsprop", "epochs=100"])
    assert (rmsprop.optimizer.name, rmsprop.epochs) == ("rmsprop", 100)


def test_no_experiment_can_be_said_and_swept() -> None:
    assert compose.compose(["experiment=null", "seed=3"]) == compose.compose(["seed=3"])
    none, report = compose.expand(["experiment=null,report"])
    assert compose.compose(none) == compose.compose([])
    assert compose.compose(report) == compose.compose(["experiment=report"])


def test_lr_sets_both_networks_and_each_can_be_set_alone() -> None:
    config = compose.compose(["lr=0.01", "optimizer.generator_lr=0.02"])
    assert (config.optimizer.generator_lr, config.optimizer.discriminator_lr) == (0.02, 0.01)


def test_a_float_key_takes_a_whole_number_and_text_stays_text() -> None:
    config = compose.compose(["lr=1", "store=5", "data=pneumoniamnist", "data.path=0001"])
    assert config.lr == 1.0 and isinstance(config.lr, float)
    assert config.store == "5"
    assert config.data.path == "0001"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "overrides",
    [
        ["experiment=report", "seed=9223372036854775807"],
        ["data=folder", "data.path=a b", "data.classes=[x,y]", "schedule=cosine"],
        ["tracker=wandb", "tracker.tags=[a,b]", "score=full", "optimizer=adamw", "lr=1e-05"],
    ],
)
def test_what_cfg_prints_is_the_run(overrides: list[str]) -> None:
    printed = yaml.safe_load(compose.show(compose.compose(overrides)))
    assert rules.parse(RunConfig, printed) == compose.compose(overrides)


@pytest.mark.parametrize("name", list(presets.files(presets.SWEEPS)))
def test_every_named_sweep_expands_and_composes(name: str) -> None:
    path = presets.conf_folder("sweeps") / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"+sweeps={name}" in text.splitlines()[0]
    values = yaml.safe_load(text)
    assert values["question"].strip().endswith("?")
    for run in values.get("runs", [{}]):
        overrides = values["overrides"] | run
        jobs = compose.expand([f"{key}={value}" for key, value in overrides.items()])
        swept = [str(value).split(",") for value in overrides.values()]
        assert len(jobs) == len({tuple(job) for job in jobs})
        assert len(jobs) == math.prod(len(choices) for choices in swept)
        compose.compose(jobs[-1]).check()


def test_the_report_sweep_is_adam_and_rmsprop_at_50_and_100_epochs() -> None:
    values = yaml.safe_load(
        (presets.conf_folder("sweeps") / "report.yaml").read_text(encoding="utf-8")
    )
    overrides = values["overrides"]
    assert overrides["experiment"] == "report"
    assert overrides["optimizer"] == "adam,rmsprop"
    assert overrides["epochs"] == "50,100"


def test_expand_goes_through_every_combination_the_last_key_fastest() -> None:
    jobs = compose.expand(["optimizer=adam,rmsprop", "batch_size=64", "epochs=1,2"])
    assert jobs == [
        ["optimizer=adam", "batch_size=64", "epochs=1"],
        ["optimizer=adam", "batch_size=64", "epochs=2"],
        ["optimizer=rmsprop", "batch_size=64", "epochs=1"],
        ["optimizer=rmsprop", "batch_size=64", "epochs=2"],
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=rmsprop", "seed=3", "optimizer.decay=0.5", "epochs=7"],
        ["epochs=7", "experiment=small_data", "data=folder", "data.path=a b", "data.classes=[x,y]"],
        ["++seed=4", "lr=0.01", "optimizer=adam"],
    ],
)
def test_values_set_on_a_copy_are_what_hydra_composes(overrides: list[str]) -> None:
    composed = hydra.compose(config_name="config", overrides=overrides)
    wanted: Any = OmegaConf.to_container(composed, resolve=True)
    for key, value in dataclasses.asdict(compose.compose(overrides)).items():
        there = {name: value[name] for name in wanted[key]} if key in GROUPS else value
        assert there == wanted[key]
    assert compose.compose(["seed=5"]) == compose.compose(["++seed=5"])


def test_a_sweep_over_values_reads_the_groups_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = hydra.compose

    def count(**given: Any) -> DictConfig:
        calls.append(given["overrides"])
        return original(**given)

    monkeypatch.setattr(hydra, "compose", count)
    compose._compose_groups.cache_clear()
    for seed in range(3):
        for optimizer in ("adam", "rmsprop"):
            config = compose.compose([f"optimizer={optimizer}", f"seed={seed}"])
            assert (config.optimizer.name, config.seed) == (optimizer, seed)
    assert calls == [["optimizer=adam"], ["optimizer=rmsprop"]]


def test_presets_load_without_hydra_what_hydra_composes() -> None:
    for name in presets.choices("score"):
        assert presets.load("score", name) == composed(f"score={name}").score


BLOCKED = """
import sys
for name in ("torch", "hydra", "omegaconf", "numpy", "pandas", "wandb"):
    sys.modules[name] = None  # importing it raises ImportError
sys.argv = ["train", "--help"]
import runpy
runpy.run_module("lungan.train", run_name="__main__")
"""


def test_help_comes_at_once_and_shows_groups_options_and_examples(tmp_path: Path) -> None:
    root = str(Path(presets.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    seconds = []
    for command in (["-m", "lungan.train", "--help"], ["-c", BLOCKED]):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        seconds.append(time.perf_counter() - began)
        assert (done.returncode, done.stderr) == (0, "")
        for group in GROUPS:
            line = next(line for line in done.stdout.splitlines() if line.split()[:1] == [group])
            assert line.split(maxsplit=1)[1] == ", ".join(presets.choices(group))
        assert done.stdout.count("  python -m lungan.train ") >= 3
        for name in list(presets.files(presets.SWEEPS)):
            assert name in done.stdout
    assert min(seconds) < 2
    assert list(tmp_path.iterdir()) == []


def _keys(schema: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("~/xr", "~/xr"),
        ("data (1)", "data (1)"),
        ("Daten für GAN", "Daten für GAN"),
        ("Daten\\ für\\ GAN", "Daten für GAN"),
        ("影像", "影像"),
        ("a=b", "a=b"),
        ("it's", "it's"),
        ("0001", "0001"),
        ("1e5", "1e5"),
        ("true", "true"),
        ("'a,b'", "a,b"),
        ("${store}", "runs"),
    ],
)
def test_text_is_taken_as_people_type_it(typed: str, value: str) -> None:
    config: Any = compose.compose(["data=folder", f"data.path={typed}"])
    assert config.data.path == value
    (job,) = compose.expand(["data=folder", f"data.path={typed}"])
    assert compose.compose(job) == config


@pytest.mark.parametrize("typed", ["[br]", "{a}", "true", "1e5"])
def test_text_that_looks_like_something_else_is_text(typed: str) -> None:
    config: Any = compose.compose(["data=folder", f"data.path={typed}"])
    assert config.data.path == typed


def test_a_comma_in_text_says_the_argument_to_type() -> None:
    with pytest.raises(ConfigError) as caught:
        compose.compose(["data=folder", "data.path=chest, old"])
    (typed,) = shlex.split(str(caught.value).partition("for one value type ")[2])
    config: Any = compose.compose(["data=folder", typed])
    assert config.data.path == "chest, old"


def test_a_list_that_needs_quotes_says_the_argument_to_type() -> None:
    with pytest.raises(ConfigError) as caught:
        compose.compose(["data=folder", "data.path=x", "data.classes=[Lunge (links),b]"])
    typed = shlex.split(str(caught.value).partition("; type ")[2])
    config = compose.compose(["data=folder", "data.path=x", *typed])
    assert config.data.classes == ["Lunge (links)", "b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("+lr=0.5", "lr=0.5"), ("++lr=0.5", "lr=0.5"), ("+experiment=report", "experiment=report")],
)
def test_a_plus_changes_nothing(one: str, other: str) -> None:
    assert compose.compose([one]) == compose.compose([other])


def test_a_saved_config_is_a_start_that_overrides_change() -> None:
    start = compose.compose(["experiment=small_data", "data=phantom", "optimizer=sgd"])
    assert compose.compose([], start) == start
    changed = compose.compose(["lr=0.5", "generator=resnet"], start)
    assert changed.optimizer.generator_lr == changed.optimizer.discriminator_lr == 0.5
    assert (changed.generator.name, changed.epochs) == ("resnet", start.epochs)
    alone = compose.compose(["optimizer.generator_lr=0.25"], start)
    assert compose.compose(["lr=0.5"], alone).optimizer.generator_lr == 0.25
    with pytest.raises(ConfigError, match="a start of its own"):
        compose.compose(["experiment=report"], start)


def test_a_config_made_in_python_passes_the_same_validator() -> None:
    config = compose.compose([])
    config.lr = 1
    config.check()
    assert type(config.lr) is float  # so that its id is that of lr=1 on the command line
    for key, value, message in (
        ("epochs", "5", "epochs must be a whole number, got 5"),
        ("seed", True, "seed must be a whole number, got true"),
        ("lr", 10**400, "lr must be a number of at most 64 bits, got 1000"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(config, **{key: value}).check()
    with pytest.raises(ConfigError, match=r"optimizer\.name is set by optimizer=<choice>"):
        adam: Any = config.optimizer
        dataclasses.replace(config, optimizer=dataclasses.replace(adam, name="sgd")).check()


def complete(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert train.main(["--complete", line]) == 0
    return capsys.readouterr().out.split()


def test_a_shell_completes_groups_choices_and_keys(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def found(line: str) -> list[str]:
        return complete(f"lungan train {line}", capsys)

    assert found("optimizer=") == [f"optimizer={name}" for name in registry.known("optimizer")]
    assert found("optimizer=adam,rm") == ["optimizer=adam,rmsprop"]
    assert "optimizer.momentum=" in found("optimizer=sgd optimizer.")
    assert "optimizer.momentum=" not in found("optimizer.")
    assert found("generator.conditional=") == [
        "generator.conditional=false",
        "generator.conditional=true",
    ]
    assert found("precision=b") == ["precision=bf16"]
    assert found("--config") == ["--config-dir"]
    assert "+sweeps=report" in found("+sweeps=")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text("# @package _global_\n")
    assert found(f"-cd {tmp_path} experiment=o") == ["experiment=own"]


def test_bash_reads_what_completion_prints(tmp_path: Path) -> None:
    script = tmp_path / "try.sh"
    script.write_text(
        f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
        'eval "$(python -m lungan.train --shell-completion bash)"\n'
        'COMP_LINE="lungan train optimizer=ad"; COMP_POINT=${#COMP_LINE}; _lungan_train\n'
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(presets.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["adam", "adamw"]


def test_cfg_shows_a_part_and_version_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-c", "job", "--resolve", "--package", "optimizer", "lr=0.5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["generator_lr"] == 0.5
    with pytest.raises(SystemExit) as caught:
        train.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lungan {lungan.__version__}\n"


def test_verbose_says_where_an_error_arose(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--verbose", "hydra.verbose=true"):
        assert train.main([word, "epochs=0"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1] == "ConfigError: epochs must be at least 1, got 0"
        assert any("rules.py" in line for line in lines)


@pytest.mark.parametrize("key", [*compose.INSTEAD, "hydra.help"])
def test_each_refusal_of_hydras_own_says_what_serves(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if key == "hydra.verbose":
        return  # it is taken
    name = f"{key}.x" if "/" not in key else key
    assert train.main([f"{name.replace('..', '.')}=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is not a setting of lungan: " in line and line.endswith("see docs/hydra.md")


def test_a_glob_is_over_choices_and_nothing_else() -> None:
    jobs = compose.expand(["optimizer=glob(*)"])
    assert jobs == [[f"optimizer={name}"] for name in registry.known("optimizer")]
    with pytest.raises(ConfigError) as caught:
        compose.expand(["lr=interval(1e-4,1e-2)"])
    assert "lungan.search" in str(caught.value) and "Sweep" not in str(caught.value)


KEYS = ["epochs", "lr", "data.path", "data.classes", "data.scale", "optimizer", "optimizer.beta1"]
KEYS += ["score.encoders", "experiment", "generator.x.y", "epochs[0]", "a..b", "~lr", "+x", "$", ""]
VALUES = [
    "",
    "1",
    "[a,b",
    "{a:1}",
    "[1,2]",
    "${lr}",
    "${x",
    "${oc.env:NOPE}",
    "null",
    "true",
    "1e400",
]
VALUES += [
    "a,b",
    "range(1,3)",
    "interval(1,2)",
    "glob(*)",
    "tag(log,interval(1,2))",
    "'",
    "\\",
    "???",
]

SIGNS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(SIGNS, max_size=5)),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_typed_is_a_config_or_one_line(pairs: list[tuple[str, str]]) -> None:
    overrides = [f"{key}={value}" for key, value in pairs]
    for function in (compose.compose, compose.expand, compose.split_sweeps):
        try:
            function(overrides)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1
            assert "object at 0x" not in str(error) and "Sweep(" not in str(error)


def test_a_saved_text_that_looks_like_a_reference_refers_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "told")
    start: Any = compose.compose(["data=folder", "data.path=x"])
    start.data.path = "${oc.env:SECRET}"
    assert compose.compose(["lr=0.5"], start).data.path == "${oc.env:SECRET}"  # type: ignore[attr-defined]
