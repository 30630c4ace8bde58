"""Every test of the data readers has a cache of its own and no LUNGAN_DATA."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache of the test"
    monkeypatch.setenv("LUNGAN_CACHE", str(folder))
    monkeypatch.delenv("LUNGAN_DATA", raising=False)
    return folder
