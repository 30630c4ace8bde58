from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungan import score
from lungan.config import compose, presets
from lungan.files import read_json, write_json
from lungan.models.build import build_generator
from lungan.models.saving import serialize_generator
from lungan.runs.folder import GENERATOR, SCORES, SUMMARY, write_config
from lungan.scores import domain, encoders
from lungan.scores.encoders import Encoded

BUILD = encoders.build


class PixelEncoder:
    """The first pixels, standing in for the trained encoder."""

    name = "domain"
    weights_hash = "ab" * 32
    feature_dim = 5
    num_classes = 3
    notes = ()

    def encode(self, images: Any, *_: object) -> Encoded:
        flat = np.asarray(images).reshape(len(images), -1).astype(np.float32) / 255
        return Encoded(flat[:, :5], flat[:, 5:8])


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoders, "build", lambda *_: PixelEncoder())


@pytest.fixture
def real(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), dtype=np.uint8)
    labels = np.arange(200) % 2
    path = tmp_path / "real.npz"
    np.savez(
        path,
        train_images=pixels[:140],
        train_labels=labels[:140],
        test_images=pixels[140:],
        test_labels=labels[140:],
    )
    return path


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    path = tmp_path / "fake.npz"
    np.savez(path, images=np.random.default_rng(1).integers(0, 256, (80, 28, 28), dtype=np.uint8))
    return path


def run(*arguments: object) -> int:
    return score.main([*map(str, arguments), "--encoders", "domain", "--device", "cpu"])


def test_real_against_fake_prints_a_table_and_writes_json(
    real: Path, fake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pairs = tmp_path / "out.json", tmp_path / "pairs"
    assert run("--real", real, "--fake", fake, "--json", out, "--pairs", pairs) == 0
    printed = capsys.readouterr().out
    assert "N = 70 a side, of 140 real images (train; 0+1)" in printed
    assert "frechet_distance" in printed
    result = json.loads(out.read_text())
    assert result["held_out"] == {"splits": ["test"], "num_images": 60}
    assert result["values"]["domain.coverage"] == pytest.approx(
        result["values"]["domain.coverage.floor"], abs=0.2
    )
    assert [path.name for path in pairs.rglob("*.png")] == ["closest_pairs_domain.png"]


def test_a_generator_is_sampled(real: Path, tmp_path: Path) -> None:
    config = presets.load("generator", "dcgan")
    config.width = 8
    generator = build_generator(config, 28, 1)
    file = tmp_path / "generator.safetensors"
    file.write_bytes(serialize_generator(generator, config, image_size=28, channels=1))
    out = tmp_path / "out.json"
    for path in (file, tmp_path):  # the file, or the folder that holds it
        assert run("--real", real, "--fake", path, "--classes", "1", "--json", out) == 0
        assert json.loads(out.read_text())["num_images"] == 35


def test_images_without_labels_are_scored_without_any_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoders, "build", BUILD)
    quick = domain.Recipe(min_updates=30, max_updates=30, batch_size=16)
    monkeypatch.setattr(domain.load_encoder, "__defaults__", (quick,))
    rng = np.random.default_rng(0)
    grid = np.arange(28) / rng.uniform(2, 6, (120, 1)) + rng.uniform(0, 6, (120, 1))
    waves = 128 + 60 * np.sin(grid)[:, None] + 40 * np.sin(2 * grid)[:, :, None]
    np.savez(tmp_path / "a.npz", images=waves[:80].astype(np.uint8))
    np.savez(tmp_path / "b.npz", images=waves[80:].astype(np.uint8))
    assert run("--real", tmp_path / "a.npz", "--fake", tmp_path / "b.npz") == 0
    printed = capsys.readouterr().out
    assert "trained on 64 images without labels" in printed
    assert "frechet_distance" in printed
    assert "the encoder has no classes: it was trained without labels" in printed


def test_splits_and_classes_choose_the_reference(real: Path, fake: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["--real", real, "--fake", fake, "--json", out]
    assert run(*arguments, "--splits", "train,test", "--classes", "0", "--num-images", "30") == 0
    result = json.loads(out.read_text())
    assert result["reference"]["num_images"] == 100
    assert result["num_images"] == 30


def make_run(folder: Path, data: Path, status: str = "done") -> Path:
    """A finished run's folder, as far as scoring reads it."""
    overrides = ["data=npz", f"data.path={data}", "data.classes=['1']", "generator.width=8"]
    with compose.composer():
        config = compose.compose([*overrides, "score=none", "epochs=3", "batch_size=16"])
    folder.mkdir()
    write_config(folder, config)
    weights = serialize_generator(
        build_generator(config.generator, 28, 1), config.generator, image_size=28, channels=1
    )
    (folder / GENERATOR).write_bytes(weights)
    summary = {"status": status, "run_id": "r", "epochs_done": 3, "scores": None, "config": {}}
    write_json(folder / SUMMARY, summary)
    return folder


def test_runs_are_scored_and_earlier_results_kept(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = make_run(tmp_path / "done", real)
    diverged = make_run(tmp_path / "diverged", real, status="diverged")
    assert run(done, diverged, tmp_path / "absent") == 0
    printed = capsys.readouterr()
    assert "N = 35 a side, of 70 real images (train; 1)" in printed.out
    assert f"skipped: {diverged} holds a diverged run" in printed.err
    assert f"skipped: {tmp_path / 'absent'} has no finished run" in printed.err
    first = read_json(done / SCORES)
    assert len(first) == 1
    assert next(iter(first.values()))["epoch"] == 3
    assert read_json(done / SUMMARY)["scores"] == next(iter(first.values()))

    assert run(done, "--score", "fast", "--num-images", "20") == 0
    both = read_json(done / SCORES)
    assert len(both) == 2
    assert both.items() >= first.items()
    newest = read_json(done / SUMMARY)["scores"]
    assert newest["num_images"] == 20
    assert read_json(diverged / SUMMARY)["scores"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ConfigError: give run folders, or --real and --fake"),
        (["--real", "REAL"], "ConfigError: give run folders, or --real and --fake"),
        (["x", "--real", "REAL", "--fake", "FAKE"], "ConfigError: give run folders, or --real"),
        (["x", "--size", "28"], "ConfigError: --size needs --real and --fake"),
        (["absent"], "RunFolderError: nothing to score: absent has no finished run"),
        (["--real", "absent", "--fake", "FAKE"], "DataError: absent does not exist"),
        (
            ["--real", "REAL", "--fake", "FAKE", "--size", "9"],
            "size must be from 16 to 512",
        ),
        (["--real", "REAL", "--fake", "FAKE", "--score", "x"], "score must be one of fast, full"),
        (["--real", "REAL", "--fake", "FAKE", "--classes", "x"], "data.classes must be among 0, 1"),
        (
            ["--real", "REAL", "--fake", "SMALL"],
            "real are 28x28 grey (1 channel), generated 20x20 grey (1 channel); --size 20 resizes",
        ),
        (
            ["--real", "REAL", "--fake", "COLOR"],
            "generated 28x28 in colour (3 channels); --channels 1 makes both grey",
        ),
        (["x", "--on-bad-image", "skip"], "--on-bad-image needs --real and --fake"),
        (["--real", "REAL", "--fake", "FLOAT"], "must be uint8 from 0 to 255, got float32"),
        (["--real", "REAL", "--fake", "PICKLE"], "is not a generator saved by lungan"),
        (["--real", "REAL", "--fake", "FAKE", "--num-images", "3"], "score.num_images must be 0"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    real: Path,
    fake: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "small.npz", images=np.zeros((30, 20, 20), np.uint8))
    np.savez(tmp_path / "color.npz", images=np.zeros((30, 28, 28, 3), np.uint8))
    np.savez(tmp_path / "float.npz", images=np.zeros((30, 28, 28), np.float32))
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04\x95 not a generator")
    places = {
        "REAL": real,
        "FAKE": fake,
        "SMALL": tmp_path / "small.npz",
        "COLOR": tmp_path / "color.npz",
        "FLOAT": tmp_path / "float.npz",
        "PICKLE": tmp_path / "x.safetensors",
    }
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed.splitlines()[-1]
    assert "Traceback" not in printed


def test_files_that_cannot_be_read_are_skipped_on_request(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "generated"
    folder.mkdir()
    for index, pixels in enumerate(np.load(real)["train_images"][:40]):
        assert cv2.imwrite(str(folder / f"{index}.png"), pixels)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    arguments = ("--real", real, "--fake", folder, "--num-images", "30")
    assert run(*arguments) == 2
    assert "1 of 41 files in" in capsys.readouterr().err
    assert run(*arguments, "--on-bad-image", "skip") == 0
    assert "skipped: 1 file that cannot be used: broken.png (" in capsys.readouterr().err
