"""Runs of one epoch on tiny phantom data, made by the train command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lungan.runs.folder import SUMMARY
from lungan.train import main

TINY = (
    *("data=phantom", "data.num_images=120", "data.num_test=24", "data.splits=[train]"),
    *("generator.width=8", "generator.max_width=8", "generator.latent_dim=4"),
    *("discriminator.width=8", "epochs=1", "batch_size=16", "score=none"),
    *("threads=1", "device=cpu", "precision=fp32", "samples_every_epochs=0"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Run folders: of one class, of both without and with labels."""
    root = tmp_path_factory.mktemp("generation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGAN_CACHE", str(root / "cache"))
        folders = {}
        for name, overrides in (
            ("pneumonia", ["data.classes=[pneumonia]"]),
            ("mixed", ["data.classes=[]"]),
            ("conditional", ["data.classes=[]", "generator.conditional=true"]),
        ):
            store = root / name
            assert main([*TINY, f"store={store}", *overrides]) == 0
            (summary,) = store.glob(f"*/{SUMMARY}")
            folders[name] = summary.parent
        yield folders
