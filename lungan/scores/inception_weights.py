"""Where InceptionV3's weights come from: a given path, torch.hub's cache, or a download."""

from __future__ import annotations

import functools
import hashlib
import http.client
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.request import urlopen

import torch
from tqdm import tqdm

from lungan.errors import WeightsError
from lungan.files import at_home, atomic_write
from lungan.scores.weights import checked_hash

FILE_NAME = "inception_v3_google-0cc3c7bd.pth"
PUBLISHED_HASH = "0cc3c7bd"

_TIMEOUT_SECONDS = 10
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class InceptionWeights:
    """A file that is there, and its SHA-256 (64 hex digits)."""

    path: Path
    hash: str


def find_weights(path: str | None) -> InceptionWeights:
    """The file at ``path`` where one is given, else torch.hub's copy, else a download.

    A given file may be another than torchvision's, as long as it does not bear its name.

    Raises: WeightsError where there is none, or where it is damaged.
    """
    if path is not None:
        given = at_home(path)
        if not given.is_file():
            raise WeightsError(
                f"score.inception_weights must be a file, got {path}, which does not exist"
            )
        return InceptionWeights(given, checked_hash(given))
    cached = hub_path()
    if not cached.is_file() and (reason := _download(cached)) is not None:
        raise WeightsError(
            f"InceptionV3's weights cannot be had: {reason}; put {FILE_NAME} into "
            f"{_shown(cached.parent)} or set score.inception_weights=PATH"
        )
    return InceptionWeights(cached, checked_hash(cached))


def hub_path() -> Path:
    """Where torch.hub, and so torchvision, keeps the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE_NAME


def _shown(path: Path) -> str:
    """With ~ for the home: the reason goes into results, which others read."""
    home = Path.home()
    return str(Path("~", path.relative_to(home)) if path.is_relative_to(home) else path)


@functools.cache
def _download(target: Path) -> str | None:
    """None, or why the file cannot be had; tried once in a process, as every run of it asks."""
    # Imported here because it takes seconds, which a file at hand need not cost.
    from lungan.classifiers.vision import torchvision

    url = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1.url
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(url, timeout=_TIMEOUT_SECONDS) as response, atomic_write(target) as file:
            found = _copy(response, file)
            # Raised before the file takes its name, so that a damaged one never does.
            if not found.startswith(PUBLISHED_HASH):
                raise WeightsError(f"SHA-256 must begin {PUBLISHED_HASH}, got {found[:8]}")
    except (OSError, http.client.HTTPException, WeightsError) as error:
        return f"the download failed ({str(error) or type(error).__name__})"
    return None


def _copy(response: http.client.HTTPResponse, file: BinaryIO) -> str:
    """Write the response to the file; its SHA-256 (64 hex digits)."""
    digest = hashlib.sha256()
    total = int(response.headers.get("Content-Length") or 0) or None
    with tqdm(
        total=total, desc="InceptionV3 weights", unit="B", unit_scale=True, disable=None
    ) as bar:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
