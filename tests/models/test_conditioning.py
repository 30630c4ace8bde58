"""Class-conditional networks of both families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lungan.config import presets
from lungan.errors import ConfigError, WeightsError
from lungan.models.build import Classes, build_discriminator, build_generator
from lungan.models.layers import BatchNorm, ClassProjection
from lungan.models.sampling import sample_images
from lungan.models.saving import load_generator, serialize_generator

CLASSES = Classes(("normal", "pneumonia"), (0.25, 0.75))
CPU = torch.device("cpu")


def conditional_generator(name: str) -> nn.Module:
    config = presets.load("generator", name)
    config.width, config.conditional = 8, True
    generator = build_generator(config, 28, 1, classes=CLASSES)
    with torch.no_grad():  # as trained: classes differ
        for parameter_name, parameter in generator.named_parameters():
            if "shifts" in parameter_name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return generator


def test_batch_norm_with_a_gain_and_shift_of_each_class() -> None:
    norm = BatchNorm(3, 0.1, 1e-5, 2)
    features, labels = torch.randn(6, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1, 0])
    plain = torch.nn.functional.batch_norm(features, None, None, training=True)
    torch.testing.assert_close(norm(features, labels), plain)
    with torch.no_grad():
        norm.gains[1] = 0.5
        norm.shifts[1] = torch.tensor([1.0, 2.0, 3.0])
    changed = norm(features, labels)
    torch.testing.assert_close(changed[labels == 0], plain[labels == 0])
    shift = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.testing.assert_close(changed[labels == 1], 1.5 * plain[labels == 1] + shift)


def test_projection_is_the_inner_product_with_the_class() -> None:
    projection = ClassProjection(3, 2, torch.Generator())
    with torch.no_grad():
        projection.weight.copy_(torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 0.0]]))
    features = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert projection(features, torch.tensor([0, 1])).tolist() == [7, -5]


@pytest.mark.parametrize("name", ["dcgan", "fastgan", "resnet"])
def test_labels_change_images_and_logits(name: str) -> None:
    generator = conditional_generator(name).eval()
    config = presets.load("discriminator", name)
    config.width = 8
    discriminator = build_discriminator(config, 28, 1, classes=CLASSES)
    latents, zero, one = torch.randn(4, 100), torch.zeros(4).long(), torch.ones(4).long()
    images = generator(latents, zero)
    assert not torch.allclose(images, generator(latents, one))
    assert not torch.allclose(discriminator(images, None, zero), discriminator(images, None, one))


@pytest.mark.parametrize("name", ["dcgan", "fastgan", "resnet"])
def test_without_classes_the_weights_are_what_they_were(name: str) -> None:
    config = presets.load("generator", name)
    config.width = 8
    plain = build_generator(config, 28, 1)
    config.conditional = True
    conditional = dict(build_generator(config, 28, 1, classes=CLASSES).named_parameters())
    for parameter_name, parameter in plain.named_parameters():
        assert torch.equal(parameter, conditional[parameter_name])


def test_classes_travel_with_the_file(tmp_path: Path) -> None:
    generator = conditional_generator("resnet")
    config = presets.load("generator", "resnet")
    config.width, config.conditional = 8, True
    path = tmp_path / "generator.safetensors"
    path.write_bytes(serialize_generator(generator, config, image_size=28, channels=1))
    loaded = load_generator(path)
    assert loaded.classes == CLASSES
    labels = torch.tensor([0, 1])
    latents = torch.randn(2, 100)
    assert torch.equal(loaded(latents, labels), generator.eval()(latents, labels))


def test_a_conditional_file_without_classes_is_refused(tmp_path: Path) -> None:
    config = presets.load("generator", "dcgan")
    config.width, config.conditional = 8, True
    generator = conditional_generator("dcgan")
    generator.classes = None  # type: ignore[assignment]
    path = tmp_path / "generator.safetensors"
    path.write_bytes(serialize_generator(generator, config, image_size=28, channels=1))
    with pytest.raises(WeightsError, match="needs images of at least two classes, got none"):
        load_generator(path)


def test_samples_are_of_classes_by_their_shares() -> None:
    class Told(nn.Module):
        """An image of one pixel: white for class 1, black for class 0."""

        latent_dim = 2
        classes = CLASSES

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            assert len(latents) == len(labels)
            return self.scale * (labels * 2.0 - 1).view(-1, 1, 1, 1)

    drawn = sample_images(Told(), 400, 0, CPU).ravel()
    assert drawn.tolist() == [0] * 100 + [255] * 300


def test_one_class_is_refused() -> None:
    config = presets.load("generator", "dcgan")
    config.conditional = True
    for classes in (None, Classes(("pneumonia",), (1.0,))):
        with pytest.raises(
            ConfigError, match=r"generator\.conditional=true needs images of at least two classes"
        ):
            build_generator(config, 28, 1, classes=classes)
