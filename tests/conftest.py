"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import os
from pathlib import Path

# One thread a process, and so sweeps in one process, unless a test asks for more. Torch reads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data_path() -> Path:
    """PneumoniaMNIST at 28x28, where LUNGAN_DATA or ../shared/data has it."""
    folder = Path(os.environ.get("LUNGAN_DATA", REPOSITORY.parent / "shared" / "data"))
    path = folder if folder.is_file() else folder / "pneumoniamnist.npz"
    if not path.is_file():
        pytest.skip(f"no real data: {path} is absent (set LUNGAN_DATA)")
    return path


@pytest.fixture(scope="session")
def nih_chest_path() -> Path:
    """830 films of 565 patients in two class folders, ``<patient>_<visit>.jpg``, where LUNGAN_DATA
    or ../shared/data has them."""
    place = Path(os.environ.get("LUNGAN_DATA", REPOSITORY.parent / "shared" / "data"))
    path = (place.parent if place.is_file() else place) / "nih_chest"
    if not path.is_dir():
        pytest.skip(f"no real data: {path} is absent (set LUNGAN_DATA)")
    return path
