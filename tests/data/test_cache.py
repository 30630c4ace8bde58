"""The cache gives back what was put in, repairs itself, and is never needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lungan.data.cache import load_or_make
from lungan.data.images import Facts, ImageSet
from lungan.files import atomic_write, cache_folder


def some_images(seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    return ImageSet(
        images=rng.integers(0, 256, (6, 1, 16, 16), dtype=np.uint8),
        labels=np.array([0, 1, 0, 1, 1, 0]),
        splits=np.array([0, 0, 0, 1, 2, 2]),
        class_names=("normal", "pneumonia"),
        split_names=("train", "val", "test"),
        source="drawn for a test, ü",
        groups=np.array([1, 0, 1, 2, 3, 3]),
        group_names=("a", "b", "ç", "d"),
        facts=Facts(modes={"8-bit grey PNG": 6}, skipped={"ü.png": "empty"}, warnings=["dark"]),
    )


class Maker:
    """Counts how often it is called."""

    def __init__(self, make: Callable[[], ImageSet] = some_images) -> None:
        self.make = make
        self.num_calls = 0

    def __call__(self) -> ImageSet:
        self.num_calls += 1
        return self.make()


def test_folder_is_ours_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("LUNGAN_CACHE")
    assert cache_folder() == Path("/c/lungan")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "lungan"


def test_a_set_is_made_once_and_comes_back_equal() -> None:
    maker = Maker()
    first = load_or_make("key", maker)
    second = load_or_make("key", maker)
    assert maker.num_calls == 1
    assert second.content_hash == first.content_hash
    assert (second.class_names, second.split_names, second.source) == (
        first.class_names,
        first.split_names,
        first.source,
    )
    assert second.groups is not None
    assert second.groups.tolist() == [1, 0, 1, 2, 3, 3]
    assert (second.group_names, second.facts) == (first.group_names, first.facts)


def test_keys_do_not_mix() -> None:
    load_or_make("a", some_images)
    other = load_or_make("b", lambda: some_images(1))
    assert other.content_hash == some_images(1).content_hash


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "other arrays"])
def test_a_damaged_entry_is_made_again_and_said(
    damage: str, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_or_make("key", some_images)
    (path,) = (own_cache / "sets").iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 3
    if damage == "other arrays":
        np.savez(path, images=np.zeros(3))
    else:
        path.write_bytes(
            {
                "truncated": whole[:-100],
                "empty": b"",
                "text": b"hello",
                "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
            }[damage]
        )
    maker = Maker()
    with caplog.at_level(logging.WARNING):
        again = load_or_make("key", maker)
    assert maker.num_calls == 1
    assert again.content_hash == some_images().content_hash
    assert "cache entry is made again" in caplog.text
    assert load_or_make("key", maker).content_hash == again.content_hash
    assert maker.num_calls == 1


def test_any_single_damaged_byte_is_noticed_or_harmless(own_cache: Path) -> None:
    """Never an exception, and never other images than those that were put in."""
    load_or_make("key", some_images)
    (path,) = (own_cache / "sets").iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(whole), 60, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        assert load_or_make("key", some_images).content_hash == some_images().content_hash


def test_without_a_writable_cache_it_works_and_says_so(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.write_text("a file stands where the folder should")
    maker = Maker()
    for _ in range(2):
        images = load_or_make("key", maker)
        assert images.content_hash == some_images().content_hash
    assert maker.num_calls == 2
    assert "images are not cached (set LUNGAN_CACHE to a writable folder)" in caplog.text


def test_a_failed_write_leaves_neither_entry_nor_remains(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.write_text("old")
    with pytest.raises(OSError, match="no space"), atomic_write(path) as file:
        file.write(b"half")
        raise OSError("no space")
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["entry"]
