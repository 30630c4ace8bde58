"""A few tries of each attack of ``soak.py``, which goes on with them for an hour."""

from __future__ import annotations

import os
import random
import urllib.request
from pathlib import Path

import pytest

from tests.attack.attacks import ATTACKS, KINDS, Arena, Figures, attack, files, watched

TRIES = {"arguments": 200, "files": 200, "own_files": 30}


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    before = dict(os.environ)
    yield Arena(tmp_path_factory.mktemp("arena"))
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_any_file_runs_nothing_and_reaches_nowhere(kind: str, arena: Arena) -> None:
    figures = Figures()
    for number in range(1 if kind == "checkpoint.pt" else 12):
        files(random.Random(f"{kind} {number}"), arena, figures, kind)
    assert figures.tries and not figures.faults, "\n".join(figures.examples)


def test_the_hook_sees_what_reading_must_not_do(tmp_path: Path) -> None:
    with watched(tmp_path / "allowed") as seen:
        os.system("true")
        (tmp_path / "file").write_text("")
        (tmp_path / "file").unlink()
        exec(compile("1", "hostile.py", "exec"))
        with pytest.raises(OSError):
            urllib.request.urlopen("http://localhost:1")
    kinds = {each.split()[0] for each in seen}
    assert kinds >= {"os.system", "open", "os.remove", "exec", "urllib.Request", "socket.connect"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_finds_nothing(name: str, arena: Arena) -> None:
    figures = Figures()
    for number in range(TRIES.get(name, 2)):
        attack(name, number, arena, figures)
    if name == "full_disk" and not figures.tries:
        pytest.skip("only root may mount a small file system")
    assert figures.tries and not figures.faults, "\n".join(figures.examples)
