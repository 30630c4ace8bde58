"""docs/data.md: its commands print what it says they print."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungan.config import compose
from lungan.data.__main__ import main

PAGE = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ python -m lungan\.data (.*)\n((?:(?!\$|```).*\n)*)", PAGE, re.M)
TRAINING = re.findall(r"^(?:\$ )?python -m lungan\.train ((?:.*\\\n)*.*)", PAGE, re.M)


def draw_films(root: Path) -> None:
    """The page's example: films of 60 patients in two class folders, a table of them, DICOM
    files, and a folder with masks."""
    rng = np.random.default_rng(0)

    def draw(path: str, height: int = 80, width: int = 80) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        assert cv2.imwrite(str(root / path), image)

    rows = ["file;view;finding;patient"]
    for patient in range(1, 61):
        finding = "pneumonia" if patient % 3 else "normal"
        for visit in range(1 + patient % 3):
            name = f"{finding}/{patient:04}_{visit}.png"
            draw(f"films/{name}", *((80, 100) if patient % 7 == 0 else (80, 80)))
            rows.append(f"{name};{'AP' if visit else 'PA'};{finding};{patient}")
    (root / "films/README.txt").write_text("about these films")
    (root / "films.csv").write_text("\n".join(rows) + "\n")
    for name in ("images", "masks"):
        for number in range(4):
            draw(f"covid/{name}/{number}.png")
    pydicom_testdata = pytest.importorskip("pydicom.data", reason="needs lungan[dicom]")
    (root / "scans").mkdir()
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        source = pydicom_testdata.get_testdata_file(name, download=False)
        shutil.copy(source, root / "scans" / f"{number}.dcm")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("example")
    draw_films(root)
    return root


@pytest.mark.parametrize(("command", "printed"), COMMANDS)
def test_a_command_prints_what_the_page_says(
    command: str,
    printed: str,
    films: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(films)
    code = main(shlex.split(command))
    said = capsys.readouterr()
    assert (said.out or said.err) == printed.rstrip("\n") + "\n"
    assert code == (2 if said.err else 0)


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 5
    assert len(TRAINING) >= 5


@pytest.mark.parametrize("command", TRAINING)
def test_every_setting_of_a_training_command_is_one(command: str) -> None:
    with compose.composer():
        compose.compose(shlex.split(command.replace("\\\n", " ")))
