"""A disk that fills up: one clear line, nothing half-written taken for whole, and on it goes."""

from __future__ import annotations

import gc
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lungan import generate
from lungan.train import main

DISK_KIB = 12 * 1024
MORE = ("epochs=3", "checkpoint_every_epochs=1", "samples_every_epochs=1")
# Each checkpoint of such a run has 2.2 MB and is written beside the one before.
FREE_KIB = (0, 4, 16, 1024, 2180, 500)

SameBits = Callable[[Path, Path], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_overrides: Sequence[str]) -> Path:
    store = tmp_path_factory.mktemp("undisturbed")
    assert main([*tiny_overrides, *MORE, f"store={store}"]) == 0
    return store


def test_a_disk_that_fills_up(
    small_disk: Path,
    undisturbed: Path,
    tiny_overrides: Sequence[str],
    same_bits: SameBits,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = small_disk / "runs"
    command = [*tiny_overrides, *MORE, f"store={store}"]
    for free_kib in FREE_KIB:
        fill(small_disk / "filler", free_kib)
        capsys.readouterr()
        assert main(command) == 2, free_kib
        output = capsys.readouterr()
        assert output.out == ""
        *said, line = output.err.splitlines()
        assert re.fullmatch(
            rf"RunFolderError: (store=)?{re.escape(str(small_disk))}\S+ cannot be written: "
            r"No space left on device; .*store=<folder>.*",
            line,
        ), output.err
        assert not any(word in text for text in said for word in ("Error", "Traceback"))
        files = [path for path in small_disk.rglob("*") if path.is_file()]
        assert not any(path.name == "summary.json" for path in files)
        assert not any(re.match(r"\.\w+\.\w+\.", path.name) for path in files), "left behind"
        (small_disk / "filler").unlink()
    assert main(command) == 0
    same_bits(store, undisturbed)


@pytest.mark.parametrize("how", [[], ["--npz"]])
@pytest.mark.parametrize("free_kib", [0, 4, 200])
def test_a_disk_that_fills_up_under_generated_images(
    how: list[str],
    free_kib: int,
    small_disk: Path,
    undisturbed: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fill(small_disk / "filler", free_kib)
    run = str(next(undisturbed.glob("phantom*")))
    out = small_disk / "images"
    assert generate.main([run, "--num-images", "1000", "--out", str(out), *how]) == 2
    gc.collect()  # what is closed only then must not complain either
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err == (
        f"DataError: {out} cannot be written: No space left on device; nothing is left there: "
        "free space, or give another --out\n"
    )
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.parametrize(
    ("limit_bytes", "file"),
    [(100, "claim.json"), (1000, "config.yaml"), (100_000, "checkpoint.pt")],
)
def test_a_file_that_may_not_grow(
    limit_bytes: int,
    file: str,
    tmp_path: Path,
    undisturbed: Path,
    tiny_overrides: Sequence[str],
    same_bits: SameBits,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What needs no root: a limit on the size of files, as quotas are."""
    store = tmp_path / "runs"
    command = [*tiny_overrides, *MORE, f"store={store}"]
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        code = main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    *_, line = capsys.readouterr().err.splitlines()
    assert code == 2
    assert re.fullmatch(
        rf"RunFolderError: {re.escape(str(store))}/[^/]+/{re.escape(file)} cannot be written: "
        r"File too large; free space there, or choose another folder \(of runs: store=<folder>\); "
        r"what was written before stays good",
        line,
    ), line
    assert main(command) == 0
    same_bits(store, undisturbed)


def fill(path: Path, free_kib: int) -> None:
    """Leave that much on the file system."""
    with path.open("wb") as stream:
        while True:
            space = os.statvfs(path.parent)
            left = space.f_bavail * space.f_frsize - free_kib * 1024
            if left <= 0:
                break
            stream.write(b"\0" * left)
            stream.flush()
