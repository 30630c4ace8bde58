"""Tables of images: columns, the layouts of well-known data sets, and what is wrong in them."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lungan.config.data import FolderConfig, TableConfig
from lungan.data.folder import load_folder
from lungan.data.images import ImageSet
from lungan.data.table import load_table, normalize
from lungan.errors import ConfigError, DataError

rng = np.random.default_rng(0)

SHARED: dict[str, Any] = {
    **{"size": 16, "channels": 1, "splits": [], "classes": [], "on_bad_image": "error"},
    **{"val_fraction": None, "test_fraction": None},
}
BLANK: dict[str, Any] = {
    **{"name": "table", "root": None, "image_column": "file", "label_column": None, "label": None},
    **{"group_column": None, "split_column": None, "where": ""},
}


def draw(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / name), rng.integers(0, 256, (16, 16), dtype=np.uint8))


def write(path: Path, header: str, *rows: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join([*([header] if header else []), *rows]) + "\n", encoding=encoding)
    return path


def load(table: Path, **changes: Any) -> ImageSet:
    return load_table(TableConfig(**{"path": str(table), **SHARED, **BLANK, **changes}))


def classes(image_set: ImageSet) -> list[str]:
    """The class of each image, in the order of the files."""
    return [image_set.class_names[label] for label in image_set.labels]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Three films, a to c, and a table that lists them last first."""
    draw(tmp_path, "a.png", "b.png", "c.png")
    return write(tmp_path / "films.csv", "file,view,finding,age", "c.png,PA,ill,070Y",
                 "b.png,AP,ill,20", "a.png,PA,well,9")  # fmt: skip


def test_images_stand_in_the_order_of_their_files(films: Path) -> None:
    image_set = load(films, label_column="finding")
    assert classes(image_set) == ["well", "ill", "ill"]
    first = cv2.imread(str(films.parent / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(image_set.images[0, 0], first)
    assert load(films).class_names == ("all",)
    assert load(films, label_column="finding", labels="none").class_names == ("all",)


def test_a_folder_and_a_table_of_the_same_files_are_the_same_images(tmp_path: Path) -> None:
    names = [f"{name}/{p:03}_{k}.png" for p in range(30) for k in range(1 + p % 3)
             for name in (["ill"] if p % 2 else ["well", "ill"])]  # fmt: skip
    draw(tmp_path / "films", *names)
    rows = [f"{name},{name.partition('/')[0]},patient {Path(name).name[:3]}" for name in names]
    rng.shuffle(rows)
    table = write(tmp_path / "films.csv", "file,finding,patient", *rows)
    by_table = load(table, root=str(tmp_path / "films"), label_column="finding",
                    group_column="patient")  # fmt: skip
    by_folder = load_folder(
        FolderConfig(**SHARED, name="folder", path=str(tmp_path / "films"), group=r"(\d+)_")
    )
    assert by_table.content_hash == by_folder.content_hash
    assert by_table.groups is not None and by_folder.groups is not None
    assert by_table.groups.tolist() == by_folder.groups.tolist()
    assert len(set(by_table.splits.tolist())) == 3


def test_rows_are_chosen(films: Path) -> None:
    for where, wanted in [("view=PA", 2), ("view=pa,ap", 3), ("view!=PA", 1), ("age>=18", 2),
                          ("view=PA; age>18", 1), ("age=9.0", 1)]:  # fmt: skip
        assert len(load(films, where=where)) == wanted
    with pytest.raises(ConfigError, match=r"data.where must be a column of the table, .*; got vew"):
        load(films, where="vew=PA")
    with pytest.raises(ConfigError, match=r"data.where must be conditions such as .*, got PA"):
        load(films, where="PA")
    with pytest.raises(DataError, match=r"must take at least one of the 3 rows"):
        load(films, where="view=lateral")


def test_cells_are_compared_as_what_they_are() -> None:
    assert normalize("1.0") == normalize("01") == normalize(" 1") == "1"
    assert normalize("-0.50") == normalize("-.5")
    assert normalize("PA ") == normalize("pa")
    assert normalize("12345678") != normalize("12345679")
    assert normalize("1_3") != normalize("13")


NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def test_nih_chest_xray14(tmp_path: Path) -> None:
    """One finding of a list against all others; files in sub-folders, found by their names."""
    draw(tmp_path / "images_001/images", "00000001_000.png", "00000001_001.png")
    draw(tmp_path / "images_002/images", "00000002_000.png", "00000003_000.png")
    end = "2500,2048,0.168,0.168,"
    table = write(tmp_path / "Data_Entry_2017.csv", NIH,
                  f"00000001_000.png,Pneumonia|Effusion,0,1,057Y,M,PA,{end}",
                  f"00000001_001.png,Effusion,1,1,058Y,M,PA,{end}",
                  f"00000002_000.png,No Finding,0,2,081Y,F,PA,{end}",
                  f"00000003_000.png,Pneumonia,0,3,081Y,F,AP,{end}")  # fmt: skip
    columns = {"image_column": "Image Index", "label_column": "Finding Labels",
               "group_column": "Patient ID", "val_fraction": 0.0, "test_fraction": 0.0}  # fmt: skip
    image_set = load(table, **columns, label="Pneumonia", where="View Position=PA")
    assert classes(image_set) == ["Pneumonia", "not_Pneumonia", "not_Pneumonia"]
    assert image_set.groups is not None
    assert image_set.groups.tolist() == [0, 0, 1]
    assert f"3 files found by name alone, in sub-folders of {tmp_path}" in (image_set.facts.notes)
    with pytest.raises(ConfigError, match=r"lists of findings, so data.label must say which one"):
        load(table, **columns)
    with pytest.raises(ConfigError, match=r"data.label must be a value of .*; got Pnuemonia"):
        load(table, **columns, label="Pnuemonia")


def test_chexpert(tmp_path: Path) -> None:
    """A column of 1, 0, -1 and nothing; the path begins above the table; patients in the path."""
    patients = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in range(1, 5)]
    draw(tmp_path / "CheXpert-v1.0-small", *patients)
    values = ["1.0,", "0.0,1.0", "-1.0,", ",1.0"]
    table = write(
        tmp_path / "CheXpert-v1.0-small/train.csv",
        "Path,Sex,Age,Frontal/Lateral,AP/PA,Pneumonia,No Finding",
        *(f"CheXpert-v1.0-small/{path},Female,68,Frontal,AP,{value}"
          for path, value in zip(patients, values, strict=True)),
    )  # fmt: skip
    columns = {"image_column": "Path", "group": r"(patient\d+)/"}
    with pytest.raises(
        DataError,
        match=r"2 of 4 rows .* cannot be used: row 4 \(Pneumonia is -1\), row 5 \(Pneumonia is e"
        r"mpty\); data.root says where .*, data.where chooses rows, and data.on_bad_image=skip",
    ):
        load(table, **columns, label_column="Pneumonia")
    image_set = load(table, **columns, label_column="Pneumonia", where="Pneumonia=0,1")
    assert classes(image_set) == ["Pneumonia", "not_Pneumonia"]
    assert image_set.group_names == ("patient00001", "patient00002")
    # Of two columns an empty one is a no.
    several = load(
        table, **columns, label_column=["Pneumonia", "No Finding"], where="Pneumonia!=-1"
    )
    assert classes(several) == ["Pneumonia", "No Finding", "No Finding"]


def test_covid_chestxray(tmp_path: Path) -> None:
    """Text with slashes, which cannot stand in a folder's name; a class seen once."""
    draw(tmp_path / "images", "a.jpg", "b.jpeg", "c.png", "d.png")
    table = write(tmp_path / "metadata.csv",
                  "patientid,offset,sex,age,finding,view,modality,folder,filename,clinical_notes",
                  '2,0,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,a.jpg,"Day 0; fever, cough"',
                  "2,3,M,65,Pneumonia/Viral/COVID-19,PA,X-ray,images,b.jpeg,",
                  "4,0,F,52,No Finding,AP,X-ray,images,c.png,",
                  "7,0,F,52,Pneumonia,L,X-ray,images,d.png,")  # fmt: skip
    image_set = load(table, root=str(tmp_path / "images"), image_column="filename",
                     label_column="finding", group_column="patientid",
                     where="view=PA,AP")  # fmt: skip
    assert classes(image_set) == ["Pneumonia-Viral-COVID-19"] * 2 + ["No Finding"]
    assert any(warning.startswith("1 of 2 classes have one image only: No Finding;")
               for warning in image_set.facts.warnings)  # fmt: skip


def test_medmnist_saved_as_files(tmp_path: Path) -> None:
    """No header, so columns are numbers; splits by Google's names."""
    names = ["train0_1.png", "train1_0.png", "val0_1.png", "test0_0.png"]
    draw(tmp_path / "pneumoniamnist_224", *names)
    path = tmp_path / "pneumoniamnist_224.csv"
    table = write(path, "", "TRAIN,train0_1.png,1", "TRAIN,train1_0.png,0",
                  "VALIDATION,val0_1.png,1", "TEST,test0_0.png,0")  # fmt: skip
    image_set = load(table, root=str(tmp_path / "pneumoniamnist_224"), split_column="0",
                     image_column="1", label_column="2")  # fmt: skip
    assert classes(image_set) == ["0", "1", "0", "1"]
    assert image_set.splits.tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_encodings_and_separators(tmp_path: Path, encoding: str, separator: str) -> None:
    draw(tmp_path, "ä.png", "b.png")
    rows = [["file", "befund"], ["ä.png", "Lungenentzündung"], ["b.png", "gesund, 1; 2"]]
    with (tmp_path / "t.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    image_set = load(tmp_path / "t.csv", label_column="befund")
    assert image_set.class_names == ("Lungenentzündung", "gesund, 1; 2")
    said = [note for note in image_set.facts.notes if "Latin-1" in note]
    assert len(said) == (encoding == "latin-1")


def test_what_is_wrong_with_rows_is_one_line_or_skipped(films: Path) -> None:
    write(films, "file,finding", "a.png,ill", "b.png,", "gone.png,ill", ",ill", "c.png,well")
    columns = {"label_column": "finding", "val_fraction": 0.0, "test_fraction": 0.0}
    with pytest.raises(
        DataError,
        match=r"3 of 5 rows .*: row 3 \(no label\), row 4 \(no file gone.png\), row 5 \(no f",
    ):
        load(films, **columns)
    image_set = load(films, **columns, on_bad_image="skip")
    assert classes(image_set) == ["ill", "well"]
    (said,) = (warning for warning in image_set.facts.warnings if " rows of " in warning)
    assert said.startswith("3 of 5 rows of ") and said.endswith("; they are left out")
    write(films, "file,finding", *(f"{n}.png,ill" for n in range(13)))
    with pytest.raises(DataError, match=r"13 of 13 rows .*row 11 \(no file 9.png\), and 3 more;"):
        load(films, **columns)


def test_a_file_in_two_rows(films: Path) -> None:
    write(films, "file,finding", "a.png,ill", "b.png,well", "./a.png,ill")
    image_set = load(films, label_column="finding")
    assert len(image_set) == 2
    assert (
        "left out 1 row whose file another row names: row 4 names the file of row 2 (./a.png)"
        in (image_set.facts.warnings)
    )
    write(films, "file,finding", "a.png,ill", "b.png,well", "a.png,well")
    with pytest.raises(DataError, match=r"one label, .*, and has others in 1 row of "):
        load(films, label_column="finding")


def test_a_patients_number_with_a_point_is_the_same_patient(films: Path) -> None:
    write(films, "file,patient", "a.png,7", "b.png,7.0", "c.png,7.5")
    assert load(films, group_column="patient").group_names == ("7", "7.5")


def test_a_class_has_a_name_of_one_line(films: Path) -> None:
    write(films, "file,finding", 'a.png,"not\n ill"', "b.png,ill", "c.png,ill")
    assert load(films, label_column="finding").class_names == ("ill", "not ill")


@pytest.mark.parametrize("other", ["VERY ILL", "very_ill", "Very-ill"])
def test_spellings_of_one_class_are_said(films: Path, other: str) -> None:
    write(films, "file,finding", "a.png,ill", f"b.png,{other}", "c.png,very ill")
    (said,) = (one for one in load(films, label_column="finding").facts.warnings if "spell" in one)
    assert all(name in said for name in (other, "very ill", " and "))
    write(films, "file,finding", "a.png,ill", "b.png,well", "c.png,very ill")
    assert not any("spell" in one for one in load(films, label_column="finding").facts.warnings)


@pytest.mark.parametrize("top", ["", "CheXpert-v1.0-small/train/"])
def test_folders_of_patients_in_a_table_are_suspected(tmp_path: Path, top: str) -> None:
    names = [f"{top}patient{p:05}/study{s}/view1.png" for p in range(20) for s in range(3)]
    draw(tmp_path, *names)
    table = write(tmp_path / "films.csv", "file", *names)
    (warning,) = load(table).facts.warnings
    assert f"{top}patient" in warning
    option = re.search(r"data.group='(.*)' keeps", warning)
    assert option is not None
    image_set = load(table, group=option[1])
    assert len(image_set.group_names) == 20
    assert image_set.facts.warnings == []


def test_links_stand_where_they_are_not_where_they_lead(tmp_path: Path) -> None:
    draw(tmp_path / "store", "z.png", "y.png")
    (tmp_path / "films").mkdir()
    for name, target in (("a.png", "z.png"), ("b.png", "y.png")):
        (tmp_path / "films" / name).symlink_to(tmp_path / "store" / target)
    table = write(tmp_path / "t.csv", "file", "b.png", "a.png")
    by_folder = load_folder(FolderConfig(**SHARED, name="folder", path=str(tmp_path / "films")))
    by_table = load(table, root=str(tmp_path / "films"))
    assert by_table.content_hash == by_folder.content_hash


def test_patients_in_two_given_splits_are_refused(films: Path) -> None:
    write(films, "file,split,id", "a.png,train,1", "b.png,Testing,1", "c.png,valid,2")
    columns = {"split_column": "split", "group_column": "id"}
    with pytest.raises(DataError, match=r"1 patient in more than one split: 1 in train and test;"):
        load(films, **columns)
    assert load(films, **columns, straddle="warn").splits.tolist() == [0, 2, 1]
    write(films, "file,split", "a.png,train", "b.png,fold2")
    with pytest.raises(DataError, match=r"row 3 \(its split is fold2, not train, training, v"):
        load(films, split_column="split")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image_column": None}, ConfigError, r"must name the column of files, .*; file looks l"),
        ({"image_column": "x"}, ConfigError, r"must be a column of the table, file, .*; got x"),
        ({"label_column": "x"}, ConfigError, r"data.label_column must be a column .*; got x"),
        ({"label": "ill"}, ConfigError, r"data.label needs data.label_column"),
        ({"root": "nowhere"}, DataError, r"data.root must be a folder, nowhere does not exist"),
        ({"path": "gone.csv"}, DataError, r"data.path must be a table, gone.csv: No such file"),
        ({"path": "."}, DataError, r"is a folder: use data=folder"),
        ({"where": "age>99"}, DataError, r"data.where='age>99' must take at least one of the 3 ro"),
        ({"group": "folder"}, ConfigError, r"data.group must be a pattern in a table"),
    ],
)
def test_settings_that_do_not_fit(
    films: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load(films, **changes)


def test_a_table_without_header_says_how_its_columns_are_called(films: Path) -> None:
    write(films, "a.png,ill", "b.png,well")
    with pytest.raises(ConfigError, match=r"if the table has no header, number columns from 0"):
        load(films, label_column="finding")
    assert classes(load(films, image_column="0", label_column="1")) == ["ill", "well"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbf\n", r"films.csv is empty"),
        (
            b"file,x\na.png,1\nb.png,1,2,3\n",
            r"row 3 has 4 cells and the first row, .*, 2: file,x; put quotes",
        ),
        (b"\xff\xfef\0i\0l", r"its UTF-16 text is not whole"),
    ],
)
def test_files_that_are_no_table(films: Path, data: bytes, message: str) -> None:
    films.write_bytes(data)
    with pytest.raises(DataError, match=message):
        load(films)


def test_real_films_by_folder_and_by_table_are_one_set_without_shared_patients(
    nih_chest_path: Path, tmp_path: Path
) -> None:
    files = sorted(path.relative_to(nih_chest_path) for path in nih_chest_path.glob("*/*.jpg"))
    rows = [f"{file},{file.parent},{file.name.partition('_')[0]}" for file in files]
    rng.shuffle(rows)
    table = write(tmp_path / "films.csv", "file,finding,patient", *rows)
    by_table = load(table, root=str(nih_chest_path), label_column="finding",
                    group_column="patient")  # fmt: skip
    by_folder = load_folder(
        FolderConfig(**SHARED, name="folder", path=str(nih_chest_path), group=r"(\d+)_")
    )
    assert by_table.content_hash == by_folder.content_hash
    assert by_table.group_names == by_folder.group_names
    groups, splits = by_folder.groups, by_folder.splits
    assert groups is not None and len(by_folder.group_names) == 565
    assert len(set(zip(groups.tolist(), splits.tolist(), strict=True))) == 565
    for label in (0, 1):
        counts = np.bincount(splits[by_folder.labels == label]) / (by_folder.labels == label).sum()
        assert np.abs(counts - [0.7, 0.15, 0.15]).max() < 0.02
    by_image = load_folder(FolderConfig(**SHARED, name="folder", path=str(nih_chest_path)))
    assert any("data.group='^(\\d+)_'" in warning for warning in by_image.facts.warnings)
