"""EfficientNet-Lite2 on real photographs, which shows that the whole path sees what is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lungan.errors import WeightsError
from lungan.scores import imagenet
from lungan.scores.distances import inception_score
from lungan.scores.encoders import Encoder
from lungan.scores.weights import find_efficientnet

try:
    WEIGHTS = find_efficientnet()
except WeightsError:
    pytest.skip("needs lungan[efficientnet]", allow_module_level=True)

data = pytest.importorskip("skimage.data")
datasets = pytest.importorskip("sklearn.datasets")

CPU = torch.device("cpu")
CATS = range(281, 286)
ESPRESSO, TRIPOD, PALACE = 967, 872, 698


def cut_square(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square as (3, 260, 260), red first."""
    pixels = np.atleast_3d(photograph)[..., :3]
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(pixels[top : top + side, left : left + side].copy()).permute(2, 0, 1)
    small = torch.nn.functional.interpolate(square[None].float(), size=260, mode="area")[0]
    return small.round().to(torch.uint8).expand(3, -1, -1).numpy()


@pytest.fixture(scope="module")
def photographs() -> NDArray[np.uint8]:
    china, flower = datasets.load_sample_images().images
    names = ("chelsea", "coffee", "camera", "rocket", "astronaut", "brick")
    return np.stack(
        [cut_square(one) for one in (china, flower, *(getattr(data, n)() for n in names))]
    )


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return imagenet.load_efficientnet(*WEIGHTS, CPU)


def test_photographs_are_what_they_show(encoder: Encoder, photographs: NDArray[np.uint8]) -> None:
    encoded = encoder.encode(photographs, batch_size=8)
    assert encoded.features.shape == (8, 1280)
    classes = encoded.logits.argmax(axis=1).tolist()
    assert classes[0] == PALACE
    assert classes[2] in CATS
    assert classes[3] == ESPRESSO
    assert classes[4] == TRIPOD
    varied = inception_score(encoded.logits, 1)[0]
    repeated = inception_score(np.repeat(encoded.logits[2:3], 8, axis=0), 1)[0]
    assert repeated == pytest.approx(1, abs=1e-9)
    assert varied > 3

    swapped = encoder.encode(photographs[2:4, ::-1].copy(), batch_size=2)
    assert (peaks(swapped.logits) < peaks(encoded.logits[2:4])).all(), "red comes first"


def peaks(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    probabilities: NDArray[np.float32] = torch.from_numpy(logits).softmax(dim=1).amax(dim=1).numpy()
    return probabilities


def test_folding_changes_nothing(encoder: Encoder, photographs: NDArray[np.uint8]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite2")
    network.load_state_dict(torch.load(WEIGHTS[0], weights_only=True))
    images = torch.from_numpy(photographs[2:3])
    with torch.inference_mode():
        expected = network.eval()(imagenet.for_efficientnet(images))
        _, logits = encoder.network(images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_the_file_is_the_published_one(encoder: Encoder) -> None:
    assert encoder.weights_hash.startswith("9656183e")
    assert encoder.notes[0] == "EfficientNet-Lite2, compares with itself only"
