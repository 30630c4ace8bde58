"""InceptionV3 against torchvision's own on the same random weights, and where weights come from."""

from __future__ import annotations

import hashlib
import io
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from lungan.classifiers.vision import torchvision
from lungan.device import native_dtype
from lungan.errors import WeightsError
from lungan.scores import imagenet
from lungan.scores import weights as weights_files
from lungan.scores.distances import frechet_distance, inception_score
from lungan.scores.encoders import Encoder
from lungan.scores.weights import INCEPTION_FILE, find_inception

Weights = tuple[Path, str]

CPU = torch.device("cpu")


def smooth_images(num_images: int, channels: int, size: int, seed: int) -> NDArray[np.uint8]:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, channels, 5, 5, generator=rng) * 255
    fine = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return fine.clamp(0, 255).to(torch.uint8).numpy()


def draw_network() -> nn.Module:
    """Random weights that keep activations near unit scale and spread logits by about 1."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = torchvision.models.inception_v3(
            weights=None, aux_logits=True, transform_input=True, init_weights=False
        )
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
        nn.init.normal_(network.fc.weight, std=0.03)
    return network.eval().requires_grad_(False)


def normalized(images: NDArray[np.uint8]) -> torch.Tensor:
    """The steps that ``preprocess`` folds, one by one: [0, 1], resize, ImageNet's statistics."""
    unit = torch.from_numpy(images).expand(-1, 3, -1, -1).float() / 255
    resized = F.interpolate(unit, size=(299, 299), mode="bilinear", antialias=True)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (resized - mean) / deviation


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return draw_network()


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return find_inception(str(path))


@pytest.fixture(scope="module")
def encoder(weights: Weights) -> Encoder:
    return imagenet.load_inception(*weights, CPU, native_dtype(CPU))


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 28), (3, 350)])
def test_logits_equal_torchvisions_in_fp32(
    network: nn.Module, weights: Weights, channels: int, size: int
) -> None:
    images = smooth_images(2, channels, size, seed=1)
    folded = imagenet.load_inception(*weights, CPU, torch.float32).network
    with torch.inference_mode():
        expected = network(normalized(images))
        features, logits = folded(torch.from_numpy(images))
    assert 0.3 < expected.std() < 6
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        network.fc(features), expected, rtol=0, atol=1e-4, msg="features are the classifier's input"
    )


def test_native_precision_stays_near_fp32(network: nn.Module, encoder: Encoder) -> None:
    images = smooth_images(4, 1, 28, seed=2)
    with torch.inference_mode():
        expected = network(normalized(images)).numpy()
    encoded = encoder.encode(images, batch_size=4)
    assert encoded.features.shape == (4, 2048)
    assert encoded.logits.shape == (4, 1000)
    assert encoded.features.dtype == encoded.logits.dtype == np.float32
    difference = np.sqrt(np.mean((encoded.logits - expected) ** 2))
    assert difference < 0.02 * expected.std()
    if native_dtype(CPU) == torch.bfloat16:
        assert difference > 0
        assert "computed in bf16" in encoder.notes


def test_batches_change_nothing_but_rounding(encoder: Encoder) -> None:
    images = smooth_images(3, 1, 28, seed=3)
    by_two = encoder.encode(images, 2)
    at_once = encoder.encode(torch.from_numpy(images), 3)
    np.testing.assert_allclose(by_two.features, at_once.features, atol=0.02)


def test_notes_say_that_weights_are_not_torchvisions(encoder: Encoder) -> None:
    assert encoder.weights_hash[:8] in encoder.notes[-1]
    assert "not torchvision's 0cc3c7bd" in encoder.notes[-1]


class TestWrongFiles:
    def load(self, path: Path) -> None:
        imagenet.load_inception(*find_inception(str(path)), CPU, torch.float32)

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"inception_weights must be a file.*not exist"):
            self.load(tmp_path / "no.pth")

    def test_another_networks(self, tmp_path: Path) -> None:
        torch.save({"fc.bias": torch.zeros(1000)}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"lacks the tensor Conv2d_1a_3x3\.bn\.bias; give"):
            self.load(tmp_path / "w.pth")

    def test_hash_other_than_the_name_says(self, tmp_path: Path) -> None:
        torch.save({"fc.bias": torch.zeros(1000)}, tmp_path / INCEPTION_FILE)
        with pytest.raises(WeightsError, match=r"SHA-256 that its name begins \(0cc3c7bd\), got"):
            self.load(tmp_path / INCEPTION_FILE)


class Server:
    """Stands for ``urlopen``: answers every call with this content, or fails."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content
        self.num_calls = 0

    def __call__(self, request: urllib.request.Request) -> Server:
        assert request.full_url.endswith(INCEPTION_FILE)
        timeout = socket.getdefaulttimeout()
        assert timeout is not None and timeout <= 10
        self.num_calls += 1
        if self.content is None:
            raise urllib.error.URLError("Name or service not known")
        self.stream = io.BytesIO(self.content)
        return self

    def info(self) -> Message:
        return Message()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, num_bytes: int) -> bytes:
        return self.stream.read(num_bytes)


class TestDownload:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        weights_files._download.cache_clear()
        yield tmp_path / "checkpoints" / INCEPTION_FILE
        weights_files._download.cache_clear()

    def test_without_network_it_is_tried_once_and_says_the_way_out(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = Server(None)
        monkeypatch.setattr(torch.hub, "urlopen", server)
        monkeypatch.setenv("HOME", str(hub.parents[1]))
        for _ in range(3):
            with pytest.raises(WeightsError) as raised:
                find_inception(None)
        message = str(raised.value)
        assert "Name or service not known" in message and "\n" not in message
        assert (
            f"put {INCEPTION_FILE} into ~/checkpoints or set score.inception_weights=PATH"
            in message
        )
        assert server.num_calls == 1

    def test_a_file_with_another_hash_is_not_kept(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.hub, "urlopen", Server(b"a login page"))
        with pytest.raises(WeightsError, match="invalid hash value"):
            find_inception(None)
        assert list(hub.parent.iterdir()) == []

    def test_the_right_file_is_kept_and_found_again(
        self, hub: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = b"weights" * 300_000
        digest = hashlib.sha256(content).hexdigest()
        server = Server(content)
        monkeypatch.setattr(torch.hub, "urlopen", server)
        monkeypatch.setattr(weights_files, "INCEPTION_HASH", digest[:8])
        monkeypatch.setattr(weights_files, "checked_hash", lambda _: digest)
        assert find_inception(None) == find_inception(None) == (hub, digest)
        assert hub.read_bytes() == content
        assert server.num_calls == 1

    def test_a_damaged_file_in_torch_hubs_cache_is_refused(self, hub: Path) -> None:
        hub.parent.mkdir()
        hub.write_bytes(b"cut short")
        with pytest.raises(WeightsError, match="delete it and get it again"):
            find_inception(None)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_precision_and_folding_barely_move_the_scores(real_data_path: Path, tmp_path: Path) -> None:
    """On real radiographs of either class, with random weights."""
    with np.load(real_data_path) as arrays:
        labels = arrays["test_labels"][:, 0]
        images = arrays["test_images"][:, None]
    normal, pneumonia = images[labels == 0][:96], images[labels == 1][:96]
    network = draw_network()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    weights = find_inception(str(tmp_path / "w.pth"))
    encoder = imagenet.load_inception(*weights, CPU, native_dtype(CPU))

    def torchvisions(batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        kept: list[torch.Tensor] = []
        hook = network.fc.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        with torch.inference_mode():
            logits = torch.cat([network(normalized(part)) for part in np.split(batch, 12)])
        hook.remove()
        return torch.cat(kept).numpy(), logits.numpy()

    expected = [torchvisions(normal), torchvisions(pneumonia)]
    found = [encoder.encode(normal, 16), encoder.encode(pneumonia, 16)]
    frechet = [
        frechet_distance(expected[0][0], expected[1][0]),
        frechet_distance(found[0].features, found[1].features),
    ]
    scores = [
        inception_score(np.concatenate([expected[0][1], expected[1][1]]), 1)[0],
        inception_score(np.concatenate([found[0].logits, found[1].logits]), 1)[0],
    ]
    print(f"Fréchet distance {frechet}, Inception Score {scores}")
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)
    assert frechet[1] == pytest.approx(frechet[0], rel=5e-3)
