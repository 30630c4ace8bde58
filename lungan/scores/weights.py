"""Weights files that nobody vouches for: tensors only, right hash, right keys, right shapes."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from lungan.errors import WeightsError

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.[^.]+$")


def file_hash(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file.

    Raises: WeightsError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error


def checked_hash(path: Path) -> str:
    """The file's hash, which must begin as its name says where the name says so.

    ``name-0cc3c7bd.pth`` is torch.hub's convention.

    Raises: WeightsError where the file cannot be read or is not the one its name promises.
    """
    found = file_hash(path)
    promised = _HASH_IN_NAME.search(path.name)
    if promised and not found.startswith(promised[1]):
        raise WeightsError(
            f"weights file {path} must have the SHA-256 that its name begins ({promised[1]}), "
            f"got {found[:8]}: it is damaged or another file; delete it and get it again"
        )
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth file; nothing but tensors is ever unpickled.

    Raises: WeightsError where the file is damaged, or holds anything else.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file {path} must hold tensors only; it is damaged, or holds Python objects, "
            "which are never unpickled"
        ) from error
    except Exception as error:  # torch answers damaged files with whatever comes up
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"weights file {path} is damaged: {reason}") from error
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise WeightsError(f"weights file {path} must hold a mapping of names to tensors")
    return dict(loaded)


def load_into(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Give a network built on the meta device its weights, in float32.

    tensors: keys as in the network's state dict; batch norm's counts of batches may be missing.

    Raises: WeightsError naming the first key or shape that does not fit, or a non-finite tensor.
    """
    expected = network.state_dict()
    counts = {name for name in expected if name.endswith(".num_batches_tracked")}
    missing = sorted(expected.keys() - tensors.keys() - counts)
    unknown = sorted(tensors.keys() - expected.keys())
    for wrong, words in ((missing, "lacks"), (unknown, "has the unknown")):
        if wrong:
            raise WeightsError(
                f"weights file {path} is not for this network: it {words} {wrong[0]} "
                f"({len(wrong)} such keys)"
            )
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise WeightsError(
                f"weights file {path} is not for this network: {name} must be "
                f"{tuple(expected[name].shape)}, got {tuple(value.shape)}"
            )
        if not torch.isfinite(value).all():
            raise WeightsError(f"weights file {path} holds non-finite numbers in {name}")
    floats = {name: value.float() for name, value in tensors.items() if name not in counts}
    zeros = {name: torch.zeros((), dtype=torch.int64) for name in counts}
    network.load_state_dict(floats | zeros, strict=True, assign=True)
