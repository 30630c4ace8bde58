"""The cache gives back what was put in, repairs itself, and is never needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lungan.data.cache import Arrays, load_or_make
from lungan.errors import RunFolderError
from lungan.files import cache_folder, write_whole


def some_arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (6, 1, 16, 16), dtype=np.uint8),
        "labels": np.array([0, 1, 0, 1, 1, 0]),
        "facts": np.array('{"source": "drawn for a test, ü"}'),
    }


NAMES = set(some_arrays())


def load(key: str, make: Callable[[], Arrays]) -> Arrays:
    return load_or_make(key, NAMES, make)


def same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


class Maker:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.num_calls = 0

    def __call__(self) -> Arrays:
        self.num_calls += 1
        return some_arrays()


def test_folder_is_ours_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUNGAN_CACHE", "/a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("LUNGAN_CACHE")
    assert cache_folder() == Path("/c/lungan")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "lungan"


def test_arrays_are_made_once_and_come_back_equal() -> None:
    maker = Maker()
    assert same(load("key", maker), some_arrays())
    assert same(load("key", maker), some_arrays())
    assert maker.num_calls == 1


def test_keys_do_not_mix() -> None:
    load("a", some_arrays)
    assert same(load("b", lambda: some_arrays(1)), some_arrays(1))


def test_an_entry_of_an_earlier_version_is_made_again_or_read_in_part() -> None:
    load_or_make("key", {"images"}, lambda: {"images": some_arrays()["images"]})
    assert same(load("key", some_arrays), some_arrays())
    assert set(load_or_make("key", {"images"}, some_arrays)) == {"images"}


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "flipped", "other arrays"])
def test_a_damaged_entry_is_made_again_and_said(
    damage: str, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load("key", some_arrays)
    (path,) = (own_cache / "sets").glob("*.npz")
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
        again = load("key", maker)
    assert maker.num_calls == 1
    assert same(again, some_arrays())
    assert "is damaged and made again" in caplog.text
    assert same(load("key", maker), again)
    assert maker.num_calls == 1


def test_any_single_damaged_byte_is_noticed_or_harmless(own_cache: Path) -> None:
    """Never an exception, and never other arrays than those that were put in."""
    load("key", some_arrays)
    (path,) = (own_cache / "sets").glob("*.npz")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.choice(len(whole), 60, replace=False):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        assert same(load("key", some_arrays), some_arrays())


def test_without_a_writable_cache_it_works_and_says_so(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.write_text("a file stands where the folder should")
    maker = Maker()
    for _ in range(2):
        assert same(load("key", maker), some_arrays())
    assert maker.num_calls == 2
    assert "is not cached (set LUNGAN_CACHE to a writable folder)" in caplog.text


def test_a_failed_write_leaves_neither_entry_nor_remains(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.write_text("old")
    with pytest.raises(RunFolderError, match="no space"), write_whole(path) as file:
        file.write(b"half")
        raise OSError("no space")
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["entry"]
