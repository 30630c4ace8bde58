"""Generators of one epoch on tiny phantom data, made by the train command, each made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lungan.runs.folder import SUMMARY
from lungan.train import main

TINY = (
    *("data=phantom", "data.num_images=160", "data.num_test=40", "batch_size=8", "epochs=1"),
    *("generator.width=8", "generator.max_width=8", "generator.latent_dim=4"),
    *("discriminator.width=8", "score=none", "threads=1", "device=cpu", "precision=fp32"),
    "samples_every_epochs=0",
)

Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Gives the folder of the run with these overrides, in one store."""
    root = tmp_path_factory.mktemp("utility")
    folders: dict[tuple[str, ...], Path] = {}

    def once(*overrides: str) -> Path:
        if overrides not in folders:
            before = set(root.glob(f"runs/*/{SUMMARY}"))
            assert main([*TINY, f"store={root / 'runs'}", *overrides]) == 0
            (new,) = set(root.glob(f"runs/*/{SUMMARY}")) - before
            folders[overrides] = new.parent
        return folders[overrides]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(root / "cache"))
        yield once
