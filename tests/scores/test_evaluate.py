from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lungan.config import ScoreConfig, presets
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, DataError
from lungan.scores.distances import frechet_distance, inception_score
from lungan.scores.encoders import Encoded
from lungan.scores.evaluate import num_images_a_side, score_images, scoring_id


class ProjectionEncoder:
    """Six random projections of the pixels as features, three as logits; counts its images."""

    name = "domain"
    weights_hash = "ab" * 32
    feature_dim = 6
    num_classes = 3
    notes = ("a random projection",)

    def __init__(self) -> None:
        self.num_encoded = 0

    def encode(self, images: Any, batch_size: int) -> Encoded:  # noqa: ARG002
        self.num_encoded += len(images)
        weights = np.random.default_rng(0).normal(size=(images[0].size, 9)) / 255
        output = (images.reshape(len(images), -1) @ weights).astype(np.float32)
        return Encoded(output[:, :6], output[:, 6:])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def config() -> ScoreConfig:
    standard: ScoreConfig = presets.load("score", "standard")
    return dataclasses.replace(
        standard, encoders=["domain"], kernel_subsets=2, floor_splits=2, inception_splits=2
    )


def draw(count: int, seed: int, mean: float = 120.0) -> np.ndarray:
    pixels = np.random.default_rng(seed).normal(mean, 30, (count, 1, 8, 8))
    return pixels.clip(0, 255).round().astype(np.uint8)


def make_set(images: np.ndarray, test: int = 60) -> ImageSet:
    """Two classes in turn; the last ``test`` images are the test split."""
    count = len(images)
    return ImageSet(
        images=images,
        labels=np.arange(count, dtype=np.int64) % 2,
        splits=(np.arange(count) >= count - test).astype(np.int64),
        class_names=("normal", "pneumonia"),
        split_names=("train", "test"),
        source="noise",
    )


IMAGES = make_set(draw(360, 0), test=120)


def score(
    generated: np.ndarray | torch.Tensor,
    config: ScoreConfig,
    images: ImageSet = IMAGES,
    **options: Any,
) -> dict[str, Any]:
    given: dict[str, Any] = {"splits": ["train"], "classes": [], "encoders": [ProjectionEncoder()]}
    return score_images(generated, images, config=config, **(given | options))


@pytest.mark.parametrize(("num_images", "is_said"), [(6, True), (7, False)])
def test_covariances_without_full_rank_are_said(
    num_images: int, is_said: bool, config: ScoreConfig
) -> None:
    result = score(draw(num_images, 1), config)
    said = "domain: N = 6 is at most the feature dimension 6, so covariances lack full rank"
    assert any(note.startswith(said) for note in result["notes"]) == is_said


def test_an_entry_is_plain_and_whole(config: ScoreConfig) -> None:
    result = score(draw(120, 1), config, epoch=7)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["num_images"] == 120
    assert result["epoch"] == 7
    assert result["reference"] == {
        "splits": ["train"],
        "classes": ["normal", "pneumonia"],
        "num_images": 240,
        "content_hash": IMAGES.select(["train"], []).content_hash,
    }
    assert result["held_out"] == {"splits": ["test"], "num_images": 120}
    assert result["encoders"]["domain"] == {
        "weights_hash": "ab" * 32,
        "feature_dim": 6,
        "num_classes": 3,
        "notes": ["a random projection"],
    }
    assert result["reasons"] == {}
    assert "N = 120 images on each side of every score and floor" in result["notes"]
    distances = ["frechet_distance", "kernel_distance", "precision", "recall", "density"]
    memorization = ["distance_ratio", "share", "c_t"]
    scores = [*distances, "coverage", "authenticity", *(f"memorization_{m}" for m in memorization)]
    spreads = ("", "_low", "_high", "_std")
    floors = ("", ".floor_shared", *(f".floor{spread}" for spread in spreads))
    expected = {f"domain.{key}{end}" for key in scores for end in floors}
    ends = ("", ".std", *(f".real{spread}" for spread in spreads))
    expected |= {f"domain.inception_score{end}" for end in ends}
    expected |= {f"pixels.near_copies{end}" for end in floors}
    assert set(result["values"]) == expected | {"domain.kernel_distance.std"}
    assert result["encoders"]["pixels"]["num_classes"] == 0


def test_images_on_a_device_go_to_the_encoder_as_they_are(config: ScoreConfig) -> None:
    class Watching(ProjectionEncoder):
        num_tensors = 0

        def encode(self, images: Any, *given: Any) -> Encoded:
            self.num_tensors += isinstance(images, torch.Tensor) and len(images)
            return super().encode(np.asarray(images), *given)

    generated = draw(130, 1)
    wanted = score(generated, config)
    encoder = Watching()
    found = score(torch.from_numpy(generated), config, encoders=[encoder])
    assert found | {"seconds": 0} == wanted | {"seconds": 0}
    assert encoder.num_tensors == 120


def test_more_of_the_same_distribution_scores_as_its_floor(config: ScoreConfig) -> None:
    values = score(draw(120, 1), config)["values"]
    for key in ("precision", "recall", "density", "coverage", "authenticity"):
        assert values[f"domain.{key}"] == pytest.approx(values[f"domain.{key}.floor"], abs=0.15)
    assert 0.4 < values["domain.frechet_distance"] / values["domain.frechet_distance.floor"] < 2.5
    assert values["domain.memorization_distance_ratio"] == pytest.approx(1, abs=0.25)
    assert values["domain.inception_score"] == pytest.approx(
        values["domain.inception_score.real"], rel=0.05
    )


def test_another_distribution_scores_far_above_its_floor(config: ScoreConfig) -> None:
    values = score(draw(120, 1, mean=60), config)["values"]
    assert values["domain.frechet_distance"] > 5 * values["domain.frechet_distance.floor"]
    assert values["domain.coverage"] < values["domain.coverage.floor"] - 0.1


def test_copies_of_training_images_are_seen(config: ScoreConfig) -> None:
    values = score(IMAGES.images[:120], config)["values"]
    assert values["domain.memorization_distance_ratio"] == 0
    assert values["domain.memorization_share"] == 1
    assert values["domain.authenticity"] == 0
    assert values["domain.memorization_c_t"] < -5 < values["domain.memorization_c_t.floor_low"]


def test_values_are_those_of_the_functions(config: ScoreConfig) -> None:
    generated = draw(120, 1)
    encoder = ProjectionEncoder()
    made = encoder.encode(generated, 1000)
    config = dataclasses.replace(config, inception_splits=1)
    values = score(generated, config)["values"]
    expected = inception_score(made.logits, 1)[0]
    assert values["domain.inception_score"] == pytest.approx(expected, rel=1e-9)
    # Which half of the reference is compared with follows from the seed.
    reference = encoder.encode(IMAGES.select(["train"], []).images, 1000).features
    half = np.random.default_rng([config.seed, 240, 120]).permutation(240)
    assert values["domain.frechet_distance"] == pytest.approx(
        frechet_distance(reference[half[:120]], made.features), rel=1e-9
    )


@pytest.mark.parametrize("given", [40, 90, 500])
def test_both_sides_and_the_floor_have_the_same_number(config: ScoreConfig, given: int) -> None:
    result = score(draw(given, 1), dataclasses.replace(config, num_images=90))
    assert result["num_images"] == min(given, 90)
    encoder = ProjectionEncoder()
    score(draw(given, 1), dataclasses.replace(config, num_images=90), encoders=[encoder])
    assert encoder.num_encoded == min(given, 90)  # the real side came from the cache


def test_no_more_than_half_of_the_reference(config: ScoreConfig) -> None:
    assert num_images_a_side(240, config) == 120
    assert num_images_a_side(241, dataclasses.replace(config, num_images=100)) == 100
    result = score(draw(500, 1), dataclasses.replace(config, num_images=200))
    assert result["num_images"] == 120
    assert any("score.num_images=200 was reduced to 120" in note for note in result["notes"])
    with pytest.raises(DataError, match="at least 4 real images, got 3"):
        num_images_a_side(3, config)


def test_order_of_generated_images_changes_no_score_of_all_of_them(config: ScoreConfig) -> None:
    config = dataclasses.replace(config, inception_splits=1)
    generated = draw(120, 1)
    plain, turned = (score(one, config)["values"] for one in (generated, generated[::-1]))
    for key in ("frechet_distance", "precision", "coverage", "memorization_c_t", "inception_score"):
        assert turned[f"domain.{key}"] == pytest.approx(plain[f"domain.{key}"], rel=1e-9)


def test_the_cache_changes_nothing_and_saves_the_real_side(
    config: ScoreConfig, cache: Path
) -> None:
    encoder = ProjectionEncoder()
    first = score(draw(120, 1), config, encoders=[encoder])
    assert encoder.num_encoded == 240 + 120 + 120
    second = score(draw(120, 1), config, encoders=[encoder])
    assert encoder.num_encoded == 240 + 120 + 120 + 120
    assert second["values"] == first["values"]
    for path in (*cache.glob("features/*.npz"), *cache.glob("floors/*.json")):
        path.write_bytes(b"damaged")
    assert score(draw(120, 1), config)["values"] == first["values"]


def test_a_cache_that_cannot_be_written_only_warns(
    config: ScoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LUNGAN_CACHE", str(tmp_path / "file" / "below"))
    assert score(draw(40, 1), config)["reasons"] == {}
    assert "is not cached (set LUNGAN_CACHE to a writable folder)" in caplog.text


def test_another_encoder_or_data_set_does_not_get_cached_numbers(config: ScoreConfig) -> None:
    first = score(draw(120, 1), config)["values"]
    other = ProjectionEncoder()
    other.weights_hash = "cd" * 32
    score(draw(120, 1), config, encoders=[other])
    assert other.num_encoded == 240 + 120 + 120
    moved = score(draw(120, 1), config, make_set(draw(360, 9), test=120))["values"]
    assert moved["domain.frechet_distance.floor"] != first["domain.frechet_distance.floor"]


def test_without_held_out_images_only_authenticity_remains(config: ScoreConfig) -> None:
    result = score(draw(120, 1), config, splits=[])
    assert result["held_out"] == {"splits": [], "num_images": 0}
    assert result["values"]["domain.memorization_c_t"] is None
    for key in ("domain.memorization_c_t", "pixels.near_copies"):
        assert result["reasons"][key] == (
            "no real images were held out from training to compare with"
        )
    assert 0 < result["values"]["domain.authenticity"] < 1
    assert result["values"]["domain.authenticity.floor"] is None
    assert any(note.startswith("memorization: no held-out images") for note in result["notes"])


def test_duplicates_are_counted_and_left_out_of_memorization(config: ScoreConfig) -> None:
    images = draw(300, 0)
    images[10:20] = images[20:30]  # within training
    images[295:] = images[:5]  # a training image in the test split
    result = score(draw(120, 1), config, make_set(images))
    notes = " ".join(result["notes"])
    assert "10 of 240 training images repeat another one exactly" in notes
    assert "5 held-out images repeat a training image" in notes
    assert result["held_out"]["num_images"] == 55
    copies = score(images[10:30], config, make_set(images))["values"]
    assert copies["domain.authenticity"] == 0  # a copied duplicate is a copy as well


def test_held_out_images_are_of_other_patients(config: ScoreConfig) -> None:
    image_set = make_set(draw(160, 1))
    groups = np.arange(160) // 2
    groups[[100, 101, 150]] = 3  # who was trained on
    grouped = dataclasses.replace(image_set, groups=groups, group_names=tuple(map(str, range(80))))
    result = score(draw(50, 2), config, grouped)
    assert result["held_out"]["num_images"] == 57
    assert any(note.startswith("3 images of other splits are of") for note in result["notes"])


def test_held_out_images_are_of_the_same_classes(config: ScoreConfig) -> None:
    result = score(draw(60, 1), config, classes=["pneumonia"])
    assert result["held_out"]["num_images"] == 60
    assert result["reference"]["num_images"] == 120
    assert any("holds one class (pneumonia)" in note for note in result["notes"])


def test_fewer_images_than_splits_and_neighbors_leave_reasons(config: ScoreConfig) -> None:
    config = dataclasses.replace(config, inception_splits=10, nearest_k=9, extrapolate=True)
    result = score(draw(8, 1), config)
    values, reasons = result["values"], result["reasons"]
    assert values["domain.inception_score"] is None
    assert reasons["domain.inception_score"] == (
        "Inception Score needs at least one image a split: 8 for 10; give more images, or fewer "
        "score.inception_splits"
    )
    assert values["domain.precision"] is None
    assert "k must be from 1 to the number of images - 1 (7), got 9" in reasons["domain.precision"]
    assert values["domain.precision.floor"] is None
    assert "needs at least 36 images" in reasons["domain.frechet_distance_infinity.floor"]
    assert values["domain.frechet_distance"] > 0
    assert {key for key, value in values.items() if value is None} == set(reasons)


def test_too_few_images_for_full_rank_are_noted(config: ScoreConfig) -> None:
    result = score(draw(6, 1), config)
    assert any("at most the feature dimension 6" in note for note in result["notes"])
    assert not any("feature dimension" in note for note in score(draw(7, 1), config)["notes"])


def test_constant_and_repeated_images_are_noted(config: ScoreConfig) -> None:
    black = np.zeros((60, 1, 8, 8), dtype=np.uint8)
    result = score(black, config)
    assert "all generated images are the same image" in result["notes"]
    assert "every generated image is of one constant level" in result["notes"]
    assert result["values"]["domain.inception_score"] == pytest.approx(1, abs=1e-9)
    assert result["values"]["domain.coverage"] < 0.2
    repeated = np.concatenate([draw(50, 1), draw(10, 1)])
    assert "10 generated images repeat another one exactly" in score(repeated, config)["notes"]


def test_a_constant_real_set_gives_reasons_not_numbers(config: ScoreConfig) -> None:
    images = make_set(np.full((300, 1, 8, 8), 9, dtype=np.uint8))
    result = score(draw(60, 1), config, images)
    assert result["values"]["domain.frechet_distance.floor"] == pytest.approx(0, abs=1e-9)
    assert "all training images are the same" in result["reasons"]["domain.authenticity"]


def test_an_encoder_that_cannot_be_had_is_recorded(config: ScoreConfig) -> None:
    result = score(draw(60, 1), config, reasons={"inception": "no weights"})
    assert result["values"]["inception.inception_score"] is None
    assert result["reasons"]["inception"] == "no weights"


def test_the_closest_pairs_are_shown(config: ScoreConfig) -> None:
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    generated = draw(60, 1)
    generated[13] = IMAGES.images[4]
    score(generated, config, on_pairs=lambda name, *images: pairs.update({name: images}))
    assert set(pairs) == {"domain", "pixels"}
    for made, training in pairs.values():
        assert made.shape == training.shape == (16, 1, 8, 8)
        np.testing.assert_array_equal(made[0], generated[13])
        np.testing.assert_array_equal(training[0], generated[13])


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (
            draw(5, 1)[:, :, :7, :7],
            r"real are 8x8 grey \(1 channel\), generated 7x7 grey .*; --size 16 resizes both",
        ),
        (
            np.repeat(draw(5, 1), 3, axis=1),
            r"generated 8x8 in colour \(3 channels\); --channels 1 makes both grey",
        ),
        (draw(1, 1), "at least 2 generated images, got 1"),
    ],
)
def test_unfit_generated_images_are_refused(
    config: ScoreConfig, generated: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(generated, config)


def test_unknown_classes_are_refused(config: ScoreConfig) -> None:
    with pytest.raises(ConfigError, match=r"data.classes must be among normal, pneumonia, got x"):
        score(draw(5, 1), config, classes=["x"])


def test_the_scoring_id_is_of_what_shapes_the_result(config: ScoreConfig) -> None:
    def name(config: ScoreConfig = config, **changes: Any) -> str:
        given = {"domain": "ab"}
        values: dict[str, Any] = {"num_images": 9, "epoch": None, "reference_hash": "r"}
        values |= changes
        return scoring_id(config, values.pop("weights_hashes", given), **values)

    assert len(name()) == 64
    for key, value in (("batch_size", 7), ("every_epochs", 3), ("inception_weights", "x")):
        assert name(dataclasses.replace(config, **{key: value})) == name()
    for key, value in (("seed", 7), ("nearest_k", 3), ("extrapolate", True)):
        assert name(dataclasses.replace(config, **{key: value})) != name()
    for change in (
        {"num_images": 8},
        {"epoch": 5},
        {"reference_hash": "s"},
        {"weights_hashes": {"domain": "cd"}},
    ):
        assert name(**change) != name()


def test_the_limit_of_an_inception_score_of_few_images_is_said(config: ScoreConfig) -> None:
    few = score(draw(40, 1), dataclasses.replace(config, inception_splits=10))
    said = "inception_score is a mean over 10 parts of 4 images, and a part cannot score above 4"
    assert any(said in note for note in few["notes"])
    assert not any("parts of" in note for note in score(draw(120, 1), config)["notes"])
