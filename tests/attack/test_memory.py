"""Memory: what cannot fit is refused before it is taken, and small files stay small."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian

from lungan import memory, train
from lungan.config import compose
from lungan.training import memory as training_memory
from tests.attack.conftest import TINY
from tests.data.test_dicom import dicom

MIB = 2**20
BOMB = bytes(130 * MIB)
SIDE = 6000


def deflated_dicom() -> bytes:
    """A small image whose data set goes on for 130 MiB of private data."""
    element = struct.pack("<HH2sHI", 0x7FE1, 0x1001, b"OB", 0, len(BOMB)) + BOMB
    whole = dicom(np.zeros((8, 8), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    start = 144 + int.from_bytes(whole[140:144], "little")
    content = zlib.decompress(whole[start:], -15) + element
    deflate = zlib.compressobj(9, wbits=-15)
    return whole[:start] + deflate.compress(content) + deflate.flush()


def dicom_frame() -> bytes:
    """A deflated image that is as large as it says."""
    return dicom(np.zeros((SIDE, SIDE), np.uint16), syntax=DeflatedExplicitVRLittleEndian)


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((SIDE, SIDE), np.uint16), compression="zlib")
    return file.getvalue()


def tiff_strip() -> bytes:
    """A small image whose one strip unpacks to 130 MiB."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), compression="zlib")
    data, bomb = file.getvalue(), zlib.compress(BOMB, 9)
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        tags = opened.pages[0].tags  # type: ignore[union-attr]
        places = {tags[279].valueoffset: len(bomb), tags[273].valueoffset: len(data)}
    patched = bytearray(data + bomb)
    for place, number in places.items():
        patched[place : place + 4] = struct.pack("<I", number)
    return bytes(patched)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=np.frombuffer(BOMB, np.uint8).reshape(-1, 1024, 1024))
    return file.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "long.dcm": deflated_dicom,
    "large.dcm": dicom_frame,
    "large.png": png,
    "large.tif": tiff,
    "strip.tif": tiff_strip,
    "set.npz": npz,
}

PEAK = """
import json, sys
from pathlib import Path
import lungan.data.build
import pydicom.pixels.decoders, tifffile
from lungan.data.cache import read_arrays
from lungan.data.npz import fit_arrays
from lungan.data.scale import Wanted, read_image
from lungan.errors import DataError
def peak():  # not getrusage's, which begins at what the process that started this one had
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024
before, said = peak(), {}
for path in map(Path, sys.argv[1:]):
    try:
        if path.suffix == ".npz":
            said[path.name] = fit_arrays(read_arrays(path), path, 28, 1)
        else:
            said[path.name] = read_image(path, Wanted(28, 1))
    except DataError as error:
        said[path.name] = str(error)
    said[path.name] = [str(said[path.name]), peak() - before]
print(json.dumps(said))
"""


def test_files_that_unpack_to_far_more_take_little_memory(tmp_path: Path) -> None:
    """Each has less than a MiB and unpacks to 69 to 130 MiB."""
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
        assert (tmp_path / name).stat().st_size < MIB
    paths = [tmp_path / name for name in BOMBS]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert list(said) == list(BOMBS)
    for name, (reason, _) in said.items():
        # A strip is unpacked into no more than the size that its header says.
        expected = "truncated or damaged" if name == "strip.tif" else "unpacks to"
        assert expected in reason, (name, reason)
    assert max(taken for _, taken in said.values()) < 100, said


def left(gib: float) -> Callable[[], int]:
    return lambda: int(gib * 2**30)


def folder_of_images(folder: Path) -> None:
    (folder / "films" / "a").mkdir(parents=True)
    for number in range(800):
        pixels = np.full((8, 8), number % 256, np.uint8)
        Image.fromarray(pixels).save(folder / "films" / "a" / f"{number}.png")


def archive(folder: Path) -> None:
    np.savez(folder / "set.npz", images=np.zeros((30000, 28, 28), np.uint8))


NOTHING = str
SPECTRAL = "discriminator.spectral_norm=true"
FILMS = ["data=folder", "data.path=films", "data.size=224", "batch_size=2"]
REFUSED = [
    (0.004, ["generator.width=64"], NOTHING, "generator.width=64 and discriminator.width=8 with "),
    (0.004, ["generator.width=64"], NOTHING, "choose narrower networks"),
    (0.004, ["generator.width=64", SPECTRAL], NOTHING, "choose narrower networks"),
    (0.05, ["batch_size=20000"], NOTHING, "batch_size=20000 at data.size=28 with generator.width"),
    (0.05, ["batch_size=20000"], NOTHING, "choose a smaller batch_size"),
    (0.02, ["data.num_images=100000"], NOTHING, "data.num_images=100000 and data.num_test=20 at "),
    (0.02, ["data.num_test=100000"], NOTHING, "data.num_images=64 and data.num_test=100000 at "),
    (0.07, FILMS, folder_of_images, "data.size=224 for the 800 images in films"),
    (0.02, ["data=npz", "data.path=set.npz"], archive, "what set.npz unpacks to must fit"),
    (0.03, ["data=npz", "data.path=set.npz"], archive, "data.size=28 for the 30000 images in"),
]


@pytest.mark.parametrize(("gib", "overrides", "make", "said"), REFUSED)
def test_what_cannot_fit_is_refused_before_anything_is_made(
    gib: float,
    overrides: list[str],
    make: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if make is not NOTHING:
        make(tmp_path)
    tiny = [text for text in TINY if make is NOTHING or not text.startswith("data.")]
    monkeypatch.setattr(memory, "available", left(gib))
    before = set(tmp_path.iterdir())
    assert train.main([*tiny, *overrides, "store=runs"]) == 2
    errors = capsys.readouterr().err
    assert said in errors.splitlines()[-1], errors
    assert " must fit into the memory that is left, " in errors and " would be taken; " in errors
    assert set(tmp_path.iterdir()) == before


SYSTEMS = {
    "no container": ({}, 6000),
    "version 2": (
        {
            "proc/self/cgroup": "0::/jobs/one\n",
            "sys/fs/cgroup/jobs/one/memory.max": "max\n",
            "sys/fs/cgroup/jobs/memory.max": "5000\n",
            "sys/fs/cgroup/jobs/memory.current": "4000\n",
            "sys/fs/cgroup/jobs/memory.stat": "anon 1\ninactive_file 300\n",
        },
        1300,
    ),
    "version 1, seen from inside": (
        {
            "proc/self/cgroup": "7:cpu:/\n4:memory:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/memory.stat": "cache 5\ntotal_inactive_file 10\n",
        },
        2010,
    ),
    "full": (
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "100\n",
            "sys/fs/cgroup/memory.current": "200\n",
            "sys/fs/cgroup/memory.stat": "inactive_file 0\n",
        },
        0,
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_memory_that_there_is(name: str, tmp_path: Path) -> None:
    files, wanted = SYSTEMS[name]
    meminfo = "MemTotal: 9 kB\nMemAvailable: 4 kB\nSwapFree: 2 kB\n"
    if name == "no container":
        wanted = 6 * 1024
    for path, text in ({"proc/meminfo": meminfo.replace(" kB", "000 kB")} | files).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    if name == "no container":
        (tmp_path / "proc/meminfo").write_text(meminfo)
    assert memory.available(tmp_path) == wanted


STEP = """
import sys
from lungan.config import compose
from lungan.runs.prepare import prepare
from lungan.runs.run import run
def peak():  # not getrusage's, which begins at what the process that started this one had
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
with compose.composer():
    config = compose.compose(sys.argv[1:])
prepared = prepare(config)
before = peak()
run(prepared)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("networks", ["dcgan", "resnet"])
def test_the_estimate_is_below_what_training_takes_and_not_far_below(
    networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        *(f"generator={networks}", f"discriminator={networks}", "data.size=64", "batch_size=256"),
        *("generator.width=32", "discriminator.width=32", "data.num_images=300", "epochs=1"),
        *("data.classes=[]", "precision=fp32", "score=none", "samples_every_epochs=0"),
    ]
    with compose.composer():
        config = compose.compose(overrides)
    needed: list[int] = []

    monkeypatch.setattr(memory, "check", lambda number, *_: needed.append(number))
    monkeypatch.setattr(memory, "available", lambda: 200 * MIB)
    training_memory.check_networks(config, torch.device("cpu"), "fp32")
    done = subprocess.run(
        [sys.executable, "-c", STEP, *overrides, f"store={tmp_path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    taken = int(done.stdout.splitlines()[-1])
    assert 0.3 * taken < needed[-1] < taken, (needed[-1] / MIB, taken / MIB)
