"""What a config stands for on this machine, found out before anything is written, and with which
code and machine its result is made."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import lungan
from lungan.config import DataConfig, RunConfig
from lungan.config.run import run_id, trajectory_id
from lungan.data import build as data
from lungan.data.images import ImageSet
from lungan.device import resolve_device, resolve_precision
from lungan.errors import ConfigError
from lungan.runs.store import RunIdentity
from lungan.training.memory import check_networks
from lungan.training.training_data import classes_of

Sets = tuple[ImageSet, ImageSet]
"""All images of the data, and those to train on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config with its device, precision, images and identity. ``share``: the CPU cores that a
    sweep gives to the run beside its others; 0 where it has no others beside it."""

    config: RunConfig
    device: torch.device
    precision: str
    image_set: ImageSet
    training_set: ImageSet
    identity: RunIdentity
    data_seconds: float
    share: int = 0


def load_sets(config: DataConfig) -> Sets:
    """Read the data. Raises: DataError, ConfigError."""
    image_set = data.load(config, say=log.info)
    return image_set, image_set.select(config.splits, config.classes)


def reader_of_sets(most: float = math.inf) -> Callable[[DataConfig], Sets]:
    """``load_sets`` that reads a data set once as long as it is among the ``most`` last read."""
    kept: dict[str, Sets] = {}

    def load(config: DataConfig) -> Sets:
        key = repr(config)
        if key not in kept:
            if len(kept) >= most:  # before the next takes memory too
                del kept[next(iter(kept))]
            kept[key] = load_sets(config)
        return kept[key]

    return load


load_and_keep = reader_of_sets(most=1)
"""For the runs of one process, which come one after another."""


def prepare(
    config: RunConfig,
    load: Callable[[DataConfig], Sets] = load_sets,
    *,
    here: bool = True,
    share: int = 0,
) -> Prepared:
    """Resolve device and precision, read the data and name the run.

    load: a sweep's own, which reads each data set once. here: this machine will do the run, and
    must have the memory for it. share: see ``Prepared``.

    Raises: ConfigError, DataError.
    """
    config.check()
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    if here:
        check_networks(config, device, precision)
    for message in _without_effect(config):
        _say_once(message)
    began = time.perf_counter()
    image_set, training_set = load(config.data)
    if config.batch_size > len(training_set):
        raise ConfigError(
            f"batch_size must be at most the number of training images ({len(training_set)}), "
            f"got {config.batch_size}"
        )
    names = classes_of(training_set).names
    config.generator.check_classes(names)
    if len(names) > 1 and not config.generator.conditional:
        _say_once(
            f"the generator is unconditional and learns the {len(names)} classes "
            f"({', '.join(names[:10])}) as one: data.classes=[{names[0]}] trains on one, "
            "generator.conditional=true makes images of each"
        )
    trajectory = trajectory_id(config, training_set.content_hash, precision)
    slug = (
        f"{config.data.name}{config.data.size}-{config.generator.name}-{config.loss.name}"
        f"-{config.optimizer.name}-lr{config.optimizer.generator_lr:g}-{config.epochs}ep"
        f"-s{config.seed}"
    )
    identity = RunIdentity(trajectory, run_id(trajectory, config.epochs), config.epochs, slug)
    seconds = time.perf_counter() - began
    return Prepared(config, device, precision, image_set, training_set, identity, seconds, share)


def _without_effect(config: RunConfig) -> Iterator[str]:
    """What is set, and changes nothing beside the other settings."""
    loss, data = config.loss, config.data
    if loss.penalty_every_steps > 1 and not (loss.r1 or loss.r2 or loss.gradient_penalty):
        yield (
            f"loss.penalty_every_steps={loss.penalty_every_steps} has no effect while loss.r1, "
            "loss.r2 and loss.gradient_penalty are 0"
        )
    if data.fraction_seed and data.fraction == 1:
        yield f"data.fraction_seed={data.fraction_seed} has no effect while data.fraction is 1"


@functools.cache  # the runs of a sweep would all say the same
def _say_once(message: str) -> None:
    log.warning("warning: %s", message)


def versions() -> dict[str, str]:
    """Of Python, lungan and what shapes its numbers."""
    found = {"lungan": lungan.__version__, "python": platform.python_version()}
    for package in ("torch", "torchvision", "numpy", "scipy", "opencv-python-headless"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that lungan runs from, ``-dirty`` where it was changed; None
    where it runs from an installed package."""
    root = Path(lungan.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.check_output(
            describe, cwd=root, stderr=subprocess.DEVNULL, text=True, timeout=10
        )
        return said.strip()
    return None


@functools.cache
def machine() -> str:
    """Processor, its cores, and the system, such as ``Xeon 8480 (2 cores), Linux``."""
    processor = platform.processor() or "unknown processor"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        processor = found[1].strip() if found else processor
    return f"{processor} ({os.cpu_count()} cores), {platform.system()} {platform.machine()}"
