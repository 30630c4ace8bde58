"""data=pneumoniamnist: PneumoniaMNIST from a file, the cache, or its Zenodo record.

Source: Yang et al., MedMNIST v2, Scientific Data 10:41, 2023; images of Kermany et al., Cell
172:1122, 2018; CC BY 4.0.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from pathlib import Path

from lungan.config.data import PneumoniaMnistConfig
from lungan.data.images import SPLITS, ImageSet
from lungan.data.npz import read_npz, read_parts
from lungan.errors import DataError
from lungan.files import at_home, cache_folder, lock

RECORD_URL = "https://zenodo.org/records/10519652"

FILES = {
    28: ("pneumoniamnist.npz", "28209eda62fecd6e6a2d98b1501bb15f"),
    64: ("pneumoniamnist_64.npz", "8f4eceb4ccffa70c672198ea285246c6"),
    128: ("pneumoniamnist_128.npz", "05b46931834c231683c68f40c47b2971"),
    224: ("pneumoniamnist_224.npz", "d6a3c71de1b945ea11211b03746c1fe1"),
}
"""Name and published MD5 by size. Only a download is held to the MD5: a file that is given may
be another packing of the same images."""

NUM_RETRIES = 2
"""Of a download, a second or two apart."""

SHARED_PATIENTS = (
    "PneumoniaMNIST's val was drawn from its train by image, so that children stand in both: what "
    "is chosen by its val images is chosen with children that were trained on"
)

log = logging.getLogger(__name__)

CLASS_NAMES = ("normal", "pneumonia")


def load_pneumoniamnist(config: PneumoniaMnistConfig, *, progress: bool = True) -> ImageSet:
    """All of PneumoniaMNIST at ``config.size``, split after split.

    Raises: DataError where no file is found and none can be had, or it is not the data set.
    """
    path = _find(config) or _download(config, progress)
    parts = read_parts(path)
    for split in SPLITS:
        images, labels = parts.get(split, (None, None))
        if images is None:
            raise DataError(f"{path} is not PneumoniaMNIST: it has no {split}_images")
        if images.ndim != 3:
            raise DataError(f"{path} is not PneumoniaMNIST: {split}_images are in colour")
        if images.shape[1] != config.size:
            raise DataError(
                f"data.size is {config.size}, but {path} holds images of {images.shape[1]}x"
                f"{images.shape[1]} pixels; set data.size={images.shape[1]}, or give "
                f"{FILES[config.size][0]}"
            )
        if labels is None or set(labels.tolist()) != {0, 1}:
            raise DataError(f"{path} is not PneumoniaMNIST: {split}_labels must be there, 0 or 1")
    image_set = read_npz(path, config.size, 1, parts)
    return dataclasses.replace(
        image_set,
        class_names=CLASS_NAMES,
        source=f"PneumoniaMNIST {config.size}x{config.size} (MedMNIST v2, CC BY 4.0)",
        facts=dataclasses.replace(image_set.facts, about_val=SHARED_PATIENTS),
    )


def _find(config: PneumoniaMnistConfig) -> Path | None:
    """The file, where it is at hand; a place that was named must hold it."""
    name = FILES[config.size][0]
    if config.path is not None:
        return _at("data.path", config.path, name)
    if place := os.environ.get("LUNGAN_DATA"):
        # A folder for several data sets need not hold this one.
        path = _at("LUNGAN_DATA", place, name, must_hold=False)
        if path.is_file():
            return path
    cached = cache_folder() / name
    return cached if cached.is_file() else None


def _at(key: str, place: str, name: str, *, must_hold: bool = True) -> Path:
    path = at_home(place)
    if not path.exists():
        raise DataError(f"{key} must be {name} or a folder that holds it, {path} does not exist")
    if path.is_dir():
        path /= name
        if must_hold and not path.is_file():
            raise DataError(
                f"{key} must be a folder that holds {name}, or a file: no {path}; images of "
                "your own need data=folder or data=table"
            )
    return path


def _download(config: PneumoniaMnistConfig, progress: bool) -> Path:
    """The file in the cache, whole and of the published MD5."""
    import pooch  # and requests, which a file at hand does without

    name, md5 = FILES[config.size]
    path = cache_folder() / name
    by_hand = (
        f"get {name} from {RECORD_URL} and put it into {path.parent}, or set data.path; "
        "data=phantom needs no download"
    )
    if not config.download:
        raise DataError(f"{name} is not at hand and data.download is false: {by_hand}")
    pooch.get_logger().setLevel("WARNING")
    log.info("downloading %s from %s", name, RECORD_URL)
    record = pooch.create(
        path=path.parent,
        base_url="",
        registry={name: f"md5:{md5}"},
        urls={name: f"{RECORD_URL}/files/{name}?download=1"},
        retry_if_failed=NUM_RETRIES,
    )
    has_bar = progress and sys.stderr.isatty()
    try:
        with lock(path):  # another process may have it meanwhile
            record.fetch(name, downloader=pooch.HTTPDownloader(progressbar=has_bar))
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError):
            raise DataError(
                f"{name} cannot be written to {path.parent} ({error.strerror or error}): set "
                "LUNGAN_CACHE to a folder with room, or data.path to the file"
            ) from error
        raise DataError(f"{name} cannot be downloaded ({_reason(error)}): {by_hand}") from error
    return path


def _reason(error: Exception) -> str:
    """What went wrong, without the addresses that requests names in it."""
    import requests

    match error:
        case requests.HTTPError(response=requests.Response() as answer):
            return f"the server answers {answer.status_code} {answer.reason}"
        case requests.Timeout():
            return "the server does not answer"
        case requests.RequestException():
            return "no connection: " + str(error).rpartition(": ")[2].rstrip(')"')
        case ValueError():
            return "what came is not whole: its MD5 is not the published one"
    return " ".join(str(error).split())
