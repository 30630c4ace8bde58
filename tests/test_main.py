"""All commands behind one word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lungan
from lungan.__main__ import COMMANDS, main

ROOT = Path(lungan.__file__).parents[1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name}" in said for name in COMMANDS)


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ConfigError: a command must be one of train, search, score")
    assert len(said.splitlines()) == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lungan {lungan.__version__}\n"


def test_a_command_gets_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--cfg", "job", "lr=0.0005"]) == 0
    assert "lr: 0.0005\n" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--hydra-help", "--info", "--config-name=x", "--cfg", "-m"])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_of_hydras_is_answered_by_one_line(
    name: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "train" and option in ("--cfg", "-m"):
        return  # it has them
    with pytest.raises(SystemExit) as ended:
        main([name, option])
    (line,) = capsys.readouterr().err.splitlines()
    option = option.partition("=")[0]
    assert ended.value.code == 2
    assert line.startswith(f"ConfigError: unrecognized arguments: {option}: ")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it raises ImportError
from lungan.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_answers_without_torch(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, name, "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: python -m lungan.{name}" in done.stdout
