"""What was taken of the data is said at every run, and kept in summary.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lungan import train
from lungan.data import __main__ as inspect_command
from lungan.data.images import ImageSet
from lungan.data.inspect import describe_images
from lungan.runs import prepare

TINY = [
    *("data=folder", "data.path=films", "data.size=32", "generator.width=8"),
    *("discriminator.width=8", "batch_size=4", "epochs=1", "score=none", "threads=1"),
]


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """24 dark films of two classes and eight patients, one of them not square, and no image."""
    rng = np.random.default_rng(0)
    for patient in range(8):
        for visit in range(3):
            path = tmp_path / f"films/{'ab'[patient % 2]}/{patient:04}_{visit}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (40, 50) if patient == visit == 0 else (40, 40)
            assert cv2.imwrite(str(path), rng.integers(0, 30, shape, dtype=np.uint8))
    (tmp_path / "films/a/broken.png").touch()
    monkeypatch.chdir(tmp_path)
    prepare._say_once.cache_clear()
    threads = torch.get_num_threads()
    yield tmp_path / "films"
    torch.set_num_threads(threads)


def test_every_run_says_what_it_took_and_keeps_it(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*TINY, f"data.path={films.name}", "data.on_bad_image=skip"]
    for seed in (1, 2):  # the second from the cache
        assert train.main([*options, f"seed={seed}"]) == 0
        said = capsys.readouterr().err
        assert "data=folder data.path=films: 24 images, taken as grey at 32x32 pixels" in said
        assert "  sizes: 40x40 (23), 50x40 (1); 1 cropped to the centre square" in said
        assert "  skipped: 1 file that cannot be used: a/broken.png (empty)" in said
        assert "nearly one grey; data.scale=range" in said
        assert r"data.group='^(\d+)_' keeps each in one split" in said
    # Of a setting, not of the data, and the same in every run of a sweep: once.
    assert "learns the 2 classes (a, b) as one: data.classes=[a] trains on one" not in said
    for path in Path("runs").glob("*/summary.json"):
        data = json.loads(path.read_text())["data"]
        assert sum(sum(counts.values()) for counts in data["counts"].values()) == 24
        assert data["groups"] is None
        assert (data["num_cropped"], data["skipped"]) == (1, {"a/broken.png": "empty"})
        assert len(data["warnings"]) == 2


def test_names_of_wide_characters_keep_the_columns_of_the_table_straight() -> None:
    names = ("肺炎", "normal", "é")
    number = np.arange(3)
    image_set = ImageSet(
        images=np.zeros((3, 1, 16, 16), np.uint8), labels=number, splits=number * 0,
        class_names=names, split_names=("all",), source="",
    )  # fmt: skip
    table = describe_images(image_set, "x")[2:5]
    widths = [len(line) + sum(ord(one) > 0x3000 for one in line) for line in table]
    assert len(set(widths)) == 1


def test_patients_are_counted_in_the_summary(films: Path) -> None:
    (films / "a/broken.png").unlink()
    assert train.main([*TINY, "data.group=folder"]) == 2  # there are no sub-folders
    assert train.main([*TINY, r"data.group=(\d+)_", "batch_size=2"]) == 0
    (path,) = Path("runs").glob("*/summary.json")
    assert sum(json.loads(path.read_text())["data"]["groups"].values()) == 8


def test_an_unconditional_generator_of_two_classes_is_said(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (films / "a/broken.png").unlink()
    assert train.main(TINY) == 0
    said = capsys.readouterr().err
    assert "the generator is unconditional and learns the 2 classes (a, b) as one" in said
    prepare._say_once.cache_clear()
    assert train.main([*TINY, "data.classes=[a]", "batch_size=2"]) == 0
    assert "unconditional" not in capsys.readouterr().err


def test_only_the_path_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        inspect_command.main([])
    assert "arguments are required: PATH; see" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "DataError: give a folder of images, a .csv table or an .npz; absent does no"),
        (["films/a/broken.png"], "broken.png is none of these"),
        (["films"], "DataError: 1 of 25 files in films cannot be used: a/broken.png (empty);"),
        (["films", "epoch=3"], "ConfigError: epoch is not a key; did you mean epochs?"),
        (["films", "data.group=(a"], "ConfigError: data.group must be folder, or a regular expr"),
    ],
)
def test_errors_are_one_line(
    films: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert films.is_dir()
    assert inspect_command.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
