"""What a user can get wrong, through the real command: one line on stderr and exit code 2."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungan.config import RunConfig, presets
from lungan.data import build as data
from lungan.train import main

RUN_KEYS = ", ".join(field.name for field in dataclasses.fields(RunConfig))
ADAM_KEYS = (
    "name, generator_lr, discriminator_lr, beta1, beta2, epsilon, epsilon_convention, weight_decay"
)

WITHOUT_DATA = [
    # Keys that are not there.
    ("epocs=5", f"epocs is not a key; did you mean epochs? The keys of the config are {RUN_KEYS}"),
    ("+foo=1", f"foo is not a key; the keys of the config are {RUN_KEYS}"),
    ("model.width=8", f"model is not a key; the keys of the config are {RUN_KEYS}"),
    (
        "++optimizer.betta1=0.5",
        "optimizer.betta1 is not a key; did you mean optimizer.beta1? "
        f"The keys of optimizer are {ADAM_KEYS}",
    ),
    (
        "optimizer=rmsprop optimizer.beta1=0.5",
        "optimizer.beta1 is a key of optimizer=adam, optimizer=adamw, not of the optimizer that is "
        "chosen: give optimizer=adam too, or one of its keys name, generator_lr, "
        "discriminator_lr, decay, momentum, epsilon, epsilon_convention",
    ),
    (
        "tracker.mode=online",
        "tracker.mode is a key of tracker=wandb, not of the tracker that is chosen: give "
        "tracker=wandb too, or one of its keys name, also",
    ),
    (
        "data.path=films",
        "data.path is a key of data=folder, data=npz, data=pneumoniamnist, data=table, not of the "
        "data that is chosen: give data=folder too, or one of its keys name, size, channels, "
        "splits, classes, fraction, fraction_seed, num_images, num_test, seed",
    ),
    ("data=folder data.path=", "data.path must be a path, got nothing"),
    ("lr.x=3", "lr.x is not a key: lr has none below it"),
    ("~optimizer", "optimizer cannot be removed: every run has it; choose another value"),
    (
        "hydra.run.dir=x",
        "hydra.run.dir is not a setting of lungan: store=<folder> says where runs lie; see "
        "docs/hydra.md",
    ),
    # What is no override.
    ("lr", "lr is not an override; write key=value"),
    ("epochs=[5", "epochs must be a whole number, got [5"),
    (
        "--config-name mine",
        "unrecognized arguments: --config-name: there is one main config; experiment=NAME, or "
        "--from RUN, starts elsewhere; see python -m lungan.train --help",
    ),
    ("lr=${nope}", "lr refers to ${nope}, which is not there"),
    ("--foo", "unrecognized arguments: --foo; see python -m lungan.train --help"),
    # Values of a wrong type.
    ("epochs=abc", "epochs must be a whole number, got abc"),
    ("epochs=1.5", "epochs must be a whole number, got 1.5"),
    ("epochs=null", "epochs must be a whole number, got null"),
    ("epochs=", "epochs must be a whole number, got nothing"),
    ("epochs=${no_such_key}", "epochs refers to ${no_such_key}, which is not there"),
    ("batch_size=true", "batch_size must be a whole number, got true"),
    ("lr=fast", "lr must be a number, got fast"),
    ("data.splits=train", "data.splits must be a list of names, such as [a,b], got train"),
    ("score.extrapolate=maybe", "score.extrapolate must be true or false, got maybe"),
    # Values out of range.
    ("epochs=0", "epochs must be at least 1, got 0"),
    ("batch_size=1", "batch_size must be at least 2, got 1"),
    ("lr=0", "lr must be greater than 0, got 0.0"),
    ("lr=nan", "lr must be greater than 0, got nan"),
    ("lr=inf", "lr must be greater than 0, got inf"),
    (
        "optimizer.discriminator_lr=-1",
        "optimizer.discriminator_lr must be greater than 0, got -1.0",
    ),
    ("seed=-1", "seed must be from 0 to 2^63 - 1, got -1"),
    ("seed=9223372036854775808", "seed must be from 0 to 2^63 - 1, got 9223372036854775808"),
    ("threads=-1", "threads must be auto, or a whole number from 0 to 4096, got -1"),
    ("threads=all", "threads must be auto, or a whole number from 0 to 4096, got all"),
    ("checkpoint_every_epochs=0", "checkpoint_every_epochs must be at least 1, got 0"),
    ("generator.width=7", "generator.width must be a multiple of 8, from 8 to 65536, got 7"),
    (
        "discriminator.dropout=1",
        "discriminator.dropout must be at least 0 and less than 1, got 1.0",
    ),
    ("optimizer.beta2=1.5", "optimizer.beta2 must be at least 0 and less than 1, got 1.5"),
    ("data.size=512", "data.size must be from 28 to 256, got 512"),
    ("data.channels=3", "data.channels must be 1, got 3"),
    ("data.num_images=3", "data.num_images must be from 20 to 10000000, got 3"),
    ("score.num_images=5", "score.num_images must be 0, or at least 20, got 5"),
    ("store=", "store must be a folder, got nothing"),
    # Unknown choices.
    (
        "data=mnist",
        "data must be one of folder, npz, phantom, pneumoniamnist, table, got mnist; --plugin FILE "
        "adds one of your own",
    ),
    (
        "optimizer=lion",
        "optimizer must be one of adam, adamw, rmsprop, sgd, got lion; --plugin FILE adds one of "
        "your own",
    ),
    (
        "schedule=null",
        "schedule must be one of constant, cosine, linear, step, got null; --plugin FILE adds one "
        "of your own",
    ),
    (
        "experiment=mine",
        "experiment must be one of {experiments}, got mine; --config-dir DIR adds YAML of your own",
    ),
    ("precision=fp16", "precision must be one of auto, fp32, bf16, got fp16"),
    ("device=gpu", "device must be auto, cpu, cuda or cuda:<index>, got gpu"),
    ("retry=always", "retry must be one of never, diverged, got always"),
    ("loss.update=both", "loss.update must be one of simultaneous, alternating, got both"),
    (
        "data.splits=[train,extra]",
        "data.splits must be a list of distinct names from train, val, test, got [train,extra]",
    ),
    (
        "data.classes=[cat]",
        "data.classes must be a list of distinct names from normal, pneumonia, got [cat]",
    ),
    (
        "score.encoders=[vgg]",
        "score.encoders must be a list of distinct names from auto, contrast, domain, "
        "efficientnet_lite2, inception, spectrum, got [vgg]",
    ),
    # What is impossible beside something else.
    (
        "data.size=30",
        "data.size must be 7 or 8 times a power of two (28, 32, 56, 64, 112, 128, 224, 256) for "
        "generator=dcgan, got 30",
    ),
    (
        "loss.discriminator_updates=2",
        "loss.discriminator_updates must be 1 with loss.update=simultaneous, got 2; "
        "use loss.update=alternating",
    ),
    (
        "schedule.warmup_epochs=6 epochs=5",
        "schedule.warmup_epochs must be at most epochs (5), got 6.0",
    ),
    (
        "data=npz data.path=x data.val_fraction=0.6 data.test_fraction=0.5",
        "data.val_fraction + data.test_fraction must be less than 1, got 1.1",
    ),
    (
        "optimizer.name=rmsprop",
        "optimizer.name is set by optimizer=<choice>, one of adam, adamw, rmsprop, sgd; "
        "got optimizer.name=rmsprop",
    ),
    ("data=folder", "data.path must be given, it has no default: data.path=..."),
    # One run or a sweep.
    (
        "optimizer=adam,rmsprop",
        "optimizer=adam,rmsprop is a sweep: add --multirun, or quote a value with a comma",
    ),
    ("--dry-run", "--sweep, --processes and --dry-run belong to a sweep: add --multirun"),
    ("+sweeps=report", "+sweeps=report is a sweep: add --multirun"),
    ("--multirun epochs=1,0", "epochs must be at least 1, got 0"),
    (
        "--multirun optimizer=adam,lion",
        "optimizer must be one of adam, adamw, rmsprop, sgd, got lion; --plugin FILE adds one of "
        "your own",
    ),
    ("--multirun +sweeps=mine", "+sweeps must be one of {sweeps}, or a .yaml file, got mine"),
    (
        "--multirun epochs=1 --sweep a/b",
        "the sweep's name must be letters, digits, '.', '_' and '-', at most 100 and the first a "
        "letter or digit, got a/b",
    ),
    (
        "--multirun --cfg job",
        "--cfg shows one run: leave out --multirun, or see a sweep by --dry-run",
    ),
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; nothing may be left in it. Caches are made beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LUNGAN_DATA", raising=False)
    return folder


def lines(command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the command, which must exit with 2 and print nothing; gives stderr's lines."""
    try:
        code: Any = main(command.split())
    except SystemExit as error:  # argparse
        code = error.code
    output = capsys.readouterr()
    assert code == 2, output
    assert output.out == ""
    return output.err.splitlines()


@pytest.mark.parametrize(("command", "message"), WITHOUT_DATA)
def test_a_wrong_setting_is_one_line_before_anything_is_read_or_made(
    command: str,
    message: str,
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("data was read"))
    for name, group in (
        ("{sweeps}", presets.SWEEPS),
        ("{experiments}", presets.EXPERIMENT),
    ):
        message = message.replace(name, ", ".join(presets.files(group)))
    assert lines(command, capsys) == [f"ConfigError: {message}"]
    assert list(empty_folder.iterdir()) == []
    assert not (empty_folder.parent / "cache").exists()


def test_a_start_that_is_not_there(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines("--from nope lr=0.001", capsys) == [
        "RunFolderError: nope does not exist; give a run's folder or its config.yaml"
    ]
    assert list(empty_folder.iterdir()) == []


def test_there_are_cases_enough() -> None:
    assert len(dict(WITHOUT_DATA)) == len(WITHOUT_DATA) >= 40


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_an_absent_device(
    device: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lines(f"device={device}", capsys) == [
        f"ConfigError: device={device} needs a CUDA device and torch finds none; "
        "use device=cpu or device=auto"
    ]
    assert list(empty_folder.iterdir()) == []


def test_a_batch_larger_than_the_training_set(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "data.num_images=64 data.num_test=8 batch_size=48"
    *_, last = lines(command, capsys)  # after the line that says what is drawn
    assert last == (
        "ConfigError: batch_size must be at most the number of training images (47), got 48"
    )
    assert list(empty_folder.iterdir()) == []


def _no_file(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _text(path: Path) -> None:
    path.write_text("not an archive")


def _torn(path: Path) -> None:
    np.savez(path, images=np.zeros((50, 28, 28), np.uint8))
    path.write_bytes(path.read_bytes()[:-100])


def _objects(path: Path) -> None:
    np.savez(path, images=np.array([{}, []], dtype=object))


def _floats(path: Path) -> None:
    np.savez(path, images=np.zeros((50, 28, 28)))


def _oblong(path: Path) -> None:
    np.savez(path, images=np.zeros((50, 28, 30), np.uint8))


def _few_labels(path: Path) -> None:
    np.savez(path, images=np.zeros((50, 28, 28), np.uint8), labels=np.zeros(49, np.int64))


def _other_keys(path: Path) -> None:
    np.savez(path, pictures=np.zeros((50, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_file, r"data\.path must be an \.npz file, data\.npz does not exist"),
        (_folder, r"data\.path must be an \.npz file, data\.npz is a folder: use data=folder"),
        (_text, r"data\.npz must be an \.npz of plain arrays; it is not an \.npz, or holds .*"),
        (_torn, r"data\.npz .*not an \.npz.*"),
        (_objects, r"data\.npz must be an \.npz of plain arrays; .*never unpickled"),
        (
            _floats,
            r"data\.npz: images must be uint8 from 0 to 255, got float64; "
            "scale all of them by one range first",
        ),
        (_oblong, r"data\.npz: images must be square, got 28x30"),
        (_few_labels, r"data\.npz: labels must be one number an image, .* got \(49,\)"),
        (_other_keys, r"data\.npz must hold images, or train_images, .*; it holds pictures"),
    ],
)
def test_a_data_file_that_will_not_do(
    make: Any,
    message: str,
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = empty_folder / "data.npz"
    make(path)
    before = sorted(empty_folder.iterdir())
    (line,) = lines("data=npz data.path=data.npz", capsys)
    assert re.fullmatch(f"DataError: {message}", line), line
    assert sorted(empty_folder.iterdir()) == before


def test_a_folder_of_images_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines("data=folder data.path=x-rays", capsys) == [
        "DataError: data.path must be a folder of images, x-rays does not exist"
    ]


def test_a_data_set_that_is_not_at_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines("data=pneumoniamnist data.path=x.npz", capsys)
    assert line.startswith("DataError: ") and "data.path" in line and "x.npz" in line


def test_a_data_set_that_may_not_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines("data=pneumoniamnist data.download=false", capsys)
    assert line.startswith("DataError: ")
    for part in ("pneumoniamnist.npz", "data.path", "data=phantom"):
        assert part in line


def test_classes_that_the_data_has_not(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = empty_folder / "data.npz"
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    np.savez(path, images=images, labels=np.arange(50) % 2)
    (line,) = lines("data=npz data.path=data.npz data.classes=[7]", capsys)
    assert line == "ConfigError: data.classes must be among 0, 1, got 7"


TINY = (
    "generator.width=8 discriminator.width=8 data.num_images=64 data.num_test=8 batch_size=32 "
    "epochs=1 score=none threads=1"
)


def test_a_store_that_is_a_file(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty_folder / "runs").write_text("in the way")
    *_, line = lines(TINY, capsys)
    assert re.fullmatch(
        "RunFolderError: store=runs cannot be written: (File exists|Not a directory); "
        "choose another with store=<folder>",
        line,
    )


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc to fail to write to")
def test_a_store_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    *_, line = lines(f"{TINY} store=/proc/runs", capsys)
    assert re.fullmatch(
        "RunFolderError: store=/proc/runs cannot be written: .+; "
        "choose another with store=<folder>",
        line,
    )


def command_line(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lungan.train", *overrides],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(presets.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("epochs=0", "ConfigError: epochs must be at least 1, got 0"),
        (
            "data=folder data.path=x",
            "DataError: data.path must be a folder of images, x does not exist",
        ),
        (
            "--multirun --seed 5",
            "ConfigError: unrecognized arguments: --seed; see python -m lungan.train --help",
        ),
    ],
)
def test_the_real_process(override: str, line: str, empty_folder: Path) -> None:
    done = command_line(empty_folder, *override.split())
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{line}\n")
    assert list(empty_folder.iterdir()) == []
