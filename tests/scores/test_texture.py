"""The encoders of texture: known features of known images, and the order of changed images."""

from __future__ import annotations

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungan import score
from lungan.data.images import ImageSet
from lungan.errors import DataError
from lungan.scores import encoders, texture
from lungan.scores.distances import frechet_distance
from lungan.scores.encoders import Encoder
from tests.scores.test_encoders import score_config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import changed_films  # noqa: E402

CPU = torch.device("cpu")
NAMES = ("spectrum", "contrast")


def films(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Noise whose power falls with frequency as a photograph's does, bright to one side."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    noise = np.fft.fft2(rng.normal(size=(count, size, size))) / np.maximum(radius, 1 / size)
    images = np.fft.ifft2(noise).real
    images *= 30 * rng.lognormal(0, 0.1, (count, 1, 1)) / images.std(axis=(1, 2), keepdims=True)
    images += rng.normal(0, 40, (count, 1, 1)) * np.linspace(-1, 1, size)
    return np.rint(images + 128).clip(0, 255).astype(np.uint8)[:, None]


def build(name: str, size: int) -> Encoder:
    images = films(2, size, 0)
    labels = np.zeros(2, dtype=np.int64)
    image_set = ImageSet(
        images=images,
        labels=labels,
        splits=labels,
        class_names=("all",),
        split_names=("train",),
        source="made here",
    )
    return encoders.build(name, score_config(), image_set, CPU)


@pytest.mark.parametrize("name", NAMES)
def test_changes_rank_by_their_strength(name: str) -> None:
    encoder = build(name, 64)
    real, unseen = films(200, 64, 1), films(200, 64, 2)
    reference = encoder.encode(real, 64).features
    distance = {
        change: frechet_distance(reference, encoder.encode(changed(unseen), 64).features)
        for change, changed in changed_films.CHANGES.items()
    }
    for order in (
        ("unchanged", "blur 0.4", "blur 0.7", "blur 1", "blur 2"),
        ("unchanged", "median 3", "median 5"),
        ("unchanged", "JPEG 30", "JPEG 10"),
        ("unchanged", "mixed halves"),
    ):
        for less, more in pairwise(order):
            assert distance[more] > distance[less], (less, more)


def test_a_wave_has_its_power_in_its_own_ring() -> None:
    encoder = build("spectrum", 64)
    assert encoder.feature_dim == 33
    across = np.arange(64)
    for cycles in (8, 16, 30):
        wave = np.rint(128 + 100 * np.sin(2 * np.pi * cycles * across / 64))
        image = np.broadcast_to(wave, (1, 1, 64, 64)).astype(np.uint8)
        found = encoder.encode(image, 1).features[0]
        assert abs(int(found.argmax()) - (cycles - 1)) <= 1
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2 * 200
    found = encoder.encode(checkerboard[None, None].astype(np.uint8), 1).features[0]
    assert found.argmax() == 32, "beyond Nyquist's frequency along the axes"


def test_contrast_is_the_logarithm_of_the_deviation() -> None:
    encoder = build("contrast", 64)
    noise = np.random.default_rng(0).normal(128, 20, (1, 1, 64, 64)).round()
    weak, strong = (
        encoder.encode((128 + (noise - 128) * factor).clip(0, 255).astype(np.uint8), 1).features
        for factor in (0.5, 1.0)
    )
    assert weak.shape == (1, 32)
    assert np.allclose(strong - weak, np.log(2), atol=0.05)
    assert np.allclose(strong[:, 16:], np.log(20), atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_flat_and_colored_images_have_finite_features(name: str) -> None:
    encoder = build(name, 28)
    flat = np.full((2, 3, 28, 28), 255, dtype=np.uint8)
    encoded = encoder.encode(flat, 2)
    assert encoded.features.shape == (2, encoder.feature_dim)
    assert encoded.logits.shape == (2, 0)
    assert np.allclose(encoded.features[0], encoded.features[0, 0], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_small_images_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} needs images of at least 16 pixels a side, got 8"):
        build(name, 8)


def test_two_encoders_and_versions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build("spectrum", 28).weights_hash
    assert before != build("contrast", 28).weights_hash
    monkeypatch.setattr(texture, "VERSION", texture.VERSION + 1)
    assert before != build("spectrum", 28).weights_hash


def test_the_command_sees_blur_that_it_lets_pass_in_unchanged_films(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    real, unseen = films(200, 32, 1), films(100, 32, 2)
    np.savez(tmp_path / "real.npz", images=real[:, 0])
    for name, images in (("sharp", unseen), ("soft", changed_films.blurred(unseen, 0.7))):
        np.savez(tmp_path / f"{name}.npz", images=images[:, 0])
        paths = ("--real", tmp_path / "real.npz", "--fake", tmp_path / f"{name}.npz")
        to = ("--encoders", ",".join(NAMES), "--score", "fast", "--json", tmp_path / f"{name}.json")
        assert score.main([*map(str, (*paths, *to)), "--device", "cpu"]) == 0
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("sharp", "soft")]
    sharp, soft = (result["values"] for result in results)
    key = "spectrum.frechet_distance"
    assert sharp[key] < sharp[f"{key}.floor_high"] < soft[key]
    assert soft["spectrum.coverage"] < 0.1 < sharp["spectrum.coverage"]
    key = "contrast.frechet_distance"
    assert sharp[key] < soft[key]
    spectra = [result["encoders"]["spectrum"]["spectra"] for result in results]
    assert "spectra" not in results[0]["encoders"]["contrast"]
    assert all(len(curve) == 16 for one in spectra for curve in one.values())
    within, below = (np.array(one["generated_mean"][-1]) for one in spectra)
    assert spectra[0]["real_low"][-1] < within < spectra[0]["real_high"][-1]
    assert below < spectra[1]["real_low"][-1], "blur takes the highest frequencies"


def test_real_films_of_the_committed_table_rank_as_they_were_changed() -> None:
    with (ROOT / "results/texture/nih_chest_64.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    rows = {row["change"]: row for row in table if row["encoder"] == "spectrum"}
    assert list(rows) == list(changed_films.CHANGES)
    for change, row in rows.items():
        inside = float(row["frechet_distance"]) <= float(row["floor_high"])
        assert inside == (change == "unchanged"), change
