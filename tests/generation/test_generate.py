"""The generate command: what it writes, that it repeats, and what it refuses."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from lungan.config.data import NpzConfig
from lungan.data.folder import read_layout
from lungan.data.npz import load_npz
from lungan.generate import main
from lungan.generation import making
from lungan.runs.folder import GENERATOR, read_config, read_summary
from lungan.scores import encoders, memorization
from lungan.scores.encoders import Encoded


class PixelEncoder:
    """Every fourth pixel, standing in for a trained encoder."""

    name = "domain"
    weights_hash = "ab" * 32
    feature_dim = 196
    num_classes = 2
    notes = ()

    def encode(self, images: Any, *_: object) -> Encoded:
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        return Encoded(flat[:, ::4], flat[:, :2])


def generate(run: Path, out: Path, *more: object) -> int:
    arguments = [run, "--out", out, "--device", "cpu", *more]
    return main([str(argument) for argument in arguments])


def rows(out: Path) -> list[dict[str, str]]:
    with (out / making.MANIFEST).open() as stream:
        return list(csv.DictReader(stream))


def content(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def leftovers(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def edited(path: Path, target: Path, **changes: Any) -> Path:
    """A generator's file with other metadata."""
    with safe_open(path, framework="pt") as stream:
        description = json.loads(stream.metadata()["lungan"])
    tensors = safetensors.torch.load_file(path)
    metadata = {"lungan": json.dumps({**description, **changes})}
    target.write_bytes(safetensors.torch.save(tensors, metadata))
    return target


def test_class_folders_that_any_image_folder_reader_takes(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert generate(runs["conditional"], out, "--num-images", 70, "--seed", 3) == 0
    layout = read_layout(out)
    assert layout.class_names == ("normal", "pneumonia")
    labels = [file.label for file in layout.files]
    assert [labels.count(name) for name in layout.class_names] == [
        18,
        52,
    ]  # as 28 and 80 trained on
    listed = rows(out)
    assert [row["image"] for row in listed] == sorted(row["image"] for row in listed)
    assert len(listed) == 70
    for row in listed[::17]:
        image = cv2.imread(str(out / row["image"]), cv2.IMREAD_UNCHANGED)
        assert image.shape == (28, 28)
        assert hashlib.sha256(image.tobytes()).hexdigest() == row["pixels_sha256"]
        assert row["class"] == Path(row["image"]).parent.name


def test_a_seed_repeats_and_the_first_of_many_are_those_of_few(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    for name, number, seed in (("a", 70, 3), ("b", 70, 3), ("c", 5, 3), ("d", 5, 4)):
        out = tmp_path / name / "out"
        assert generate(runs["pneumonia"], out, "--num-images", number, "--seed", seed) == 0
    many, again, few, other = (content(tmp_path / name / "out") for name in "abcd")
    assert many == again
    pictures = [name for name in few if name.endswith(".png")]
    assert all(few[name] == many[name] for name in pictures)
    assert not any(few[name] == other[name] for name in pictures)


def test_classes_are_named_by_what_was_trained_on(runs: dict[str, Path], tmp_path: Path) -> None:
    for name, expected in (("pneumonia", "pneumonia"), ("mixed", "all")):
        assert generate(runs[name], tmp_path / name, "--num-images", 3) == 0
        assert {row["class"] for row in rows(tmp_path / name)} == {expected}
    out = tmp_path / "normal"
    assert generate(runs["conditional"], out, "--num-images", 9, "--class", "normal") == 0
    assert {row["class"] for row in rows(out)} == {"normal"}


def test_an_archive_in_medmnists_layout(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("archive", "again"):
        out = tmp_path / name / "out"
        assert generate(runs["conditional"], out, "--num-images", 90, "--npz") == 0
    path = tmp_path / "archive/out" / making.ARCHIVE
    assert path.read_bytes() == (tmp_path / "again/out" / making.ARCHIVE).read_bytes()
    with np.load(path) as arrays:
        assert arrays["train_images"].shape == (90, 28, 28)
        assert arrays["train_labels"].shape == (90, 1)
        assert arrays["train_images"].dtype == arrays["train_labels"].dtype == np.uint8
    shape = {"name": "npz", "size": 28, "channels": 1, "splits": [], "classes": []}
    read = load_npz(NpzConfig(**shape, path=str(path), val_fraction=0.0, test_fraction=0.0))
    generate(runs["conditional"], tmp_path / "folder", "--num-images", 90)
    for row, image in zip(rows(tmp_path / "folder"), read.images, strict=True):
        assert hashlib.sha256(image.tobytes()).hexdigest() == row["pixels_sha256"]


def test_labels_are_the_datas_own(runs: dict[str, Path], tmp_path: Path) -> None:
    assert generate(runs["pneumonia"], tmp_path / "out", "--num-images", 2, "--npz") == 0
    with np.load(tmp_path / "out" / making.ARCHIVE) as arrays:
        assert arrays["train_labels"].tolist() == [[1], [1]]


def test_truncation_cuts_latents_and_variety(runs: dict[str, Path], tmp_path: Path) -> None:
    spread = {}
    for name, more in (("whole", []), ("cut", ["--truncation", 0.1])):
        generate(runs["pneumonia"], tmp_path / name, "--num-images", 40, *more)
        files = sorted((tmp_path / name).rglob("*.png"))
        images = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files])
        spread[name] = images.std(axis=0).mean()
    assert spread["cut"] < 0.5 * spread["whole"]
    assert "cut off at 0.1" in (tmp_path / "cut" / making.CARD).read_text()


def test_memorized_images_are_replaced_and_counted(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(encoders, "build", lambda *_: PixelEncoder())
    monkeypatch.setenv("LUNGAN_CACHE", str(runs["pneumonia"].parents[1] / "cache"))
    from lungan.data import build as data

    training = data.load(read_config(runs["pneumonia"]).data).select(["train"], ["pneumonia"])
    real_block = making.sample_block

    def with_copies(*arguments: Any) -> Any:
        images = real_block(*arguments)
        images[5:15] = torch.from_numpy(training.images[:10])
        return images

    monkeypatch.setattr(making, "sample_block", with_copies)
    out = tmp_path / "out"
    assert generate(runs["pneumonia"], out, "--num-images", 60, "--reject-memorized") == 0
    listed = rows(out)
    assert len(listed) == 60
    assert not {int(row["position"]) for row in listed} & set(range(5, 15))
    known = {hashlib.sha256(image.tobytes()).hexdigest() for image in training.images}
    assert not known & {row["pixels_sha256"] for row in listed}
    assert all(float(row["nearest_training_distance"]) > 0 for row in listed)
    said = capsys.readouterr().out
    drawn = int(listed[-1]["position"]) + 1
    assert f"{drawn - 60} of {drawn} images drawn were replaced" in said
    card = (out / making.CARD).read_text()
    assert f"{drawn - 60} of {drawn} images drawn" in card
    rough = "These limits are rough: the nearest 1 % of"
    assert rough in said and rough in card
    monkeypatch.setattr(memorization, "FEWEST_HELD_OUT_FOR_SHARE", 10)
    again = generate(runs["pneumonia"], tmp_path / "more", "--num-images", 5, "--reject-memorized")
    assert again == 0
    assert rough not in capsys.readouterr().out


def test_a_generator_that_only_memorizes_is_given_up(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(encoders, "build", lambda *_: PixelEncoder())
    from lungan.data import build as data

    monkeypatch.setenv("LUNGAN_CACHE", str(runs["pneumonia"].parents[1] / "cache"))
    config = read_config(runs["pneumonia"]).data
    copies = data.load(config).select(["train"], ["pneumonia"]).images[:64]
    monkeypatch.setattr(making, "sample_block", lambda *_: torch.from_numpy(copies))
    monkeypatch.setattr(making, "MOST_DRAWS", 2)
    assert (
        generate(runs["pneumonia"], tmp_path / "out", "--num-images", 9, "--reject-memorized") == 2
    )
    assert "this generator memorizes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path)


def test_the_card_says_what_must_be_said(runs: dict[str, Path], tmp_path: Path) -> None:
    generate(runs["pneumonia"], tmp_path / "out", "--num-images", 2)
    card = (tmp_path / "out" / making.CARD).read_text()
    summary = read_summary(runs["pneumonia"])
    assert summary is not None
    for words in (
        "not for diagnosis",
        "Intended use",
        "of no patient",
        summary["run_id"],
        summary["data_hash"],
        "--num-images 2 --out out --seed 0",
    ):
        assert words in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-images", 0], "--num-images must be from 1 to 10000000, got 0"),
        (["--num-images", 10**13], "--num-images must be from 1 to 10000000"),
        (["--num-images", 2, "--seed", -1], "--seed must be from 0"),
        (["--num-images", 2, "--truncation", 0], "--truncation must be greater than 0, got 0"),
        (["--num-images", 2, "--class", "x"], "--class must be among pneumonia for"),
    ],
)
def test_wrong_options(
    runs: dict[str, Path],
    tmp_path: Path,
    arguments: list[object],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert generate(runs["pneumonia"], tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert generate(runs["pneumonia"], out, "--num-images", 2) == 0  # an empty folder is free
    before = content(out)
    assert generate(runs["pneumonia"], out, "--num-images", 3) == 2
    assert "--out must not exist yet" in capsys.readouterr().err
    assert content(out) == before


def test_a_name_that_no_disk_takes(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(runs["pneumonia"], tmp_path / ("a" * 300), "--num-images", 2) == 2
    assert "cannot be written: File name too long; nothing is left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("layout", [[], ["--npz"]])
def test_a_full_disk_or_an_interrupt_leaves_nothing(
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    layout: list[str],
) -> None:
    def draw(*arguments: Any) -> Any:
        for number, one in enumerate(real(*arguments)):
            if number == 4:
                raise failure
            yield one

    real = making._draw
    monkeypatch.setattr(making, "_draw", draw)
    code = generate(runs["pneumonia"], tmp_path / "out", "--num-images", 9, *layout)
    said = capsys.readouterr().err
    if isinstance(failure, OSError):
        assert code == 2
        assert "cannot be written: No space left" in said
    else:
        assert code == 130
        assert "nothing was left behind" in said
    assert not list(tmp_path.iterdir())


def test_a_real_ctrl_c(runs: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lungan.generate", str(runs["pneumonia"]), "--device", "cpu"]
    command += ["--num-images", "1000000", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A shell's background jobs, such as a test run may be, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_bare_file_knows_no_data(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = runs["conditional"] / GENERATOR
    assert generate(weights, tmp_path / "out", "--num-images", 4, "--npz") == 0
    assert "Trained on: unknown" in (tmp_path / "out" / making.CARD).read_text()
    assert generate(weights, tmp_path / "b", "--num-images", 4, "--reject-memorized") == 2
    assert "give the run folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../outside", "/etc", "..", ".hidden", "a\nb", "", "a" * 101])
def test_class_names_of_a_file_cannot_leave_the_folder(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    weights = edited(
        runs["conditional"] / GENERATOR,
        tmp_path / "evil.safetensors",
        classes={"names": [name, "b"], "shares": [0.5, 0.5]},
    )
    assert generate(weights, tmp_path / "out", "--num-images", 4) == 2
    assert "unfit for a folder's name" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["evil.safetensors"]


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["a", "a"], "shares": [0.5, 0.5]},
        *(
            {"names": ["a", "b"], "shares": shares}
            for shares in ([float("inf"), 0.5], [1e308, 1e308], [float("nan"), 0.5], [0.0, 1.0])
        ),
    ],
)
def test_classes_that_cannot_be_divided(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: Any
) -> None:
    weights = runs["conditional"] / GENERATOR
    evil = edited(weights, tmp_path / "evil.safetensors", classes=classes)
    assert generate(evil, tmp_path / "out", "--num-images", 4) == 2
    message = "classes must be two different names or more, each with a finite share above 0; copy"
    assert message in capsys.readouterr().err


def test_a_run_that_has_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path, tmp_path / "out", "--num-images", 4) == 2
    assert "holds no finished run" in capsys.readouterr().err
    assert generate(tmp_path / "no.safetensors", tmp_path / "out", "--num-images", 4) == 2
    assert "does not exist" in capsys.readouterr().err
