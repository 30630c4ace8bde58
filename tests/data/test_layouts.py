"""Layouts of folders: splits by any name, folders round the data, masks, outputs, patients."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from lungan.config.data import FolderConfig
from lungan.data.folder import load_folder, read_layout
from lungan.errors import ConfigError, DataError

rng = np.random.default_rng(0)


def fill(root: Path, *names: str) -> Path:
    """Write random images of 16 pixels; a name that ends with ``/`` is a folder of four."""
    for name in names:
        for file in [f"{name}{index}.png" for index in range(4)] if name.endswith("/") else [name]:
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
            image.save(path, format="PNG")
    return root


def found(root: Path, **options: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Images by class and by split."""
    files = read_layout(root, **options).files
    return (
        dict(Counter(file.label for file in files)),
        dict(Counter(file.split for file in files if file.split)),
    )


def config(path: Path, **changes: Any) -> FolderConfig:
    settings: dict[str, Any] = {
        **{"name": "folder", "size": 16, "channels": 1, "splits": [], "classes": []},
        **{"path": str(path), "on_bad_image": "error", "val_fraction": None, "test_fraction": None},
    }
    return FolderConfig(**{**settings, **changes})


@pytest.mark.parametrize(
    ("names", "classes", "splits"),
    [
        (["a.png", ".DS_Store.png", "Thumbs.db"], {"all": 1}, {}),
        (["ill/b.png", "ill/a.bmp", "well/z.tif"], {"ill": 2, "well": 1}, {}),
        (["ill/patient1/view/a.png", "ill/patient2/a.png"], {"ill": 2}, {}),
        (["train/a.png", "test/b.png"], {"all": 2}, {"train": 1, "test": 1}),
        (["ill/a.png", "README.md"], {"ill": 1}, {}),
        (["round/a/", "round/b/"], {"a": 4, "b": 4}, {}),
        (["all/", "hem/"], {"all": 4, "hem": 4}, {}),  # leukaemia, as in C-NMC
        *[([f"{split}/{name}/" for split in splits for name in ("a", "b")],
           {"a": 12, "b": 12}, {"train": 8, "val": 8, "test": 8})
          for splits in (("train", "val", "test"), ("Training", "VALID", "Testing"),
                         ("TRAIN", "Validation", "Test"))],
    ],
)  # fmt: skip
def test_layouts_that_are_read(
    tmp_path: Path, names: list[str], classes: dict[str, int], splits: dict[str, int]
) -> None:
    assert found(fill(tmp_path / "in", *names)) == (classes, splits)


def test_a_folder_round_the_data_is_looked_into_and_said(tmp_path: Path) -> None:
    fill(tmp_path, "zip/chest_xray/train/a/", "zip/chest_xray/test/a/")
    assert found(tmp_path) == ({"a": 8}, {"train": 4, "test": 4})
    notes = read_layout(tmp_path).facts.notes
    assert notes[1] == (
        f"chest_xray is the only folder of {tmp_path}: read as if data.path were "
        f"{tmp_path}/zip/chest_xray"
    )


def test_numbered_folders_in_the_only_class_are_parts_of_it(tmp_path: Path) -> None:
    fill(tmp_path, *(f"a/P{number}/" for number in range(6)))
    assert found(tmp_path)[0] == {"a": 24}
    (note,) = read_layout(tmp_path).facts.notes
    assert note.startswith("a is the only class, its 6 numbered sub-folders are parts of it (P0,")
    assert found(fill(tmp_path / "b", "a/x/", "a/y/"), group="folder")[0] == {"a": 8}


def test_labels_can_be_ignored(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/", "train/b/", "test/a/")
    assert found(tmp_path, with_classes=False) == ({"all": 12}, {"train": 8, "test": 4})
    (tmp_path / "val").mkdir()
    (tmp_path / "test/b").mkdir()
    assert load_folder(config(tmp_path, labels="none")).class_names == ("all",)
    assert found(fill(tmp_path / "mixed", "a/", "b.png"), with_classes=False)[0] == {"all": 5}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/images/", "a/masks/"], r"in/a holds masks beside images, .* data.exclude=masks/$"),
        (["images/", "masks/"], r"in holds masks beside images, .* data.exclude=masks/$"),
        (["train/images/", "train/labels/"], r"in holds labels beside images, .*"),
        (["images/", "ground_truth/"], r"in holds ground_truth beside images"),
        (["a/lung masks/", "a/images/"], r"in/a holds lung masks beside images"),
        (["b/b (1).png", "b/b (1)_mask.png", "b/b (1)_mask_1.png"],
         r"in holds masks beside images, .*: 2 files, such as b \(1\)_mask beside b \(1\); .*"
         r"data.exclude=_mask$"),
        (["a/train/", "a/test/", "b/train/", "b/test/"],
         r"class folder a of .* holds test, named like a split: splits must stand above classes, "
         r"as in test/a"),
        (["train/a/", "extra/a/"], r"only the splits train, val, test, got train beside extra; m"),
        (["a/", "b.png"], r"images or class folders, not both: b.png stands beside a; data.labels="
         r"none makes one class of all"),
        (["a/1.png", "b/.hidden.png"], r"class folder b of .* is empty; remove or fill it"),
        (["train/a/1.png", "test/1.png"], r"either every split must hold class folders, or none"),
        ([".hidden.png"], r"data.path must hold images, .* has none"),
    ],
)  # fmt: skip
def test_what_would_train_on_the_wrong_images_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_layout(fill(tmp_path / "in", *names))


@pytest.mark.parametrize(
    ("names", "exclude"),
    [(["a/images/", "a/masks/", "b/images/", "b/masks/"], "masks/"),
     (["a/1.png", "a/1_mask.png", "b/2.png", "b/2_mask.png"], "_mask")],
)  # fmt: skip
def test_the_way_out_that_is_named_works(tmp_path: Path, names: list[str], exclude: str) -> None:
    image_set = load_folder(config(fill(tmp_path / "in", *names), exclude=exclude))
    assert image_set.class_names == ("a", "b")
    assert len(image_set) == sum(4 if name.endswith("/") else 1 for name in names) / 2
    assert any(note.startswith(f"data.exclude={exclude} left") for note in image_set.facts.notes)


def test_documents_among_images_are_left_out_and_said(tmp_path: Path) -> None:
    fill(tmp_path, "a/", "b/")
    (tmp_path / "a/labels.csv").write_text("x")
    (tmp_path / "LICENSE").write_text("x")
    assert found(tmp_path)[0] == {"a": 4, "b": 4}
    assert read_layout(tmp_path).facts.notes == ["1 file left out, no image by name: a/labels.csv"]


def test_lungans_own_output_is_never_data(tmp_path: Path, own_cache: Path) -> None:
    fill(tmp_path, "a/", "b/", "runs/x/samples/", "generated/a/", "out/figures/")
    for name in ("runs/x/config.yaml", "runs/x/log.txt", "runs/.lock", "generated/manifest.csv",
                 "generated/README.md", "out/report.html", "out/results.csv"):  # fmt: skip
        (tmp_path / name).write_text("")
    own_cache.mkdir()
    assert found(tmp_path)[0] == {"a": 4, "b": 4}
    (note,) = read_layout(tmp_path).facts.notes
    assert note == (
        f"folders left out: {own_cache.name} (lungan's cache), generated (images "
        "that lungan generated), out (a report of lungan), runs (a store of lungan's runs)"
    )
    for name, what in (("runs", "a store of lungan's runs"), ("runs/x", "a run of lungan")):
        with pytest.raises(DataError, match=f"{name} is {what}$"):
            read_layout(tmp_path / name)
    assert found(tmp_path / "generated")[0] == {"a": 4}  # what was generated can be scored


def patients(root: Path, num_patients: int = 30) -> Path:
    """Two classes of patients with one to four images each, in sub-folders and file names."""
    return fill(root, *(
        f"{'ab'[patient % 2]}/P{patient}/{patient:04}_{visit}.png"
        for patient in range(num_patients) for visit in range(1 + patient % 4)
    ))  # fmt: skip


@pytest.mark.parametrize("group", ["folder", r"(\d{4})_", r"/P(\d+)/"])
def test_no_patient_is_on_two_sides(tmp_path: Path, group: str) -> None:
    image_set = load_folder(config(patients(tmp_path), group=group))
    assert image_set.groups is not None
    assert len(image_set.group_names) == 30
    pairs = set(zip(image_set.groups.tolist(), image_set.splits.tolist(), strict=True))
    assert len(pairs) == 30
    assert {split for _, split in pairs} == {0, 1, 2}
    assert not image_set.facts.warnings
    same = load_folder(config(tmp_path, group=r"(\d{4})_"))
    assert same.content_hash == image_set.content_hash


def test_patients_that_nobody_names_are_suspected(tmp_path: Path) -> None:
    (warning,) = load_folder(config(patients(tmp_path / "in"))).facts.warnings
    assert " of 30 sub-folders stand in more than one split (" in warning
    assert warning.endswith("data.group=folder keeps each in one split")
    flat = fill(tmp_path / "flat", *(f"{p:08}_{k}.png" for p in range(20) for k in range(3)))
    (warning,) = load_folder(config(flat)).facts.warnings
    assert warning.endswith(r"data.group='^(\d+)_' keeps each in one split")
    assert load_folder(config(flat, group=r"^(\d+)_")).facts.warnings == []


def test_patients_are_suspected_where_labels_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{'ab'[patient % 2]}/P{patient}/" for patient in range(30)))
    (warning,) = load_folder(config(tmp_path, labels="none")).facts.warnings
    assert " of 30 folders stand in more than one split (" in warning
    option = re.search(r"data.group='(.*)' keeps", warning)
    assert option is not None
    image_set = load_folder(config(tmp_path, labels="none", group=option[1]))
    assert len(image_set.group_names) == 30
    assert image_set.facts.warnings == []


def test_patients_taken_for_classes_are_suspected(tmp_path: Path) -> None:
    fill(tmp_path, *(f"P{number}/" for number in range(20)))
    (warning,) = (one for one in load_folder(config(tmp_path)).facts.warnings if "classes" in one)
    assert "20 classes are folders with numbers in their names (P0, P1, P10, ...)" in warning
    assert warning.endswith("data.labels=none data.group=folder says that they are")
    image_set = load_folder(config(tmp_path, labels="none", group="folder"))
    assert len(image_set.group_names) == 20
    assert image_set.facts.warnings == []


@pytest.mark.parametrize("name", ["img_{}.png", "grade1_{}.png", "{}.png", "covid-{}.png"])
def test_numbered_files_are_no_patients(tmp_path: Path, name: str) -> None:
    fill(tmp_path, *(name.format(number) for number in range(60)))
    assert load_folder(config(tmp_path)).facts.warnings == []


def test_given_splits_that_share_a_patient_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1_1.png", "train/a/2_1.png", "test/a/1_2.png", "test/a/3_1.png")
    damaged = tmp_path / "test/a/4_1.png"
    damaged.write_bytes(b"")  # nothing is decoded before
    with pytest.raises(
        DataError, match=r"1 patient in more than one split: 1 in train and test; that"
    ):
        load_folder(config(tmp_path, group=r"(\d)_"))
    damaged.unlink()
    (warning,) = load_folder(config(tmp_path, group=r"(\d)_", straddle="warn")).facts.warnings
    assert "1 in train and test" in warning


def test_copies_in_two_classes_are_said(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.png", "a/2.png", "b/3.png")
    shutil.copy(tmp_path / "a/1.png", tmp_path / "b/4.png")
    (warning,) = load_folder(config(tmp_path, val_fraction=0, test_fraction=0)).facts.warnings
    said = "1 image in more than one class, pixel for pixel: a/1.png in a and b/4.png in b"
    assert warning == said


def test_copies_in_two_given_splits_are_said(tmp_path: Path) -> None:
    fill(tmp_path, "train/a/1.png", "train/a/2.png", "test/a/3.png")
    shutil.copy(tmp_path / "train/a/1.png", tmp_path / "test/a/4.png")
    (warning,) = load_folder(config(tmp_path)).facts.warnings
    assert warning == (
        "1 image in more than one split, pixel for pixel: test/a/4.png in test and train/a/1.png "
        "in train"
    )


def test_images_made_grey_are_said(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    said = "1 image in colour made grey; data.channels=3 keeps colour"
    assert said in load_folder(config(tmp_path)).facts.notes
    assert said not in load_folder(config(tmp_path, channels=3)).facts.notes


def test_groups_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    fill(tmp_path, "a/x_1.png", "a/2_1.png")
    with pytest.raises(DataError, match=r"finds no group in the names of 1 of 2 files: a/x_1.png;"):
        load_folder(config(tmp_path, group=r"(\d)_"))
    with pytest.raises(DataError, match=r"data.group=folder needs a sub-folder for each patient"):
        load_folder(config(tmp_path, group="folder"))


def test_shares_are_usual_ones_unless_splits_are_given(tmp_path: Path) -> None:
    plain = load_folder(config(fill(tmp_path / "plain", *(f"{n}.png" for n in range(200)))))
    assert np.allclose(np.bincount(plain.splits) / 200, [0.7, 0.15, 0.15], atol=0.1)
    assert any("15% of the images for val and 15% for test were drawn, image by" in note
               for note in plain.facts.notes)  # fmt: skip
    given = fill(tmp_path / "given", "train/a/", "test/a/")
    assert np.bincount(load_folder(config(given)).splits).tolist() == [4, 0, 4]
    assert load_folder(config(given, val_fraction=0.0, test_fraction=0.0)).facts.notes == []
    with pytest.raises(ConfigError, match=r"must be 0 where .* has splits of its own"):
        load_folder(config(given, test_fraction=0.2))


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "films ü (1)", "a/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_folder(config(Path("~/films ü (1)")))) == 4
