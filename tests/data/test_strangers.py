"""Folders, tables and archives as people have them: right, or refused by name, through the command.

Each row: what is there, settings, the exit code, and what is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lungan.data.__main__ import main

rng = np.random.default_rng(0)
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "gesund ä") for form in ("NFC", "NFD"))


def draw(name: str, pixels: np.ndarray | None = None) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(name)


def look(capsys: pytest.CaptureFixture[str], path: str, *settings: str) -> tuple[int, str]:
    """The exit code of ``lungan data``, and all that it prints, one line an entry."""
    code = main([path, "data.size=28", *settings])
    said = "".join(capsys.readouterr())
    assert "Warning:" not in said and "Traceback" not in said
    assert code == 0 or said.count("\n") == 1
    return code, said


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(separator: str = ",", head: str = "file,label", names: str = "films/{}.png") -> str:
    """Six films of two classes."""
    lines = [f"{names.format(n)},{'ill' if n % 2 else 'well'}" for n in range(6)]
    return "\n".join([head, *lines]).replace(",", separator)


TABLES: dict[str, tuple[Any, int, str]] = {
    "Excel's semicolons, BOM and line ends": (
        "\ufeff" + rows(";").replace("\n", "\r\n"), 0, "ill .* 3"),
    "Excel's first line": ("sep=;\r\n" + rows(";"), 0, "ill .* 3"),
    "Excel's Unicode text": (rows("\t").encode("utf-16"), 0, "ill .* 3"),
    "an Excel file": (b"PK\x03\x04" + bytes(99), 2, r"a spreadsheet must be saved as CSV"),
    "Windows' paths": (rows(names=r"C:\Users\me\films\{}.png"), 0, "ill .* 3"),
    "another machine's paths": (rows(names="/home/me/project/films/{}.png"), 0, "ill .* 3"),
    "addresses": (rows(names="https://a.org/films/{}.png"), 0, "ill .* 3"),
    "an ending in capitals": (rows(names="films/{}.PNG"), 0, "6 files found by name alone"),
    "no ending": (rows(names="{}"), 0, "6 files found by name alone"),
    "columns in capitals": (rows(head="File,Label"), 2, "column of the table, File, Label; got fi"),
    "a comment first": ("# mine\n" + rows(), 2, "must name the columns, 1: # mine"),
    "more cells than columns": (rows(head="file,label").replace("ill", "ill,x"), 2, "has 3 cells"),
    "an index": (rows(names="7,films/{}.png", head=",file,label"), 0, "ill .* 3"),
    "blank lines": (rows().replace("\n", "\n\n"), 0, "ill .* 3"),
    "line ends in cells": (
        rows(head="file,label,note").replace("ill", 'ill,"a\nb"'), 0, "ill .* 3"),
    "pandas' empty label": (rows().replace("well", "nan", 1), 2, r"row 2 \(no label\)"),
    "pandas' whole numbers": (rows().replace("well", "0.0").replace("ill", "1.0"), 0, " 1 .* 3"),
    "names that no folder can have": (rows().replace("ill", "a:b?"), 0, "  a-b- .* 3"),
    "a label of dots": (rows().replace("ill", ".."), 2, r"row 7 \(no letter or digit in"),
    "one letter in two ways": (
        rows().replace("ill", COMPOSED, 1).replace("ill", DECOMPOSED), 0, f"{COMPOSED} .* 3"),
    "a folder among files": (rows() + "\nfilms,ill", 2, r"1 of 7 rows .*: row 8 \(no file films\)"),
    "one file in two spellings": (
        rows() + "\nFilms/0.png,well", 0, r"row 8 names the file of row 2 \(Films/0.png\)"),
    "columns without rows": ("file,label\n", 2, "films.csv has no rows"),
    "nothing": ("", 2, "films.csv is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, code, said = TABLES[name]
    for number in range(6):
        draw(f"films/{number}.png")
    data = content if isinstance(content, bytes) else content.encode()
    Path("films.csv").write_bytes(data)
    got = look(capsys, "films.csv", "data.image_column=file", "data.label_column=label")
    assert got[0] == code
    assert re.search(said, got[1]), got[1]


def test_columns_of_numbers_and_patients(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        draw(f"{number}.png")
    Path("films.csv").write_text("file;age;id\n0.png;3,5;nan\n1.png;2,5;nan\n2.png;4;7\n3.png;;7\n")
    columns = ["data.image_column=file", "data.group_column=id"]
    said = look(capsys, "films.csv", *columns, "data.where=age>3")[1]
    assert "data.where='age>3' took 2 of 4 rows" in said
    assert re.search(r"patients .* 2\n", said)
    assert "1 image without a patient, each taken for a patient of its own: 0.png" in said


def two_classes() -> None:
    for number in range(8):
        draw(f"films/{'ab'[number % 2]}/{number}.png")


def litter() -> None:
    two_classes()
    for folder in ("$RECYCLE.BIN", "@eaDir", "lost+found", "__MACOSX/a", ".ipynb_checkpoints"):
        draw(f"films/{folder}/x.png")
    for name in (".DS_Store", "Thumbs.db", "a/Thumbs.db", "a/._0.png", "desktop.ini"):
        Path("films", name).write_bytes(b"x")


def put(*names: str, pixels: np.ndarray | None = None) -> Callable[[], None]:
    """Images beside two classes."""

    def make() -> None:
        two_classes()
        for name in names:
            draw(f"films/{name}", pixels)

    return make


def write(name: str, content: bytes) -> Callable[[], None]:
    def make() -> None:
        two_classes()
        Path("films", name).write_bytes(content)

    return make


def link(name: str, target: str) -> Callable[[], None]:
    def make() -> None:
        two_classes()
        Path("films", name).symlink_to(Path(target).absolute())

    return make


def only(*names: str, pixels: np.ndarray | None = None) -> Callable[[], None]:
    def make() -> None:
        for name in names:
            draw(f"films/{name}", pixels)

    return make


BLACK = np.zeros((28, 28), np.uint8)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n"

FOLDERS: dict[str, tuple[Callable[[], None], list[str], int, str]] = {
    "what systems leave": (litter, [], 0, "films: 8 images"),
    "a circle of links": (link("a/again", "films"), [], 0, "left out: a/again"),
    "a class linked under another name": (link("c", "films/a"), [], 0, "left out: c"),
    "an image linked into another class": (
        link("a/9.png", "films/b/1.png"), [], 0, "1 image in more than one class, .* a/9.png"),
    "an empty file": (write("a/x.png", b""), [], 2, r"a/x.png \(empty\); repair or remove"),
    "an empty file, skipped": (
        write("a/x.png", b""), ["data.on_bad_image=skip"], 0, r"skipped: 1 file .*x.png \(empty"),
    "a photograph of a phone": (
        write("a/x.heic", b"\0\0\0\x18ftypheic" + bytes(99)), [], 2, r"\(HEIC, which is not read"),
    "a pointer": (write("a/x.png", LFS), [], 2, r"Git LFS pointer \(git lfs pull gets the file\)"),
    "a web page": (write("a/x.jpg", b"<!DOCTYPE html>404"), [], 2, r"\(web page, which is not"),
    "an archive": (write("a/x.zip", b"PK\x03\x04"), [], 2, r"\(ZIP, which is not read"),
    "one class in two spellings": (put("A/1.png", "A/2.png"), [], 0, "different: A and a;"),
    "one letter in two ways": (
        only(*(f"{name}/{n}.png" for name in (COMPOSED, DECOMPOSED) for n in "12")), [], 0,
        "differ only in their spelling"),
    "splits by longer names": (
        only("train_images/1.png", "test_images/1.png"), [], 2,
        r"whose names say splits \(test_images, train_images\)"),
    "classes of tests": (only("test_positive/1.png", "test_negative/1.png"), [], 0, "2 images"),
    "two sets side by side": (
        only(*(f"{name}/{split}/1.png" for name in "ab" for split in ("train", "test"))), [], 2,
        "splits must stand above classes"),
    "a class without test images": (
        only("train/a/1.png", "train/b/1.png", "test/2.png"), [], 2, "either every split must"),
    "a class of one image": (put("c/1.png"), [], 0, "1 of 3 classes have one image only: c;"),
    "classes that no folder can be called": (put("a:b/1.png"), [], 0, "rename them: a:b"),
    "names of any letters": (put("a/ü 图 (1).png", "a/new\nline.png"), [], 0, "films: 10 images"),
    "everything left out": (two_classes, ["data.exclude=."], 2, "data.exclude=. leaves out"),
    "smaller images": (
        put("a/x.png", pixels=BLACK[:3, :3] + np.uint8(1) * np.eye(3, dtype=np.uint8)), [], 0,
        "1 image smaller than data.size and enlarged"),
    "copies": (put("a/x.png", "a/y.png", pixels=BLACK + 7 * np.eye(28, dtype=np.uint8)), [], 0,
               "1 image the same as others, pixel for pixel"),
    "a blank image": (put("a/x.png", pixels=BLACK), [], 0, "1 image of one shade, .*: a/x.png;"),
    "nothing but black": (only("a/1.png", "b/1.png", pixels=BLACK), [], 2,
                          "all 2 images are of one shade, 0 of 0 to 255"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, settings, code, said = FOLDERS[name]
    make()
    got = look(capsys, "films", *settings)
    assert got[0] == code
    assert re.search(said, got[1]), got[1]


IMAGES = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8)

ARCHIVES: dict[str, tuple[dict[str, Any], str]] = {
    "from 0 to 1": ({"images": IMAGES / 255}, "got float64; scale all of them by one range"),
    "Keras' names": ({"x_train": IMAGES}, "must hold images, or train_images, .* holds x_train"),
    "nothing but black": ({"images": 0 * IMAGES}, "all 12 images are of one shade, 0 of"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, said = ARCHIVES[name]
    np.savez("set.npz", **arrays)
    got = look(capsys, "set.npz")
    assert got[0] == 2
    assert re.search(said, got[1]), got[1]
