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
from lungan.data.cache import read_arrays
from lungan.data.images import SPLITS, ImageSet
from lungan.data.npz import fit_arrays
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
    image_set, _ = fit_arrays(read_arrays(path), path)
    if image_set.size != config.size:
        raise DataError(
            f"data.size is {config.size}, but {path} holds images of {image_set.size}x"
            f"{image_set.size} pixels; set data.size={image_set.size}, or give "
            f"{FILES[config.size][0]}"
        )
    found = set(zip(image_set.splits.tolist(), image_set.labels.tolist(), strict=True))
    if image_set.class_names != ("0", "1") or image_set.channels != 1 or len(found) != 6:
        raise DataError(
            f"{path} is not PneumoniaMNIST, whose grey images are of the classes 0 and 1 in "
            f"{', '.join(SPLITS)} each"
        )
    return dataclasses.replace(
        image_set,
        class_names=CLASS_NAMES,
        source=f"PneumoniaMNIST {config.size}x{config.size} (MedMNIST v2, CC BY 4.0)",
        facts=dataclasses.replace(image_set.facts, about_val=SHARED_PATIENTS),
    )


def _find(config: PneumoniaMnistConfig) -> Path | None:
    """The file, where it is at hand. Raises: DataError where a place that was named lacks it."""
    name = FILES[config.size][0]
    for key, place in (("data.path", config.path), ("LUNGAN_DATA", os.environ.get("LUNGAN_DATA"))):
        if not place:
            continue
        path = at_home(place)
        if path.is_dir():
            path /= name
        if path.is_file():
            return path
        # LUNGAN_DATA may be a folder of several data sets, without this one.
        if key == "data.path" or not at_home(place).exists():
            raise DataError(
                f"{key} must be {name} or a folder that holds it, {path} does not exist; images "
                "of your own need data=folder or data=table"
            )
    cached = cache_folder() / name
    return cached if cached.is_file() else None


def _download(config: PneumoniaMnistConfig, progress: bool) -> Path:
    """The file in the cache, whole and of the published MD5."""
    import pooch  # a file at hand does without both
    import requests

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
    except (requests.RequestException, ValueError) as error:
        raise DataError(f"{name} cannot be downloaded ({_reason(error)}): {by_hand}") from error
    except OSError as error:
        raise DataError(
            f"{name} cannot be written to {path.parent} ({error.strerror or error}): set "
            "LUNGAN_CACHE to a folder with room, or data.path to the file"
        ) from error
    return path


def _reason(error: Exception) -> str:
    """What went wrong, without the addresses that requests names in it."""
    import requests

    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.RequestException):
        return "no connection: " + str(error).rpartition(": ")[2].rstrip(')"')
    return "what came is not whole: its MD5 is not the published one"
