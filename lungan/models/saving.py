"""A generator in one file: safetensors, with what is needed to build it again as metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import lungan
from lungan import registry
from lungan.config import GeneratorConfig, rules
from lungan.errors import LunganError, WeightsError
from lungan.files import shape_problem
from lungan.models.build import Classes, build_generator

FORMAT = "lungan-generator-1"
MAX_IMAGE_SIZE = 1024

_DESCRIPTION = {
    "format": frozenset((FORMAT,)),
    "image_size": int,
    "channels": int,
    "generator": {"name": str},
    "classes?": {"names": [str], "shares": [float]},
    "plugins?": {...: {"name": str, "version": str, "sha256": str, "file?": str}},
}


def serialize_generator(
    generator: nn.Module, config: GeneratorConfig, *, image_size: int, channels: int
) -> bytes:
    """The file's content, of weights on any device."""
    description: dict[str, Any] = {
        "format": FORMAT,
        "lungan": lungan.__version__,
        "generator": dataclasses.asdict(config),
        "image_size": image_size,
        "channels": channels,
    }
    used = registry.used_by([("generator", config.name)])
    if used:
        description["plugins"] = {
            choice: dataclasses.asdict(plugin) for choice, plugin in used.items()
        }
    classes = generator.classes
    if isinstance(classes, Classes):
        description["classes"] = dataclasses.asdict(classes)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in generator.state_dict().items()}
    return safetensors.torch.save(tensors, {"lungan": json.dumps(description)})


def load_generator(path: Path) -> nn.Module:
    """The generator of a safetensors file, in evaluation mode on the CPU.

    The file is untrusted: its metadata only chooses among lungan's own networks.

    Raises: WeightsError where it is absent, damaged or not a generator of lungan's.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            description = json.loads((stream.metadata() or {})["lungan"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"{path} does not exist; give a run's generator.safetensors") from error
    except (
        KeyError,
        ValueError,
        OSError,
        RecursionError,
        safetensors.SafetensorError,
    ) as error:
        raise WeightsError(
            f"{path} is not a generator saved by lungan: {error}; "
            "give a run's generator.safetensors"
        ) from error
    way_out = ["copy it from its run again, or train the run again"]
    try:
        if problem := shape_problem(description, _DESCRIPTION):
            raise ValueError(problem)
        way_out = _absent_plugins(description.get("plugins", {})) or way_out
        size, channels = description["image_size"], description["channels"]
        if not (size <= MAX_IMAGE_SIZE and channels in (1, 3)):
            raise ValueError(f"image_size {size} with {channels} channels is out of range")
        config = rules.parse_choice(GeneratorConfig, "generator", description["generator"])
        rules.check_fields(config, "generator.")
        classes = _classes(description.get("classes"))
        # Without memory first: sizes that the file only claims to have are never made.
        with torch.device("meta"):
            described = build_generator(config, size, channels, classes=classes)
        check_tensors(tensors, described.state_dict())
        generator = build_generator(config, size, channels, classes=classes)
        generator.load_state_dict(tensors)
    except (
        LunganError,
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:
        reason = "; ".join([str(error).splitlines()[0], *way_out])
        raise WeightsError(f"{path} does not describe a generator: {reason}") from error
    return generator.eval()


def _absent_plugins(described: dict[str, dict[str, str]]) -> list[str]:
    """What to do where a plug-in that the file's generator comes from is not here, or another.

    described: by ``group=name``, as the file has it.
    """
    found = []
    for key, values in described.items():
        plugin = registry.Plugin(**values)
        group, _, name = key.partition("=")
        here = registry.used_by([(group, name)]).get(key)
        if here is None:
            found.append(f"it was made by plug-in {plugin}; {plugin.way_to_get()}")
        elif here.sha256 != plugin.sha256:
            found.append(f"it was made by plug-in {plugin}, which is {here} here")
    return found


def check_tensors(given: dict[str, Tensor], described: dict[str, Tensor]) -> None:
    """Raises: ValueError for the first tensor by name that is missing or unknown, else for the
    first of another shape or dtype than in ``described``."""
    for name in sorted(given.keys() ^ described.keys()):
        said = "lacks" if name in described else "has no place for"
        raise ValueError(f"it {said} the tensor {name}")
    for name, tensor in given.items():
        found, wanted = (
            f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}"
            for each in (tensor, described[name])
        )
        if found != wanted:
            raise ValueError(f"{name} must be {wanted}, got {found}")


def _classes(given: dict[str, Any] | None) -> Classes | None:
    if given is None:
        return None
    names, shares = given["names"], given["shares"]
    are_shares = all(share > 0 for share in shares) and math.isfinite(sum(shares))
    if not (2 <= len(set(names)) == len(names) == len(shares) and are_shares):
        raise ValueError(
            "classes must be two different names or more, each with a finite share above 0"
        )
    return Classes(tuple(names), tuple(shares))
