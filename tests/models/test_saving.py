"""Generator files from strangers: whatever is in them, one line, and no code runs."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from lungan.config.training import LeakyGeneratorConfig
from lungan.errors import WeightsError
from lungan.models.build import build_generator
from lungan.models.saving import load_generator, serialize_generator

CONFIG = LeakyGeneratorConfig(
    name="dcgan",
    latent_dim=10,
    width=8,
    max_width=32,
    leaky_slope=0.3,
    batch_norm_momentum=0.01,
    batch_norm_epsilon=1e-3,
)

Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def content() -> bytes:
    generator = build_generator(CONFIG, 28, 1)
    return serialize_generator(generator, CONFIG, image_size=28, channels=1)


def description_of(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description: dict[str, Any] = json.loads(header["__metadata__"]["lungan"])
    return description


def refused(path: Path) -> str:
    """What load_generator says of the file, without its path."""
    with pytest.raises(WeightsError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ")
    return message.removeprefix(f"{path} ")


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_a_saved_generator_comes_back_the_same(size: int, channels: int, tmp_path: Path) -> None:
    generator = build_generator(CONFIG, size, channels)
    path = tmp_path / "generator.safetensors"
    path.write_bytes(serialize_generator(generator, CONFIG, image_size=size, channels=channels))
    loaded = load_generator(path)
    latents = torch.randn(4, 10)
    with torch.no_grad():
        assert torch.equal(loaded(latents), generator.eval()(latents))
    assert not loaded.training
    assert loaded.latent_dim == 10


def test_the_same_generator_is_the_same_bytes(content: bytes) -> None:
    generator = build_generator(CONFIG, 28, 1)
    assert serialize_generator(generator, CONFIG, image_size=28, channels=1) == content


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    reason = refused(tmp_path / "no.safetensors")
    assert reason == "does not exist; give a run's generator.safetensors"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"not safetensors",
        lambda content: content[: len(content) // 2],
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: struct.pack("<Q", 2**60) + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda _: safetensors.torch.save({"weight": torch.zeros(3)}),
        lambda _: safetensors.torch.save({"weight": torch.zeros(3)}, {"lungan": "no JSON"}),
    ],
    ids=[
        "empty",
        "text",
        "half",
        "header torn",
        "byte short",
        "byte long",
        "huge header",
        "no JSON header",
        "no metadata",
        "other metadata",
    ],
)
def test_what_is_no_generator_of_lungan(
    spoil: Callable[[bytes], bytes], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "generator.safetensors"
    path.write_bytes(spoil(content))
    assert refused(path).startswith("is not a generator saved by lungan: ")


def test_a_folder(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("is not a generator saved by lungan: ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda d: d.update(format="lungan-generator-9"),
            "format must be lungan-generator-1, got 'lungan-generator-9'",
        ),
        (lambda d: d.pop("format"), "it lacks format"),
        (lambda d: d.update(image_size=2**40), "image_size 1099511627776 with 1 channels .*"),
        (lambda d: d.update(image_size=True), "image_size must be a whole number, got bool"),
        (lambda d: d.update(image_size=28.0), "image_size must be a whole number, got float"),
        (lambda d: d.update(image_size="28"), "image_size must be a whole number, got '28'"),
        (lambda d: d.update(channels=7), "image_size 28 with 7 channels is out of range"),
        (lambda d: d.update(channels=[1]), "channels must be a whole number, got list"),
        (lambda d: d.update(image_size=30), "data.size must be 7 or 8 times .*, got 30"),
        (lambda d: d.update(image_size=64), "it lacks the tensor convolutions.2.weight"),
        (lambda d: d.pop("generator"), "it lacks generator"),
        (lambda d: d.update(generator=[]), "generator must be a mapping, got list"),
        (lambda d: d["generator"].update(name="os.system"), ".*one of .*, got os.system"),
        (lambda d: d["generator"].update(name=["dcgan"]), "generator.name must be text, got list"),
        (lambda d: d["generator"].update(width=12), "generator.width must be a multiple of 8.*"),
        (lambda d: d["generator"].update(width="8"), "generator.width must be a whole number, .*"),
        # Sizes of petabytes, of what no machine counts, and of too much for this one.
        (lambda d: d["generator"].update(width=2**40), ".+"),
        (lambda d: d["generator"].update(latent_dim=2**90), ".+"),
        (
            lambda d: d["generator"].update(width=2**16, max_width=2**16),
            r".+ must be \(\d+, .*\) float32, got \(.*\) float32",
        ),
        (
            lambda d: d["generator"].update(latent_dim=11),
            r"projection.weight must be \(1568, 11\) float32, got \(1568, 10\) float32",
        ),
        (
            lambda d: d["generator"].update(leaky_slope=float("nan")),
            "generator.leaky_slope must .*",
        ),
        (
            lambda d: d["generator"].update(code="x"),
            "generator.code is not a key; .*",
        ),
        (lambda d: d["generator"].pop("width"), "generator.width must be given, .*"),
        (
            lambda d: d.update(classes={"names": ["a", "b"], "shares": [0.5, float("nan")]}),
            "classes must be two different names or more, each with a finite share above 0",
        ),
        (
            lambda d: d.update(classes={"names": ["a", "b"], "shares": [1.0]}),
            "classes must be two different names or more, each with a finite share above 0",
        ),
        (lambda d: d.update(classes={"names": [3]}), r"it lacks classes\.shares"),
    ],
)
def test_a_description_that_is_not_the_weights(
    change: Change, reason: str, content: bytes, tmp_path: Path
) -> None:
    description = description_of(content)
    change(description)
    path = tmp_path / "generator.safetensors"
    tensors = safetensors.torch.load(content)
    path.write_bytes(safetensors.torch.save(tensors, {"lungan": json.dumps(description)}))
    began = time.perf_counter()
    message = refused(path)
    assert time.perf_counter() - began < 5
    way_out = "copy it from its run again, or train the run again"
    assert re.fullmatch(f"does not describe a generator: {reason}; {way_out}", message), message
    assert len(message) < 500


def test_a_description_nested_too_deep(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    metadata = {"lungan": "[" * 100_000}
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(content), metadata))
    assert refused(path).startswith("is not a generator saved by lungan: ")


@pytest.mark.parametrize(
    ("value", "got"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"text"', "'text'")]
)
def test_a_description_of_another_kind(
    value: str, got: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "generator.safetensors"
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(content), {"lungan": value}))
    complaint = f"does not describe a generator: it must be a mapping, got {got}; "
    assert refused(path).startswith(complaint)


@pytest.mark.parametrize("kind", ["one missing", "one more", "one of another shape", "integers"])
def test_weights_that_do_not_fit(kind: str, content: bytes, tmp_path: Path) -> None:
    tensors = safetensors.torch.load(content)
    name = next(name for name in tensors if tensors[name].ndim > 1)
    if kind == "one missing":
        del tensors[name]
    elif kind == "one more":
        tensors["extra"] = torch.zeros(1)
    elif kind == "one of another shape":
        tensors[name] = tensors[name][:-1].contiguous()
    else:
        tensors[name] = torch.zeros(tensors[name].shape, dtype=torch.int64)
    path = tmp_path / "generator.safetensors"
    metadata = {"lungan": json.dumps(description_of(content))}
    path.write_bytes(safetensors.torch.save(tensors, metadata))
    message = refused(path)
    assert message.startswith("does not describe a generator: ")
    assert kind == "one more" or name in message
    assert kind != "one more" or "it has no place for the tensor extra" in message
